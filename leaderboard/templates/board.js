"use strict";
// Sorting by a button in each column heading, and one text field that filters the rows of all tables.
// The page is complete without it: buttons and field only appear when this runs.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function valueOf(row, column, numeric) {
  const cell = row.cells[column];
  if (!numeric) return cell.textContent.trim();
  return cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
}

function sortBy(table, heading, numeric) {
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const direction = heading.getAttribute("aria-sort") === first ? second : first;
  for (const other of table.tHead.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", direction);

  const sign = direction === "ascending" ? 1 : -1;
  const keyed = Array.from(table.tBodies[0].rows, (row) => [valueOf(row, heading.cellIndex, numeric), row]);
  keyed.sort(([a], [b]) => {
    if (!numeric) return sign * collator.compare(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // not scored: last either way
    return sign * (a - b);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, heading, heading.dataset.sort === "number"));
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
  }
}

const field = document.getElementById("filter");
const rows = Array.from(document.querySelectorAll("table.sortable > tbody > tr"));
const texts = rows.map((row) =>
  Array.from(row.querySelectorAll("th, td:not([data-value])"), (cell) => cell.textContent).join(" ").toLowerCase(),
);

function filter() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  rows.forEach((row, index) => {
    row.hidden = !words.every((word) => texts[index].includes(word));
    shown += row.hidden ? 0 : 1;
  });
  field.closest("p").querySelector("[role=status]").textContent = words.length ? `${shown} of ${rows.length} rows` : "";
}

field.closest("p").hidden = false;
field.addEventListener("input", filter);
if (field.value) filter(); // kept by the browser over a reload
