"use strict";
// How a system and its numbers look in a table. The pages hold the same for readers without scripts, drawn by
// templates/parts.html; the tests in a browser compare the two.

const cells = (() => {
  const { el, points, range, root } = polyprompt;
  const NS = "http://www.w3.org/2000/svg";
  const within = (number) => Math.min(Math.max(number, 0), 100);
  const round = (number) => String(Number(number.toFixed(1)));

  function part(kind, x, y, width, height) {
    const made = document.createElementNS(NS, "rect");
    for (const [key, value] of Object.entries({ class: kind, x, y, width, height })) made.setAttribute(key, value);
    return made;
  }

  /** A strip from 0 to 100: a tick at chance, filled from there to the score, a line for the interval. */
  function strip(score, low, high, chance) {
    const svg = document.createElementNS(NS, "svg");
    const attributes = { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" };
    for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
    const [from, to] = [Math.min(score, chance), Math.max(score, chance)].map(within);
    svg.append(part("track", 0, "4.5", 100, 1), part(score >= chance ? "gain" : "loss", round(from), 2, round(to - from), 6));
    if (low !== null) svg.append(part("interval", round(within(low)), "4.4", round(within(high) - within(low)), "1.2"));
    svg.append(part("tick", round(within(chance - 0.6)), 0, "1.2", 10));
    return svg;
  }

  function missing(text) {
    return el("span", { class: "missing" }, el("span", { "aria-hidden": "true" }, "–"), el("span", { class: "sr" }, text));
  }

  function signs(bits, flags) {
    const on = flags.filter(([bit, sign]) => bits & bit && sign !== "”");
    return on.length ? el("span", { class: "signs" }, ...on.map(([, sign, meaning]) => el("abbr", { title: meaning }, sign))) : null;
  }

  /** A figure: { score, low, high, flags, parts, best, link, detail } or null. */
  function figure(cell, column, flags) {
    if (!cell) return missing("not scored");
    const text = points(cell.score);
    const star = "best of the ranked scores in this column, to the digit shown";
    return el(
      "div",
      { class: cell.best ? "figure best" : "figure" },
      el(
        "span",
        { class: "number" },
        cell.best && el("abbr", { class: "star", title: star }, "★"),
        cell.link ? el("a", { href: root + cell.link, title: cell.detail }, text) : el("span", { title: cell.detail }, text),
        signs(cell.flags, flags),
      ),
      cell.parts && el("small", { class: "range" }, `${cell.parts} of ${column.parts}`),
      cell.low !== null && el("small", { class: "range" }, range(cell.low, cell.high)),
      column.kind !== "gap" && cell.chance !== null && strip(cell.score, cell.low, cell.high, cell.chance),
    );
  }

  /** A number with small print: [value, text, small] or null. */
  function amount(cell, absent = "not known") {
    if (!cell) return missing(absent);
    return el("div", { class: "figure" }, el("span", { class: "number" }, cell[1]), cell[2] && el("small", { class: "range" }, cell[2]));
  }

  /** What heads the rows of a system. */
  function heading(system) {
    const page = system.runs.length ? `${root}runs/${system.runs[0][0]}/index.html` : null;
    const seeds = system.runs.flatMap(([id, seed]) => [" ", el("a", { href: `${root}runs/${id}/index.html`, title: `run ${id}` }, String(seed))]);
    return el(
      "div",
      { class: "system" },
      el("span", { class: "method" }, page ? el("a", { href: page }, system.method) : system.method),
      " ",
      el("span", { class: "backbone" }, system.backbone),
      system.prompt && el("span", { class: "prompt" }, system.prompt),
      system.note && el("span", { class: "note" }, system.note),
      system.runs.length > 1 && el("span", { class: "seeds" }, `${system.runs.length} seeds:`, ...seeds),
    );
  }

  /** The name of a system in one line. */
  function name(system) {
    return [system.method, system.backbone, system.prompt, system.note].filter(Boolean).join(" · ");
  }

  return { figure, amount, heading, name };
})();
