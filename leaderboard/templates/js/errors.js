"use strict";
// The errors of whichever system is chosen; the page itself holds those of the first one.

(() => {
  const { load, el } = polyprompt;
  const place = document.querySelector("[data-errors]");
  if (!place) return;
  const bar = place.closest("section").querySelector(".tools");

  function table({ kind, labels, counts }) {
    const heads = kind === "confusion" ? ["Right answer", ...labels] : kind === "types" ? ["Type", "Right", "Given", "In the data"] : ["Outcome", "Answers"];
    const captions = { confusion: "How often each label was given (columns) where another was right (rows); counts.", types: "Chunks by type; counts." };
    const cell = (number, row, column) => el("td", { class: kind === "confusion" && row === column ? "cost hit" : "cost" }, number.toLocaleString("en"));
    return el(
      "table",
      { class: "counts" },
      el("caption", {}, el("span", {}, captions[kind] ?? "Answers by outcome; counts.")),
      el("thead", {}, el("tr", {}, ...heads.map((text, at) => el("th", { scope: "col", class: at ? "cost" : "label" }, text)))),
      el("tbody", {}, ...counts.map((numbers, row) => el("tr", {}, el("th", { scope: "row", class: "label" }, labels[row]), ...numbers.map((number, column) => cell(number, row, column))))),
    );
  }

  async function start() {
    const [errors, { systems }] = await Promise.all([load(place.dataset.errors), load("systems")]);
    const known = systems.filter((system) => Object.hasOwn(errors, system.key));
    if (known.length < 2) return;
    const show = () => {
      const scroll = place.querySelector(".scroll");
      place.querySelector(".note").textContent = "Its run with the lowest seed, all languages together.";
      scroll.replaceChildren(table(errors[choice.value]));
    };
    const choice = el("select", { change: show }, ...known.map((system) => el("option", { value: system.key }, [system.method, system.backbone, system.prompt].filter(Boolean).join(" · "))));
    choice.value = place.dataset.first;
    bar.append(el("label", {}, "System ", choice));
    bar.hidden = false;
  }

  start();
})();
