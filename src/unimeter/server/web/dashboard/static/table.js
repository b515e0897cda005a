// Tables that fold into cards on a phone. A column: {name, label, of(row), kind}; kind "number"
// is set in figures and to the right, "code" in a fixed pitch.

import { h } from "./dom.js";

export function table(label, columns, rows, keyOf) {
  return h("div", { class: "table", role: "region", "aria-label": label, tabindex: "0" },
    h("table", null,
      h("thead", null, h("tr", null, columns.map((column) =>
        h("th", { scope: "col", class: column.kind === "number" ? "number" : null }, column.label)))),
      h("tbody", null, rows.map((row) => line(columns, row, keyOf)))));
}

export function line(columns, row, keyOf) {
  const key = keyOf ? keyOf(row) : null;
  return h("tr", { "data-key": key }, columns.map((column) =>
    h("td", { class: column.kind, "data-label": column.label }, h("span", { class: "cell" }, column.of(row) ?? "—"))));
}

export function time(textOf, value) {
  return value ? h("time", { datetime: value, title: value }, textOf(value)) : "—";
}
