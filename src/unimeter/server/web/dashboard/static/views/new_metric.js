// A new metric: define it, try it on events that are stored, then create it.

import { ask } from "../api.js";
import { fill, h } from "../dom.js";
import { integer, moment, plural, words } from "../format.js";
import { act, choose, entry, field, tick } from "../forms.js";
import { metricPath } from "../metric.js";
import { head, main, say, start } from "../page.js";
import { accountLink, ALERTS, outcomeBadge, tags } from "../rows.js";
import { table, time } from "../table.js";

const TYPES = [
  ["count", "Count events"], ["sum", "Sum of values"], ["max", "Largest value"], ["min", "Smallest value"],
  ["latest", "Latest value"], ["avg", "Average"], ["count-unique", "Count who is there (seats)"],
];
const PERIODS = [["month", "Calendar month"], ["week", "Week"], ["day", "Day"], ["hour", "Hour"], ["30d", "30 days"], ["lifetime", "Never ends (a balance)"]];
const STEPS = [["day", "Days"], ["hour", "Hours"], ["period", "Whole periods"]];

start();
const query = new URLSearchParams(location.search);
const code = entry("code", { required: true, maxlength: 64, value: query.get("code") || "", placeholder: "api_calls" });
const type = choose("type", TYPES, "count"), period = choose("period", PERIODS, "month");
const cycle = entry("cycle_day", { type: "number", min: 1, max: 28, value: "1" });
const zone = entry("zone", { value: "UTC" });
const resolution = choose("resolution", STEPS, "day");
const recurring = tick("recurring", "Members stay from one period to the next");
const dimensions = h("div"), thresholds = h("div");
const source = entry("source", { list: "codes", placeholder: "the same code" });
if (query.get("code")) source.value = query.get("code");
const codes = h("datalist", { id: "codes" });
const events = entry("events", { type: "number", min: 1, max: 50000, value: "10000" });
const said = h("div"), result = h("section", { "aria-label": "Dry run", tabindex: "-1" });
const tryIt = h("button", { type: "submit" }, "Dry run");
const create = h("button", { type: "button", class: "main", on: { click: made } }, "Create metric");

const form = h("form", { class: "card", on: { submit: tried } },
  h("div", { class: "fields" },
    field("Code", code, "What events name. It can't be changed later."),
    field("Aggregation", type), field("Billing period", period),
    field("Kept by", resolution, "What a series can show without reading events again."),
    field("First day of the month", cycle), field("Time zone", zone, "An IANA name, such as Europe/Berlin.")),
  h("p", { class: "hint" }, recurring),
  h("fieldset", null, h("legend", null, "Dimensions"), h("p", { class: "hint" }, "Properties of an event that totals are kept by."),
    dimensions, h("button", { type: "button", class: "small add", on: { click: () => addDimension(true) } }, "Add a dimension")),
  h("fieldset", null, h("legend", null, "Thresholds"), h("p", { class: "hint" }, "An alert, once a period or at each crossing. A sum with a threshold “at or below” is shown as a balance."),
    thresholds, h("button", { type: "button", class: "small add", on: { click: () => addThreshold(true) } }, "Add a threshold")),
  h("fieldset", null, h("legend", null, "Try it first"), h("p", { class: "hint" }, "The newest stored events are counted by the engine as this metric would; nothing is stored."),
    h("div", { class: "fields" }, field("Events of", source, "A metric’s code, or one that events were refused for."), field("How many, at most", events))),
  codes, said,
  h("div", { class: "buttons" }, tryIt, create));

fill(main, head("New metric", "How events become a total: define it, try it on what is stored, then create it."), form, result);
period.addEventListener("change", shape);
type.addEventListener("change", shape);
shape();
document.body.dataset.ready = "1";
ask("/ui/metrics.json").then((found) => fill(codes, found.rows.map((row) => h("option", { value: row.code }))), () => {});

function shape() {
  cycle.closest(".field").hidden = period.value !== "month";
  zone.closest(".field").hidden = !["month", "week", "day", "hour"].includes(period.value);
  recurring.parentElement.hidden = type.value !== "count-unique";
}

function remover(line, where) {
  return h("button", { type: "button", class: "small", on: { click: () => {
    line.remove();
    where.parentElement.querySelector(".add").focus();
  } } }, "Remove");
}

function addDimension(focus) {
  const key = entry("key", { maxlength: 32, placeholder: "model" });
  const line = h("div", { class: "line two" }, field("Key", key), field("Allowed values", entry("values", { placeholder: "any; or small, large" })));
  line.append(remover(line, dimensions));
  dimensions.append(line);
  if (focus) key.focus();
}

function addThreshold(focus) {
  const name = entry("threshold", { maxlength: 32, placeholder: "low" });
  const line = h("div", { class: "line" },
    field("Name", name), field("Value", entry("value", { inputmode: "numeric", pattern: "-?[0-9]{1,19}", placeholder: "1000" })),
    field("Fires", choose("when", [["at-or-above", "at or above"], ["at-or-below", "at or below"]], "at-or-above")),
    field("How often", choose("again", [["", "once a period"], ["1", "each time"]], "")));
  line.append(remover(line, thresholds));
  thresholds.append(line);
  if (focus) name.focus();
}

function definition() {
  const of = (line, name) => line.querySelector(`[name="${name}"]`).value.trim();
  return {
    code: code.value.trim(), type: type.value, period: period.value,
    cycle_day: period.value === "month" ? Number(cycle.value) || 1 : 1,
    zone: zone.closest(".field").hidden ? "UTC" : zone.value.trim() || "UTC",
    resolution: resolution.value,
    recurring: type.value === "count-unique" && recurring.querySelector("input").checked,
    dimensions: [...dimensions.children].filter((line) => of(line, "key")).map((line) => ({
      key: of(line, "key"), values: of(line, "values").split(",").map((value) => value.trim()).filter(Boolean) })),
    thresholds: [...thresholds.children].filter((line) => of(line, "threshold")).map((line) => ({
      code: of(line, "threshold"), value: of(line, "value"), when: of(line, "when"), again: of(line, "again") === "1" })),
  };
}

async function tried(event) {
  event.preventDefault();
  const body = { metric: definition(), source: source.value.trim(), events: Number(events.value) || 10000 };
  const found = await act(tryIt, said, () => ask("/v1/metrics/dry-run", { method: "POST", body }));
  if (!found) return;
  fill(result, shown(found));
  result.focus();
  say(`Dry run: ${plural(found.events, "event")}, ${plural(found.accounts, "account")}, ${plural(found.alert_count, "alert")}`);
}

async function made() {
  if (!form.reportValidity()) return;
  const found = await act(create, said, () => ask("/v1/metrics", { method: "POST", body: definition() }));
  if (found) location.assign(metricPath(found.code));
}

// --- what the dry run found ----------------------------------------------------------

function shown(found) {
  if (found.events === 0) {
    return h("div", { class: "card" }, h("h2", null, "Dry run"), h("p", { class: "hint" },
      `No stored event has the code “${found.source}”. Give the code of events that are there, or create the metric and send some.`));
  }
  const stored = found.outcomes.stored || 0, refused = Object.entries(found.outcomes).filter(([name]) => name !== "stored" && name !== "duplicate");
  return [
    h("div", { class: "card" },
      h("header", null, h("h2", null, "Dry run"), h("p", null, `${found.is_all ? "all" : "the newest"} ${plural(found.events, "event")} of ${found.source}, ${moment(found.first)} to ${moment(found.last)}; nothing was stored`)),
      h("dl", { class: "grid facts" },
        figure("Would count", integer(stored)), figure("Would refuse", integer(refused.reduce((sum, [, count]) => sum + count, 0))),
        figure("Accounts", integer(found.accounts)), figure("Alerts", integer(found.alert_count)))),
    section("Totals of all these events", found.totals, (rows) => table("Totals", [
      { label: "Account", of: (row) => accountLink(row.account) },
      { label: "Events", kind: "number", of: (row) => integer(row.count) },
      { label: "Total", kind: "number", of: (row) => integer(row.value) },
    ], rows), found.accounts > found.totals.length && `the largest ${found.totals.length}`),
    section("By tag", found.groups, (rows) => table("By tag", [
      { label: "Account", of: (row) => accountLink(row.account) },
      { label: "Tags", of: (row) => tags(row.group) },
      { label: "Events", kind: "number", of: (row) => integer(row.count) },
      { label: "Total", kind: "number", of: (row) => integer(row.value) },
    ], rows)),
    section("Refused", found.refusals, (rows) => table("Refused events", [
      { label: "When", kind: "when", of: (row) => time(moment, row.timestamp) },
      { label: "Account", of: (row) => accountLink(row.account) },
      { label: "Value", kind: "number", of: (row) => integer(row.value) },
      { label: "Tags", of: (row) => tags(row.properties) },
      { label: "Why", of: (row) => [outcomeBadge(row.outcome), h("div", { class: "tags" }, row.reason)] },
    ], rows), refused.map(([name, count]) => `${integer(count)} ${words(name)}`).join(", ")),
    section("Alerts that would have fired", found.alerts, (rows) => table("Alerts", ALERTS.filter((column) => column.label !== "Metric"), rows),
      found.alert_count > found.alerts.length && `the first ${found.alerts.length} of ${integer(found.alert_count)}`),
  ];
}

const figure = (label, value) => h("div", { class: "fact" }, h("dt", null, label), h("dd", null, value));

function section(title, rows, draw, note) {
  return rows.length > 0 && h("div", { class: "card" }, h("header", null, h("h2", null, title), note && h("p", null, note)), draw(rows));
}
