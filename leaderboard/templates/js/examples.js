"use strict";
// Predictions of two systems side by side. A file of predictions: { ids, gold, value, right, sure, text? }, a row a place.

(() => {
  const { load, el, points, view, say } = polyprompt;
  const at = (id) => document.getElementById(id);
  const ROWS = 100;
  const CONTROLS = { a: "first", b: "second", lang: "language", show: "kind", q: "words" };
  const form = at("examples");
  const base = form.dataset.examples;
  let limit = ROWS;
  let turn = 0;

  async function start() {
    const [{ files, languages, texts, cut }, { systems }] = await Promise.all([load(base), load("systems")]);
    const known = systems.filter((system) => Object.hasOwn(files, system.key));
    const option = (value, text) => el("option", { value }, text);
    for (const id of ["first", "second"]) at(id).append(...known.map((system) => option(system.key, cells.name(system))));
    at("language").append(...languages.map(([code, name]) => option(code, name)));
    const asked = view.read();
    at("second").selectedIndex = Math.min(1, known.length - 1);
    for (const [key, id] of Object.entries(CONTROLS)) {
      const usual = at(id).value;
      if (asked.has(key)) at(id).value = asked.get(key);
      if (at(id).tagName === "SELECT" && at(id).selectedIndex < 0) at(id).value = usual;
      at(id).addEventListener("input", () => {
        limit = ROWS;
        show();
      });
    }
    at("more").addEventListener("click", () => {
      limit += ROWS;
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    const show = () => draw({ files, texts, cut });
    await show();
  }

  const written = (value) => (Array.isArray(value) ? value.join(" ") : value === null ? "–" : value === "" ? "(none)" : String(value));

  function said(file, place) {
    if (place === undefined) return el("td", {}, "–");
    const sure = file.sure[place];
    return el("td", {}, el("span", { class: file.right[place] ? "right" : "wrong" }, file.value ? written(file.value[place]) : "(not shown)"), sure === null ? null : el("small", { class: "range" }, `${points(100 * sure, 0)} % sure`));
  }

  async function draw({ files, texts, cut }) {
    const mine = ++turn;
    const asked = Object.fromEntries(Object.entries(CONTROLS).map(([key, id]) => [key, at(id).value]));
    view.write(Object.entries(asked));
    const names = [asked.a, asked.b].map((key) => files[key]?.[asked.lang]);
    const missing = names.some((name) => !name);
    at("nothing").hidden = !missing;
    at("result").hidden = missing;
    if (missing) {
      at("nothing").textContent = "One of the two has no predictions in this language here. Choose another language or system.";
      return;
    }
    const [first, second, text] = await Promise.all([...names.map((name) => load(name)), texts[asked.lang] ? load(texts[asked.lang]) : null]);
    if (mine !== turn) return;
    const places = new Map(second.ids.map((id, place) => [id, place]));
    const words = asked.q.toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = {
      "": () => true,
      differ: (a, b) => a !== b,
      first: (a, b) => a && !b,
      second: (a, b) => b && !a,
      wrong: (a, b) => !a && !b,
      right: (a, b) => a && b,
    };
    const rows = first.ids.map((id, place) => ({ id, place, other: places.get(id) })).filter(({ other }) => other !== undefined);
    const chosen = rows.filter(({ id, place, other }) => {
      if (!kinds[asked.show](first.right[place], second.right[other])) return false;
      const all = [id, text?.[id], first.gold?.[place], first.value?.[place], second.value?.[other]].flat().join(" ").toLowerCase();
      return words.every((word) => all.includes(word));
    });
    const counts = [chosen.length, rows.length].map((number) => number.toLocaleString("en"));
    at("count").textContent = `${counts[0]} of ${counts[1]} examples${cut ? `, of which the first ${cut.toLocaleString("en")} of a file are here` : ""}. ✓ right, ✗ wrong.`;
    at("rows").replaceChildren(
      el("caption", {}, el("span", {}, `First: ${at("first").selectedOptions[0].textContent}. Second: ${at("second").selectedOptions[0].textContent}.`)),
      el("thead", {}, el("tr", {}, ...["Example", text && "Text", "Right answer", "First", "Second"].filter(Boolean).map((name, number) => el("th", { scope: "col", class: number ? null : "label" }, name)))),
      el(
        "tbody",
        {},
        ...chosen.slice(0, limit).map(({ id, place, other }) =>
          el("tr", { class: "example" }, el("th", { scope: "row", class: "label" }, id), text && el("td", { class: "text" }, text[id] ?? "–"), el("td", {}, first.gold ? written(first.gold[place]) : "(not shown)"), said(first, place), said(second, other)),
        ),
      ),
    );
    at("more").hidden = chosen.length <= limit;
    at("rows").dataset.ready = `${asked.a} ${asked.b} ${asked.lang}`;
    say(at("count").textContent);
  }

  start();
})();
