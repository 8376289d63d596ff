"use strict";
// Finds suites, tasks, languages and runs by what a reader types; what there is comes with the first letter.

(() => {
  const { load, el, root, say } = polyprompt;
  const field = document.getElementById("search");
  const list = document.getElementById("found");
  const MOST = 12;

  async function find() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) {
      list.replaceChildren();
      say("");
      return;
    }
    const all = await load("search");
    const found = all.filter(([what, name, more]) => words.every((word) => `${what} ${name} ${more}`.toLowerCase().includes(word)));
    list.replaceChildren(...found.slice(0, MOST).map(([what, name, , page]) => el("li", {}, el("a", { href: root + page }, name), " ", el("small", {}, what))));
    if (!found.length) list.replaceChildren(el("li", {}, "Nothing of that name. Systems are found by the filter of each table."));
    else if (found.length > MOST) list.append(el("li", {}, `and ${found.length - MOST} more`));
    say(`${found.length} found`);
  }

  field.closest("[hidden]").hidden = false;
  field.addEventListener("input", find);
  if (field.value) find(); // kept by the browser over a reload
})();
