// Columns that several views share.

import { h } from "./dom.js";
import { accountPath, integer, moment, words } from "./format.js";
import { metricPath } from "./metric.js";
import { time } from "./table.js";

// The text that names an account: the string of digits "42" is not the number 42. An integer too
// long for a float comes as digits, and a string that looks like one begins with "str:" already.
const LARGEST = BigInt(Number.MAX_SAFE_INTEGER);
const isShortNumber = (text) => /^(0|[1-9][0-9]{0,15})$/.test(text) && BigInt(text) <= LARGEST;
export const accountText = (account) =>
  typeof account === "string" && isShortNumber(account) ? `str:${account}` : String(account);

// The account that a text names: the reverse.
export const accountOf = (text) => (/^(0|[1-9][0-9]{0,19})$/.test(text) ? BigInt(text) : text.replace(/^str:/, ""));

export const accountLink = (account) => h("a", { href: accountPath(accountText(account)) }, accountText(account));
export const metricLink = (code) => h("a", { class: "code", href: metricPath(code) }, code);

export const tags = (properties) => {
  const pairs = Object.entries(properties || {});
  return pairs.length ? h("span", { class: "tags" }, pairs.map(([key, value]) => `${key} ${value}`).join(" · ")) : "—";
};

export const ALERTS = [
  { label: "When", kind: "when", of: (row) => time(moment, row.timestamp) },
  { label: "Account", of: (row) => accountLink(row.account) },
  { label: "Metric", of: (row) => metricLink(row.metric) },
  { label: "Threshold", of: (row) => h("span", { class: `badge ${row.direction === "falling" ? "bad" : "warn"}` }, row.threshold) },
  { label: "Total then", kind: "number", of: (row) => integer(row.value) },
  { label: "No.", kind: "number", of: (row) => integer(row.position) },
];

const GOOD = { stored: "good", duplicate: "" };

export const outcomeBadge = (outcome) =>
  h("span", { class: `badge ${GOOD[outcome] ?? "bad"}` }, words(outcome));

export const EVENTS = [
  { label: "When", kind: "when", of: (row) => time(moment, row.timestamp) },
  { label: "Account", of: (row) => (row.account === "" || row.account === null ? "—" : accountLink(row.account)) },
  { label: "Metric", of: (row) => (row.metric ? h("span", { class: "code" }, row.metric) : "—") },
  { label: "Value", kind: "number", of: (row) => (row.operation && row.operation !== "none" ? [words(row.operation), " "] : []).concat(integer(row.value)) },
  { label: "Tags", kind: "tags", of: (row) => tags(row.properties) },
  { label: "Outcome", of: (row) => [outcomeBadge(row.outcome), row.reason && h("div", { class: "tags" }, row.reason,
    row.outcome === "unknown_metric" && [" ", h("a", { href: `/ui/new-metric?code=${encodeURIComponent(row.metric)}` }, "Define it")])] },
];
