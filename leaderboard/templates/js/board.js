"use strict";
// The rows and columns of a table, as its data file has them, and what a cell says when some languages are chosen.

class Board {
  /** data: of the table; systems, flags: of data/systems.js. */
  constructor(data, { systems, flags }) {
    const rank = { key: "rank", title: "Rank", full: "rank", type: "rank", group: "Rank", ascending: true };
    const scores = data.columns.map((column, at) => ({ ...column, type: "score", group: "Scores", main: at === 0, ascending: column.kind === "gap" }));
    const costs = data.costs.map((column) => ({ ...column, type: "cost", group: "Cost", ascending: true }));
    Object.assign(this, { data, flags, columns: [rank, ...scores, ...costs] });
    this.rows = data.rows.map((place, number) => ({ number, place, system: systems[place] }));
    this.flagged = Board.sparse(data.flags);
    this.parts = Board.sparse(data.parts);
    this.best = Board.sparse(data.best);
    this.chosen = null; // languages that are chosen; null: all
    this.others = new Map(); // name of a task's data -> its board
  }

  static sparse(triples) {
    return new Map(triples.map(([row, column, value]) => [`${row},${column}`, value]));
  }

  /** Choose languages: a set of codes, or null for all. Tables of tasks whose languages are not here are loaded. */
  async choose(languages, load, everything) {
    if (languages) {
      const names = new Set(this.columns.map((column) => column.over).filter((over) => over && !["row", "none"].includes(over)));
      for (const name of names) {
        if (!this.others.has(name)) this.others.set(name, new Board(await load(name), everything));
      }
    }
    this.chosen = languages;
  }

  /** Column numbers of the chosen languages. */
  within() {
    return this.columns.flatMap((column, at) => (column.language && this.chosen.has(column.language) ? [at] : []));
  }

  rank({ number }) {
    const [low, high] = this.data.rank[number][0] ?? [0, 0];
    if (!low || this.chosen) return null;
    return [low, low === high ? String(low) : `${low}–${high}`, `group ${this.data.group[number][0]}`];
  }

  /** The figure of a row in a column of scores, over the chosen languages. */
  figure(row, at) {
    const column = this.columns[at];
    if (this.chosen && column.over) return this.over(row, at, column);
    const [line, place] = [row.number, at - 1];
    const score = this.data.score[line][place];
    if (Number.isNaN(score)) return null;
    const here = `${line},${place}`;
    const [low, high] = this.data.rank[line][place] ?? [0, 0];
    const examples = (this.data.examples.length === 1 ? this.data.examples[0] : this.data.examples[line])[place];
    const run = row.system.runs[0];
    const detail = [column.full, low ? `rank ${low}–${high}, group ${this.data.group[line][place]}` : "not ranked", examples ? `${examples} examples` : ""];
    const known = !Number.isNaN(this.data.low[line][place]);
    return {
      score,
      low: known ? this.data.low[line][place] : null,
      high: known ? this.data.high[line][place] : null,
      chance: column.chance,
      flags: this.flagged.get(here) ?? 0,
      parts: this.parts.get(here) ?? 0,
      best: this.best.has(here),
      link: run ? `runs/${run[0]}/index.html${column.anchor ? `#${column.anchor}` : ""}` : "",
      detail: detail.filter(Boolean).join(", "),
    };
  }

  /** The mean over the chosen languages; null where the row lacks one: missing is never averaged away. */
  over(row, at, column) {
    if (column.over === "none") return null;
    const board = column.over === "row" ? this : this.others.get(column.over);
    if (board !== this) board.chosen = this.chosen;
    const line = board === this ? row : board.rows.find((other) => other.place === row.place);
    const found = line ? board.within().map((number) => board.figure(line, number)) : [];
    if (!found.length || found.some((figure) => !figure)) return null;
    const mean = (of) => found.reduce((sum, figure) => sum + of(figure), 0) / found.length;
    return {
      score: mean((figure) => figure.score),
      low: null,
      high: null,
      chance: found.every((figure) => figure.chance !== null) ? mean((figure) => figure.chance) : null,
      flags: found.reduce((bits, figure) => bits | figure.flags, 0),
      parts: 0,
      best: false,
      link: found[0].link,
      detail: `${column.full}: mean of the chosen languages that it has, ${found.length}`,
    };
  }

  /** What a row has in any column: a figure, [value, text, small print], or null. */
  cell(row, at) {
    const column = this.columns[at];
    if (column.type === "score") return this.figure(row, at);
    return column.type === "rank" ? this.rank(row) : (row.system.costs[column.key] ?? null);
  }

  /** The number that a cell sorts by; NaN: there is none. */
  value(row, at) {
    const cell = this.cell(row, at);
    if (!cell) return NaN;
    return this.columns[at].type === "score" ? cell.score : cell[0];
  }
}
