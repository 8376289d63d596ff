"use strict";
// Two systems side by side: what separates them, task by task and language by language.

(() => {
  const { load, el, points, range, view, say } = polyprompt;
  const at = (id) => document.getElementById(id);
  const ALPHA = 0.05;

  async function start() {
    const [keys, { systems }] = await Promise.all([load("keys"), load("systems")]);
    const known = systems.filter((system) => system.replicates);
    if (known.length < 2) {
      at("nothing").hidden = false;
      at("nothing").textContent = "Two systems with stored predictions are needed, and the board has fewer.";
      return;
    }
    const named = (system) => [system.key, cells.name(system)];
    const options = known.map(named).sort(([, a], [, b]) => a.localeCompare(b, "en", { numeric: true }));
    for (const id of ["first", "second"]) at(id).append(...options.map(([key, name]) => el("option", { value: key }, name)));
    const suites = [...new Set(keys.map((key) => key.suite))];
    at("suite").append(el("option", { value: "" }, "All"), ...suites.map((suite) => el("option", { value: suite }, suite)));
    const asked = view.read();
    at("first").value = asked.get("a") ?? options[0][0];
    at("second").value = asked.get("b") ?? options[1][0];
    at("suite").value = asked.get("suite") ?? "";
    for (const id of ["first", "second"]) if (at(id).selectedIndex < 0) at(id).selectedIndex = id === "first" ? 0 : 1;
    if (at("suite").selectedIndex < 0) at("suite").selectedIndex = 0;
    const show = () => draw(keys, new Map(systems.map((system) => [system.key, system])));
    for (const id of ["first", "second", "suite"]) at(id).addEventListener("change", show);
    at("swap").addEventListener("click", () => {
      [at("first").value, at("second").value] = [at("second").value, at("first").value];
      show();
    });
    document.querySelector(".pair").hidden = false;
    document.querySelector(".pair").addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", () => {
      const again = view.read();
      if (!again.has("a") || (again.get("a") === at("first").value && again.get("b") === at("second").value)) return;
      at("first").value = again.get("a");
      at("second").value = again.get("b");
      show();
    });
    const formats = { csv: "CSV", json: "JSON", md: "Markdown", tex: "LaTeX" };
    const buttons = Object.entries(formats).map(([format, title]) => el("button", { type: "button", click: () => download.save(table, "comparison", format) }, title));
    document.querySelector("#result .tools").append(el("details", { class: "panel" }, el("summary", {}, "Download"), el("div", { class: "sheet narrow" }, el("div", { class: "buttons" }, ...buttons))));
    await show();
  }

  let table;
  let turn = 0;

  async function draw(keys, systems) {
    const [a, b, suite] = ["first", "second", "suite"].map((id) => at(id).value);
    const mine = ++turn;
    view.write([["a", a], ["b", b], ["suite", suite]]);
    at("result").hidden = true;
    at("nothing").hidden = true;
    if (a === b) return empty("Choose two different systems.");
    const [left, right] = await Promise.all([load(`replicates/${a}`), load(`replicates/${b}`)]);
    if (mine !== turn) return undefined; // another choice was made meanwhile
    const found = keys.flatMap((key, place) => {
      const result = suite && key.suite !== suite ? null : statistics.compare(left, right, place);
      return result ? [{ ...key, ...result, a: left.score[place], b: right.score[place] }] : [];
    });
    if (!found.length) return empty("The two were scored on no task and language in common.");
    const tests = found.filter((one) => !one.summary);
    statistics.holm(tests.map((one) => one.p)).forEach((p, place) => Object.assign(tests[place], { adjusted: p }));
    for (const one of found) one.told = !one.summary && one.adjusted < ALPHA ? Math.sign(one.difference) : 0;
    const ahead = tests.filter((one) => one.told > 0).length;
    const behind = tests.filter((one) => one.told < 0).length;
    const names = [a, b].map((key) => cells.name(systems.get(key)));
    at("verdict").textContent = `Of ${tests.length} comparisons the first is better in ${ahead}, the second in ${behind}; ${tests.length - ahead - behind} cannot be told apart.`;
    fill(found, names);
    at("result").hidden = false;
    at("pairs").dataset.ready = `${a} ${b}`;
    say(at("verdict").textContent);
    return undefined;
  }

  function empty(text) {
    at("verdict").textContent = "";
    at("nothing").textContent = text;
    at("nothing").hidden = false;
  }

  const chance = (p) => (p < 0.001 ? "< 0.001" : p.toFixed(3));
  const signed = (number) => (number > 0 ? "+" : "") + points(number);

  /** The interval of a difference around 0, on a scale that all rows share. */
  function strip(one, widest) {
    const NS = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(NS, "svg");
    const place = (number) => 50 + (50 * number) / widest;
    const part = (name, x, y, width, height) => {
      const made = document.createElementNS(NS, "rect");
      for (const [key, value] of Object.entries({ class: name, x, y, width, height })) made.setAttribute(key, value);
      return made;
    };
    for (const [key, value] of Object.entries({ class: "bar wide", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" })) svg.setAttribute(key, value);
    svg.append(part("track", 0, 4.5, 100, 1), part(one.difference >= 0 ? "gain" : "loss", Math.max(0, place(one.low)), 2.5, Math.min(100, place(one.high)) - Math.max(0, place(one.low)), 5), part("tick", 49.6, 0, 0.8, 10), part("interval", place(one.difference) - 0.5, 1, 1, 8));
    return svg;
  }

  function fill(found, names) {
    const widest = Math.max(...found.flatMap((one) => [Math.abs(one.low), Math.abs(one.high)])) || 1;
    const verdict = { 1: "▲ first", "-1": "▼ second", 0: "≈ not told" };
    const heads = [["label", "Compared in"], ["cost", "First"], ["cost", "Second"], ["cost", "Difference"], ["strip", "Interval"], ["cost", "Win"], ["cost", "p, Holm"], ["", "Better"]];
    const rows = found.map((one) =>
      el(
        "tr",
        { class: one.summary ? "summary" : null },
        el("th", { scope: "row", class: "label" }, one.title, el("span", { class: "prompt" }, one.suite)),
        el("td", { class: "cost" }, points(one.a)),
        el("td", { class: "cost" }, points(one.b)),
        el("td", { class: "cost" }, el("span", { class: "number" }, signed(one.difference)), el("small", {}, range(one.low, one.high))),
        el("td", { class: "strip" }, strip(one, widest)),
        el("td", { class: "cost" }, `${(100 * one.win).toFixed(0)} %`),
        el("td", { class: "cost" }, one.summary ? "summary" : chance(one.adjusted)),
        el("td", { class: one.told ? "told" : "untold" }, one.summary ? "" : verdict[one.told]),
      ),
    );
    at("pairs").replaceChildren(
      el("caption", {}, el("span", {}, `First: ${names[0]}. Second: ${names[1]}. Differences in points with 95 % intervals; win: probability that the first is better.`)),
      el("thead", {}, el("tr", {}, ...heads.map(([kind, text]) => el("th", { scope: "col", class: kind }, text)))),
      el("tbody", {}, ...rows),
    );
    table = {
      title: `${names[0]} and ${names[1]}`,
      columns: ["suite", "compared in", "first", "second", "difference", "win", "p, Holm"].map((name, place) => ({ name, number: place > 1, interval: name === "difference" })),
      rows: found.map((one) => [
        { text: one.suite, value: one.suite },
        { text: one.title, value: one.title },
        { text: points(one.a), value: one.a },
        { text: points(one.b), value: one.b },
        { text: `${signed(one.difference)} (${range(one.low, one.high)})`, value: one.difference, low: one.low, high: one.high },
        { text: `${(100 * one.win).toFixed(1)} %`, value: one.win },
        { text: one.summary ? "–" : chance(one.adjusted), value: one.summary ? null : one.adjusted },
      ]),
    };
  }

  start();
})();
