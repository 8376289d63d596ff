"use strict";
// Light, dark, or as the system has it. The choice is kept where the browser lets a page keep something.

(() => {
  const key = "polyprompt-theme";
  const choices = ["system", "light", "dark"];
  const page = document.documentElement;

  function kept() {
    try {
      const value = localStorage.getItem(key);
      return choices.includes(value) ? value : "system";
    } catch {
      return "system";
    }
  }

  function keep(value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // a page from disk may have no storage: then the choice lasts until the next page
    }
  }

  function apply(value) {
    if (value === "system") delete page.dataset.theme;
    else page.dataset.theme = value;
  }

  apply(kept());
  document.addEventListener("DOMContentLoaded", () => {
    const field = document.getElementById("theme");
    field.value = kept();
    field.closest("[hidden]").hidden = false;
    field.addEventListener("change", () => {
      apply(field.value);
      keep(field.value);
    });
  });
})();
