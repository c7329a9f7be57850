"use strict";
// Sorts tables by their columns, opens and closes diffs together, and shows some of the trials.
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
      rows.sort(([a], [b]) => order(a, b, up));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
function key(cell) {
  const value = cell.dataset.value;
  return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
}
// what is unknown stays last, either way
function order(a, b, up) {
  if (a === null || b === null) return (a === null) - (b === null);
  const found = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  return up ? found : -found;
}
for (const button of document.querySelectorAll("button[data-open]")) {
  button.addEventListener("click", () => {
    const all = [...button.closest(".inside").querySelectorAll(".lineage details")];
    const open = all.some((one) => !one.open);
    all.forEach((one) => { one.open = open; });
  });
}
for (const button of document.querySelectorAll("button[data-show]")) {
  button.addEventListener("click", () => {
    for (const other of button.parentNode.querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    button.closest(".inside").querySelector(".trials").className = `trials ${button.dataset.show}`;
  });
}
