"use strict";
// A table of systems that sorts, filters, chooses its columns, and keeps all of that in the page's address. The page is
// complete without it, up to the number of rows that its caption says; here DataTables takes over with all rows.

(() => {
  const { load, el, points, range, same, view, say, root } = polyprompt;
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const SHADES = 8;
  const ROWS = 50;
  const SIZES = [["under 50 M", 0], ["50 M to 200 M", 50e6], ["200 M to 1 B", 200e6], ["over 1 B", 1e9]];
  const LAYOUT = { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: { paging: { firstLast: false, numbers: 5 } } };
  const LANGUAGE = { info: "_START_–_END_ of _TOTAL_", infoFiltered: "(_MAX_ in all)", infoEmpty: "", zeroRecords: "Nothing matches. Take a filter away to see more.", emptyTable: "Nothing was scored here yet." };

  const number = (a, b, sign) => {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // not scored: last either way
    return sign * (a - b);
  };
  DataTable.type("figure", { detect: () => false, className: "", order: { pre: Number, asc: (a, b) => number(a, b, 1), desc: (a, b) => number(a, b, -1) } });
  DataTable.type("name", { detect: () => false, className: "", order: { asc: (a, b) => collator.compare(a, b), desc: (a, b) => collator.compare(b, a) } });

  const sizeOf = ({ size }) => (size ? SIZES.findLast(([, least]) => size >= least)[0] : "not known");
  const FACETS = [
    ["method", "Method", ({ method }) => method],
    ["backbone", "Backbone", ({ backbone }) => backbone],
    ["size", "Size", sizeOf],
    ["origin", "Origin", ({ origin }) => origin],
  ];

  class Grid {
    constructor(table, board, everything) {
      Object.assign(this, { table, board, everything });
      this.section = table.closest("section");
      this.tools = this.section.querySelector(".tools");
      this.controls();
      this.read();
      this.build();
      this.languagesChanged().then(() => {
        table.dataset.ready = "true";
      });
      window.addEventListener("hashchange", () => {
        if (location.hash.includes("=") || !location.hash) this.restore();
      });
    }

    /** The view that the address asks for. */
    read() {
      const asked = view.read();
      const list = (key) => (asked.get(key) ?? "").split(",").filter(Boolean).map(decodeURIComponent);
      this.query = asked.get("q") ?? "";
      this.facets = new Map(FACETS.map(([key]) => [key, new Set(list(key))]));
      this.languages = new Set(list("lang"));
      this.scripts = new Set(list("script"));
      this.picked = new Set(list("pick").slice(0, 2));
      this.shaded = asked.get("shade") === "1";
      this.usual = this.board.columns.flatMap((_, at) => (this.table.tHead.rows[0]?.cells[at + 1]?.hasAttribute("data-optional") ? [] : [at]));
      const columns = new Set(list("cols"));
      this.shown = asked.has("cols") ? this.board.columns.flatMap(({ key }, at) => (columns.has(key) ? [at] : [])) : this.usual;
      const [key, direction] = (asked.get("sort") ?? "").split(" ");
      const at = key === "name" ? -1 : this.board.columns.findIndex((column) => column.key === key);
      this.order = key === "name" || at >= 0 ? [[at + 1, direction === "asc" ? "asc" : "desc"]] : [];
      this.page = Math.max(0, (Number(asked.get("page")) || 1) - 1);
    }

    build() {
      const { board, table } = this;
      const first = {
        data: (row) => row.system,
        type: "name",
        cellType: "th",
        className: "label",
        searchable: false, // see the fixed search below
        orderSequence: ["asc", "desc", ""],
        render: (system, type) => (type === "display" ? this.heading(system) : cells.name(system)),
      };
      const others = board.columns.map((column, at) => ({
        data: (row) => row,
        type: "figure",
        className: `${column.type}${column.main ? " main" : ""}`,
        visible: this.shown.includes(at),
        orderSequence: column.ascending ? ["asc", "desc", ""] : ["desc", "asc", ""],
        searchable: false,
        render: (row, type) => (type === "display" ? this.draw(row, at) : board.value(row, at)),
      }));
      this.grid = new DataTable(table, {
        data: board.rows,
        columns: [first, ...others],
        order: this.order,
        orderMulti: false,
        deferRender: true,
        autoWidth: false,
        pageLength: ROWS,
        displayStart: ROWS * this.page,
        layout: LAYOUT,
        language: LANGUAGE,
        createdRow: (row) => row.cells[0].setAttribute("scope", "row"),
        initComplete: () => named(table),
        rowCallback: (line, row) => this.shade(line, row),
      });
      // DataTables itself would take a name with "&" in it for HTML.
      this.grid.search.fixed("words", (_, row) => {
        row.text ??= cells.name(row.system).toLowerCase();
        return this.query.toLowerCase().split(/\s+/).every((word) => row.text.includes(word));
      });
      this.grid.search.fixed("facets", (_, row) => FACETS.every(([key, , of]) => !this.facets.get(key).size || this.facets.get(key).has(of(row.system))));
      this.grid.on("draw", () => this.remember());
    }

    /** Show the view of the address again, after a step back or a link to the page itself. */
    restore() {
      if (this.written === location.hash.slice(1)) return;
      this.read();
      this.grid.order(this.order);
      this.fill();
      this.languagesChanged();
    }

    heading(system) {
      const box = el("input", { type: "checkbox", "aria-label": `Compare ${cells.name(system)}`, change: () => this.pick(system, box.checked) });
      box.checked = this.picked.has(system.key);
      const head = cells.heading(system);
      if (system.replicates) head.prepend(box);
      return head;
    }

    draw(row, at) {
      const column = this.board.columns[at];
      const cell = this.board.cell(row, at);
      if (column.type === "score") return cells.figure(cell, column, this.everything.flags);
      return cells.amount(cell, column.type === "rank" ? "not ranked" : "not known");
    }

    pick(system, on) {
      if (on) this.picked.add(system.key);
      else this.picked.delete(system.key);
      if (this.picked.size > 2) {
        this.picked.delete([...this.picked][0]); // the two that were chosen last
        this.grid.rows().invalidate("data").draw(false);
      } else this.remember();
    }

    /** Means are over the chosen languages, columns of others are not shown. */
    async languagesChanged() {
      const { board } = this;
      const wanted = this.languages.size || this.scripts.size;
      const before = board.chosen;
      const codes = board.data.languages.filter(([code, , script]) => this.languages.has(code) || this.scripts.has(script)).map(([code]) => code);
      await board.choose(wanted ? new Set(codes) : null, load, this.everything);
      const note = this.section.querySelector(".chosen");
      note.hidden = !wanted;
      note.textContent = wanted ? `Means are over ${[...this.languages, ...this.scripts].join(", ")} alone and have no intervals or ranks. A system that lacks one of these languages has none.` : "";
      this.columnsChanged();
      if (wanted || before) this.grid.rows().invalidate("data"); // which takes long for many rows
      this.grid.draw(false);
    }

    columnsChanged() {
      const { board } = this;
      board.columns.forEach((column, at) => {
        const off = board.chosen && ((column.language && !board.chosen.has(column.language)) || column.over === "none" || column.type === "rank");
        const shown = this.shown.includes(at) && !off;
        const drawn = this.grid.column(at + 1);
        if (drawn.visible() !== shown) drawn.visible(shown, false);
      });
      this.visible = board.columns.flatMap((_, at) => (this.grid.column(at + 1).visible() ? [at] : []));
      this.ends = null;
    }

    /** The lowest and the highest score on show: the ends of the shades. */
    spread() {
      let [low, high] = [Infinity, -Infinity];
      for (const row of this.board.rows) {
        for (const at of this.visible) {
          if (this.board.columns[at].type !== "score" || this.board.columns[at].kind === "gap") continue;
          const value = this.board.value(row, at);
          if (value < low) low = value;
          if (value > high) high = value;
        }
      }
      return [low, high];
    }

    shade(line, row) {
      if (!this.visible) return;
      if (this.shaded) this.ends ??= this.spread();
      this.visible.forEach((at, place) => {
        const cell = line.cells[place + 1];
        const column = this.board.columns[at];
        if (!cell || column.type !== "score") return;
        const value = this.shaded && column.kind !== "gap" ? this.board.value(row, at) : NaN;
        const [low, high] = this.ends ?? [0, 0];
        if (Number.isNaN(value) || high <= low) delete cell.dataset.shade;
        else cell.dataset.shade = Math.min(SHADES - 1, Math.floor((SHADES * (value - low)) / (high - low)));
      });
    }

    /** Controls above the table, made once. */
    controls() {
      this.field = el("input", {
        type: "search",
        id: "filter",
        autocomplete: "off",
        spellcheck: "false",
        input: () => {
          this.query = this.field.value;
          this.grid.draw();
        },
      });
      this.shading = el("input", {
        type: "checkbox",
        change: () => {
          this.shaded = this.shading.checked;
          this.grid.draw("page");
        },
      });
      this.compare = el("a", { class: "compare", hidden: true });
      this.chips = el("ul", { class: "chips", "aria-label": "Filters that are on" });
      this.filters = el("div", { class: "sheet" });
      this.chooser = el("div", { class: "sheet" });
      const formats = { csv: "CSV", json: "JSON", md: "Markdown", tex: "LaTeX" };
      const buttons = Object.entries(formats).map(([format, title]) => el("button", { type: "button", click: () => download.save(this.taken(), this.board.data.file, format) }, title));
      const panel = (title, sheet) => el("details", { class: "panel" }, el("summary", {}, title), sheet);
      this.tools.append(
        el("label", { class: "search", for: "filter" }, el("span", { class: "sr" }, "Filter by name"), this.field),
        panel("Filters", this.filters),
        panel("Columns", this.chooser),
        panel("Download", el("div", { class: "sheet narrow" }, el("p", {}, "What the table shows now, all its pages."), el("div", { class: "buttons" }, ...buttons))),
        el("label", { class: "toggle" }, this.shading, "Shade by score"),
        this.compare,
      );
      this.field.placeholder = "Filter by name";
      this.tools.after(this.chips);
      this.tools.hidden = false;
      document.addEventListener("keydown", ({ key }) => {
        const open = key === "Escape" && this.tools.querySelector("details[open]");
        if (!open) return;
        open.open = false;
        open.querySelector("summary").focus();
      });
      document.addEventListener("click", ({ target }) => {
        for (const open of this.tools.querySelectorAll("details[open]")) if (!open.contains(target)) open.open = false;
      });
    }

    group(title, values, set, changed) {
      const boxes = values.map(([value, text]) => {
        const box = el("input", {
          type: "checkbox",
          change: () => {
            if (box.checked) set.add(value);
            else set.delete(value);
            changed();
          },
        });
        box.checked = set.has(value);
        return el("label", {}, box, el("span", {}, text));
      });
      return el("fieldset", {}, el("legend", {}, title), el("div", { class: "options" }, ...boxes));
    }

    /** The controls as the view has them. */
    fill() {
      const { board } = this;
      this.field.value = this.query;
      this.shading.checked = this.shaded;
      const facets = FACETS.map(([key, title, of]) => {
        const values = [...new Set(board.rows.map((row) => of(row.system)))].sort(collator.compare);
        if (key === "size") values.sort((a, b) => SIZES.findIndex(([name]) => name === a) - SIZES.findIndex(([name]) => name === b));
        return values.length > 1 && this.group(title, values.map((value) => [value, value]), this.facets.get(key), () => this.grid.draw());
      });
      const { languages } = board.data;
      const scripts = [...new Set(languages.map(([, , script]) => script))].filter(Boolean).sort(collator.compare);
      const changed = () => this.languagesChanged();
      this.filters.replaceChildren(
        ...facets.filter(Boolean),
        ...(languages.length > 1 ? [this.group("Language", languages.map(([code, name]) => [code, `${name} (${code})`]), this.languages, changed)] : []),
        ...(scripts.length > 1 ? [this.group("Script", scripts.map((script) => [script, script]), this.scripts, changed)] : []),
      );
      if (!this.filters.childElementCount) this.filters.append(el("p", {}, "All systems here are alike in method, backbone and size."));
      const set = new Set(this.shown);
      const chosen = () => {
        this.shown = board.columns.flatMap((_, at) => (set.has(at) ? [at] : []));
        this.columnsChanged();
        this.grid.draw("page");
      };
      const names = [...new Set(board.columns.map((column) => column.group))];
      this.chooser.replaceChildren(
        ...names.map((name) => this.group(name, board.columns.flatMap((column, at) => (column.group === name ? [[at, [column.title, column.small].filter(Boolean).join(", ")]] : [])), set, chosen)),
      );
    }

    /** The rows and columns on show, for a download. */
    taken() {
      const { board } = this;
      const short = (value) => (value === null || Number.isNaN(value) ? null : Number(value.toFixed(2)));
      const labels = ["method", "backbone", "prompt", "origin"];
      const columns = [
        ...labels.map((name) => ({ name, number: false })),
        ...this.visible.map((at) => ({ name: [board.columns[at].title, board.columns[at].small].filter(Boolean).join(", "), number: true, interval: board.columns[at].type === "score" })),
      ];
      const sign = (bits) => this.everything.flags.filter(([bit, mark]) => bits & bit && mark !== "”").map(([, mark]) => mark).join("");
      const written = (row) => (at) => {
        const cell = board.cell(row, at);
        if (!cell) return { text: "–", value: null, low: null, high: null };
        if (board.columns[at].type !== "score") return { text: cell[1], value: board.columns[at].type === "rank" ? cell[1] : cell[0] };
        const text = points(cell.score) + (cell.low === null ? "" : ` (${range(cell.low, cell.high)})`) + sign(cell.flags);
        return { text, value: short(cell.score), low: short(cell.low), high: short(cell.high), signs: sign(cell.flags) };
      };
      const rows = this.grid.rows({ search: "applied", order: "applied" }).data().toArray();
      return { title: document.title, columns, rows: rows.map((row) => [...labels.map((name) => ({ text: row.system[name], value: row.system[name] })), ...this.visible.map(written(row))]) };
    }

    /** Put the view into the address, and show which filters are on. */
    remember() {
      const [order] = this.grid.order();
      const join = (set) => [...set].map(encodeURIComponent).join(",");
      const sorted = order?.[1] ? `${order[0] ? this.board.columns[order[0] - 1].key : "name"} ${order[1]}` : "";
      const page = this.grid.page();
      this.written = view.write([
        ["q", this.query.trim()],
        ["sort", sorted],
        ...FACETS.map(([key]) => [key, join(this.facets.get(key))]),
        ["lang", join(this.languages)],
        ["script", join(this.scripts)],
        ["cols", same(this.shown, this.usual) ? "" : join(this.shown.map((at) => this.board.columns[at].key))],
        ["shade", this.shaded ? "1" : ""],
        ["page", page ? String(page + 1) : ""],
        ["pick", join(this.picked)],
      ]);
      const redraw = () => this.grid.draw();
      const groups = [...FACETS.map(([key, title]) => [title, this.facets.get(key), redraw]), ["Language", this.languages, () => this.languagesChanged()], ["Script", this.scripts, () => this.languagesChanged()]];
      const chip = (title, value, set, changed) => {
        const away = () => {
          set.delete(value);
          this.fill();
          changed();
        };
        return el("li", {}, el("button", { type: "button", "aria-label": `Take away: ${title} ${value}`, click: away }, `${title}: ${value}`, el("span", { "aria-hidden": "true" }, "×")));
      };
      this.chips.replaceChildren(...groups.flatMap(([title, set, changed]) => [...set].map((value) => chip(title, value, set, changed))));
      const [a, b] = [...this.picked];
      this.compare.hidden = !a;
      this.compare.textContent = b ? "Compare the two" : "Choose one more to compare";
      if (b) this.compare.href = `${root}compare.html#${new URLSearchParams({ a, b })}`;
      else this.compare.removeAttribute("href");
      say(`${this.grid.page.info().recordsDisplay} rows`);
    }
  }

  /** The pages of each table are a landmark of its own. */
  function named(table) {
    const caption = table.caption.textContent.trim();
    table.closest(".dt-container").querySelector("nav")?.setAttribute("aria-label", `Pages: ${caption}`);
  }

  async function start(table) {
    const [data, everything] = await Promise.all([load(table.dataset.table), load("systems")]);
    for (const cell of table.querySelectorAll("thead [hidden], tfoot [hidden]")) {
      cell.setAttribute("data-optional", "");
      cell.hidden = false;
    }
    const grid = new Grid(table, new Board(data, everything), everything);
    grid.fill();
  }

  for (const table of document.querySelectorAll("table[data-table]")) start(table);
  for (const table of document.querySelectorAll("table[data-plain]")) {
    const long = table.tBodies[0].rows.length > ROWS;
    new DataTable(table, { autoWidth: false, order: [], orderMulti: false, pageLength: ROWS, paging: long, layout: { ...LAYOUT, topStart: long ? { search: { text: "Filter", placeholder: "" } } : null, bottomStart: long ? "info" : null, bottomEnd: long ? LAYOUT.bottomEnd : null }, language: LANGUAGE });
    named(table);
    table.dataset.ready = "true";
  }
})();
