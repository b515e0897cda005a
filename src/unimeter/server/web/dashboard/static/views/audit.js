// Who changed what: the administration's trail, from the log.

import { fill, h } from "../dom.js";
import { integer, moment } from "../format.js";
import { empty, head, main, show, twins } from "../page.js";
import { table, time } from "../table.js";

const COLUMNS = [
  { label: "When", kind: "when", of: (row) => time(moment, row.time) },
  { label: "Who", of: (row) => [row.name || row.key || "unknown", row.key && row.name && h("div", { class: "tags code" }, row.key)] },
  { label: "From", of: (row) => [row.address || "—", row.via && h("div", { class: "tags" }, row.via)] },
  { label: "What", of: (row) => h("span", { class: "code" }, row.action) },
  { label: "On", of: (row) => h("span", { class: "code" }, row.target || "—") },
  { label: "Result", of: (row) => h("span", { class: `badge ${row.result === "done" ? "good" : "bad"}` }, row.result) },
  { label: "Entry", kind: "number", of: (row) => integer(row.index) },
];

show((found) => {
  fill(main,
    head("Audit trail", "Every change of metrics, keys and webhooks, with who asked for it."),
    found.rows.length
      ? table("Audit trail", COLUMNS, found.rows)
      : empty("Nothing was changed yet", "Creating a metric, a key or a webhook leaves a line here."),
    found.cursor && h("p", { class: "tools more" }, h("a", { class: "button", href: `?before=${encodeURIComponent(found.cursor)}` }, "Older")),
    twins());
});
