"use strict";
// What a table shows, as a file: CSV, JSON, Markdown, LaTeX. The last two are written as tabulate writes its formats
// "github" and "latex_booktabs".

const download = (() => {
  const { el } = polyprompt;

  /** A cell that a spreadsheet takes for a formula is made text: names come from strangers. */
  function field(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv({ columns, rows }) {
    const headings = columns.flatMap((column) => (column.interval ? [column.name, `${column.name} low`, `${column.name} high`] : [column.name]));
    const lines = rows.map((row) => row.flatMap((cell, at) => (columns[at].interval ? [cell.value, cell.low, cell.high] : [cell.value])));
    return [headings, ...lines].map((line) => line.map(field).join(",")).join("\r\n") + "\r\n";
  }

  function json({ title, columns, rows }) {
    const objects = rows.map((row) => row.map((cell, at) => [columns[at].name, columns[at].interval ? cell : (cell.value ?? null)]));
    return JSON.stringify({ title, address: location.hash, rows: objects.map(Object.fromEntries) }, null, 2) + "\n";
  }

  /** Columns as wide as their widest cell: names to the left, numbers to the right. */
  function padded(table) {
    const texts = [table.columns.map((column) => column.name), ...table.rows.map((row) => row.map((cell) => cell.text))];
    return { texts, widths: table.columns.map((_, at) => Math.max(...texts.map((line) => Array.from(line[at]).length))) };
  }

  const fill = (text, width, right) => (right ? " ".repeat(width - Array.from(text).length) + text : text + " ".repeat(width - Array.from(text).length));

  function markdown(table) {
    const clean = (text) => text.replace(/[\r\n]+/g, " ").replace(/[\\|<>`*_[\]]/g, "\\$&");
    const safe = {
      columns: table.columns.map((column) => ({ ...column, name: clean(column.name) })),
      rows: table.rows.map((row) => row.map((cell) => ({ ...cell, text: clean(cell.text) }))),
    };
    const { texts, widths } = padded(safe);
    const line = (cells) => `| ${cells.map((text, at) => fill(text, widths[at], table.columns[at].number)).join(" | ")} |`;
    const rule = `|${widths.map((width, at) => (table.columns[at].number ? `${"-".repeat(width + 1)}:` : "-".repeat(width + 2))).join("|")}|`;
    return [line(texts[0]), rule, ...texts.slice(1).map(line)].join("\n") + "\n";
  }

  const LATEX = { "&": "\\&", "%": "\\%", $: "\\$", "#": "\\#", _: "\\_", "^": "\\^{}", "{": "\\{", "}": "\\}", "~": "\\textasciitilde{}", "\\": "\\textbackslash{}", "<": "\\ensuremath{<}", ">": "\\ensuremath{>}" };

  function latex(table) {
    const clean = (text) => text.replace(/[\r\n]+/g, " ").replace(/[&%$#_^{}~\\<>]/g, (sign) => LATEX[sign]);
    const line = (cells) => ` ${cells.map(clean).join(" & ")} \\\\`;
    return [
      `\\begin{tabular}{${table.columns.map((column) => (column.number ? "r" : "l")).join("")}}`,
      "\\toprule",
      line(table.columns.map((column) => column.name)),
      "\\midrule",
      ...table.rows.map((row) => line(row.map((cell) => cell.text))),
      "\\bottomrule",
      "\\end{tabular}",
    ].join("\n") + "\n";
  }

  const FORMATS = { csv: [csv, "text/csv"], json: [json, "application/json"], md: [markdown, "text/markdown"], tex: [latex, "text/x-tex"] };

  /** Give a table to the reader; a table is { title, columns: [{ name, number, interval }], rows: [[{ text, value, low, high }]] }. */
  function save(table, name, format) {
    const [write, type] = FORMATS[format];
    const address = URL.createObjectURL(new Blob([write(table)], { type: `${type};charset=utf-8` }));
    const link = el("a", { href: address, download: `${name}.${format}` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  return { save, formats: Object.keys(FORMATS) };
})();
