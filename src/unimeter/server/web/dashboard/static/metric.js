// A metric's definition in words and as cards: shared by the views that show one.

import { h } from "./dom.js";
import { integer, words } from "./format.js";
import { table } from "./table.js";

const AMBIGUOUS = /\.(json|csv)$/;

export const metricPath = (code) =>
  `/ui/metrics/${encodeURIComponent(code)}${AMBIGUOUS.test(code) ? "?page=1" : ""}`;

export function periodWords(metric) {
  const zone = metric.zone && metric.zone !== "UTC" ? `, ${metric.zone}` : "";
  if (metric.period === "month") {
    return `calendar month${metric.cycle_day > 1 ? ` from day ${metric.cycle_day}` : ""}${zone}`;
  }
  if (metric.period === "lifetime") return "one that never ends";
  return /^[0-9]/.test(metric.period) ? `every ${metric.period}` : `${metric.period}${zone}`;
}

export function definition(metric) {
  const pair = (name, value) => [h("dt", null, name), h("dd", null, value)];
  return h("dl", { class: "pairs" },
    pair("Aggregation", words(metric.type)),
    pair("Billing period", periodWords(metric)),
    pair("Kept by", metric.resolution),
    metric.recurring && pair("Recurring", "members stay from one period to the next"),
    pair("Dimensions", metric.dimensions.length === 0 ? "none" : metric.dimensions.map((one, at) => [
      at > 0 && ", ", h("span", { class: "code" }, one.key), one.values.length > 0 && ` (${one.values.join(", ")})`])));
}

export function thresholds(metric) {
  if (metric.thresholds.length === 0) return h("p", { class: "hint" }, "No thresholds: this metric never alerts.");
  return table(`Thresholds of ${metric.code}`, [
    { label: "Threshold", kind: "code", of: (one) => one.code },
    { label: "Fires", of: (one) => (one.when === "at-or-below" ? "at or below" : "at or above") },
    { label: "Value", kind: "number", of: (one) => integer(one.value) },
    { label: "How often", of: (one) => (one.again ? "each time it is crossed" : "once a period") },
  ], metric.thresholds);
}
