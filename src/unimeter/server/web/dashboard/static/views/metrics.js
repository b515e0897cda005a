// The catalog: what is metered, and how.

import { fill, h } from "../dom.js";
import { integer, words } from "../format.js";
import { empty, head, main, show, twins } from "../page.js";
import { table } from "../table.js";
import { metricPath, periodWords } from "../metric.js";

const COLUMNS = [
  { label: "Metric", kind: "code", of: (row) => h("a", { href: metricPath(row.code) }, row.code) },
  { label: "Aggregation", of: (row) => words(row.type) },
  { label: "Period", of: (row) => periodWords(row) },
  { label: "Dimensions", of: (row) => row.dimensions.map((one) => one.key).join(", ") || "—" },
  { label: "Thresholds", of: (row) => row.thresholds.map((one) =>
    `${one.code} ${one.when === "at-or-below" ? "≤" : "≥"} ${integer(one.value)}`).join(", ") || "—" },
];

show((found) => {
  fill(main,
    head("Metrics", "What is metered, and how events become a total.",
      h("a", { class: "button main", href: "/ui/new-metric" }, "New metric")),
    found.rows.length
      ? table("Metrics", COLUMNS, found.rows)
      : empty("No metrics yet", "A metric says how events become a total: count them, sum their values, or count who is there.",
        h("a", { class: "button main", href: "/ui/new-metric" }, "Create the first one")),
    twins());
});
