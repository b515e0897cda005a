// One metric: its definition, its thresholds, the accounts that use it most, its newest alerts.

import { fill, h } from "../dom.js";
import { integer, period } from "../format.js";
import { definition, thresholds } from "../metric.js";
import { empty, head, main, show, twins } from "../page.js";
import { accountLink, ALERTS } from "../rows.js";
import { table } from "../table.js";

function top(found) {
  const most = found.top.reduce((one, row) => Math.max(one, Math.abs(Number(row.value))), 0);
  return table(`Top accounts of ${found.metric.code}`, [
    { label: "Account", of: (row) => accountLink(row.account) },
    { label: "Events", kind: "number", of: (row) => integer(row.count) },
    { label: "Total", kind: "number", of: (row) => [integer(row.value), bar(row, most)] },
  ], found.top);
}

function bar(row, most) {
  const inner = h("span");
  inner.style.width = `${most ? (100 * Math.abs(Number(row.value))) / most : 0}%`;
  return h("span", { class: "share", "aria-hidden": "true" }, inner);
}

show((found) => {
  const metric = found.metric;
  document.title = `${metric.code} · Unimeter`;
  fill(main,
    head(metric.code, period(found.start, found.end) && `Current period: ${period(found.start, found.end)}`),
    h("div", { class: "grid wide" },
      h("section", { class: "card" }, h("header", null, h("h2", null, "Definition")), definition(metric)),
      h("section", { class: "card" }, h("header", null, h("h2", null, "Thresholds")), thresholds(metric))),
    h("section", { class: "card" },
      h("header", null, h("h2", null, "Top accounts"), h("p", null, "by total of the current period")),
      found.top.length ? top(found) : empty("No events in this period", "Accounts appear here with their first event.")),
    h("section", { class: "card" },
      h("header", null, h("h2", null, "Alerts"), h("a", { href: `/ui/alerts?metric=${encodeURIComponent(metric.code)}` }, "All of them")),
      found.alerts.length
        ? table("Alerts", ALERTS.filter((column) => column.label !== "Metric"), found.alerts)
        : h("p", { class: "hint" }, "No account has crossed a threshold of this metric.")),
    twins());
});
