"use strict";
// What all scripts share: data files that load on demand, the state in the address, elements and numbers.
// A data file calls polyprompt.add(name, data): pages that are opened from disk may load scripts, but not fetch.

const polyprompt = (() => {
  const root = document.documentElement.dataset.root;
  const known = new Map(); // name -> { promise, resolve }

  function slot(name) {
    if (!known.has(name)) {
      const made = {};
      made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
      known.set(name, made);
    }
    return known.get(name);
  }

  function add(name, data) {
    slot(name).resolve(data);
  }

  /** The data of data/NAME.js; the file is asked for once. */
  function load(name) {
    const place = slot(name);
    if (!place.asked) {
      place.asked = true;
      const script = document.createElement("script");
      script.src = `${root}data/${name}.js`;
      script.addEventListener("error", () => place.reject(new Error(`${name} is not there`)));
      document.head.append(script);
    }
    return place.promise;
  }

  /** An element; text stays text. What is null, false or 0 is left out. */
  function el(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") made.addEventListener(name, value);
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter(Boolean));
    return made;
  }

  /** One decimal, ties to even as Python has it, with a real minus sign; a dash for what is not a number. */
  function points(number, digits = 1) {
    if (number === null || number === undefined || !Number.isFinite(number)) return "–";
    const tie = digits === 1 && Number.isInteger(number * 4) && number * 2 !== Math.round(number * 2);
    return (tie ? (2 * Math.round((number * 10) / 2)) / 10 : number).toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
  }

  function range(low, high) {
    return low < 0 ? `${points(low)} to ${points(high)}` : `${points(low)}–${points(high)}`;
  }

  function same(a, b) {
    return a.length === b.length && a.every((value, index) => value === b[index]);
  }

  /** The view of a page as the part of its address behind "#": name -> text. An anchor is no view. */
  const view = {
    read() {
      const text = location.hash.slice(1);
      return new Map(text.includes("=") ? new URLSearchParams(text) : []);
    },
    write(entries) {
      const asked = new URLSearchParams(entries.filter(([, value]) => value !== "" && value !== null)).toString();
      const here = location.hash.slice(1);
      if (asked !== here && (asked || here.includes("="))) history.replaceState(null, "", asked ? `#${asked}` : location.pathname);
      return asked;
    },
  };

  /** Says something to a reader who does not see the page. */
  function say(text) {
    document.getElementById("status").textContent = text;
  }

  return { root, add, load, el, points, range, same, view, say };
})();
