// The cluster: who is there, how far each is, what went through in the last minutes.

import { ask } from "../api.js";
import { chart } from "../chart.js";
import { fill, h, text } from "../dom.js";
import { bytes, compact, duration, integer, milliseconds, plural, rate } from "../format.js";
import { every, head, main, show, twin, twins } from "../page.js";
import { table } from "../table.js";

const LATEST = 5; // seconds that "now" is the mean of

function fact(label) {
  const value = h("dd"), under = h("dd", { class: "under" });
  return { element: h("div", { class: "card" }, h("dl", { class: "fact" }, h("dt", null, label), value, under)), value, under };
}

const mean = (rows, name) => {
  const latest = rows.slice(-LATEST).map((row) => row[name] || 0);
  return latest.length ? latest.reduce((one, other) => one + other, 0) / latest.length : 0;
};

const ROLES = { leader: "good", follower: "", candidate: "warn", unreachable: "bad" };

// A node that keeps everything in memory says 2^62.
const plausible = (size) => Number(size) > 0 && Number(size) < 1e18;

const COLUMNS = [
  { label: "Node", of: (node) => [String(node.node), node.self && h("span", { class: "tags" }, " this one")] },
  { label: "Role", of: (node) => h("span", { class: "badges" },
    h("span", { class: `badge ${ROLES[node.role]}` }, node.role),
    node.membership !== "voter" && h("span", { class: "badge warn" }, node.membership)) },
  { label: "Address", kind: "code", of: (node) => node.client_address || "—" },
  { label: "Behind", kind: "number", of: (node) => (node.role === "unreachable" ? "—" : plural(node.lag, "entry", "entries")) },
  { label: "Applied", kind: "number", of: (node) => integer(node.applied) },
  { label: "Log on disk", kind: "number", of: (node) => bytes(node.disk_used_bytes) },
  { label: "Disk free", kind: "number", of: (node) => (plausible(node.disk_free_bytes) ? bytes(node.disk_free_bytes) : "—") },
  { label: "Heard", kind: "number", of: (node) => (node.heard_ms === null ? "—" : node.self ? "now" : `${integer(node.heard_ms)} ms ago`) },
];

function draw(first) {
  const stored = fact("Events a second"), refused = fact("Refused a second");
  const latency = fact("Durable within"), total = fact("Events stored");
  const state = h("div"), nodes = h("div"), throughput = h("div"), latencies = h("div");
  fill(main,
    head("Overview", `Cluster ${first.cluster_id.slice(0, 8)}, as node ${first.node} sees it`),
    state,
    h("div", { class: "grid" }, stored.element, refused.element, latency.element, total.element),
    h("div", { class: "grid wide" },
      h("section", { class: "card" },
        h("header", null, h("h2", null, "Throughput"), h("p", { class: "key" },
          h("span", null, h("i"), "stored"), h("span", null, h("i", { class: "second" }), "duplicate"),
          h("span", null, h("i", { class: "third" }), "refused"))),
        throughput),
      h("section", { class: "card" },
        h("header", null, h("h2", null, "Write and sync"), h("p", null, "mean of each second, ms")),
        latencies)),
    h("section", { class: "card" }, h("header", null, h("h2", null, "Nodes")), nodes),
    twins());
  const rates = chart(throughput, { label: "Events a second, last five minutes", height: 200, series: [
    { label: "stored", fill: true }, { label: "duplicate", colour: "--second" }, { label: "refused", colour: "--bad" }] });
  const syncs = chart(latencies, { label: "Milliseconds of a write and sync, last five minutes", height: 200,
    series: [{ label: "ms", fill: true }] });

  function update(now) {
    text(stored.value, rate(mean(now.rates, "stored")));
    text(stored.under, `${rate(mean(now.rates, "duplicates"))} duplicates a second`);
    text(refused.value, rate(mean(now.rates, "refused")));
    text(refused.under, `${integer(now.events.refused)} in all`);
    text(latency.value, milliseconds(now.latency.p99));
    text(latency.under, now.latency.p50 === null ? "no write in the last minute" : `99 of 100 writes; half within ${milliseconds(now.latency.p50)}`);
    text(total.value, Number(now.events.stored) >= 1e9 ? compact(now.events.stored) : integer(now.events.stored));
    text(total.under, `${plural(now.metrics, "metric")}, ${plural(now.alerts, "alert")}, up ${duration(now.uptime_seconds)}`);
    const times = now.rates.map((row) => Date.parse(row.time) / 1e3);
    rates.update(times, ["stored", "duplicates", "refused"].map((name) => now.rates.map((row) => row[name])));
    syncs.update(times, [now.rates.map((row) => (row.sync_seconds === null ? null : row.sync_seconds * 1e3))]);
    fill(nodes, table("Nodes", COLUMNS, now.nodes.map((node) => ({ ...node, self: node.node === now.node }))));
    fill(state, warnings(now));
  }
  update(first);
  every(1000, async () => update(await ask(twin())));
}

function warnings(now) {
  const found = [];
  if (now.waiting) found.push(`Events have to wait: ${now.waiting}`);
  if (!now.leader) found.push("No node leads just now; events wait until one does.");
  const lost = now.nodes.filter((node) => node.role === "unreachable").map((node) => node.node);
  if (lost.length) found.push(`Not reached: node ${lost.join(", ")}.`);
  if (found.length) return found.map((sentence) => h("p", { class: "notice warn", role: "alert" }, sentence));
  if (now.metrics === 0) {
    return h("div", { class: "notice" }, h("p", null, "Nothing is metered yet. ",
      h("a", { href: "/ui/new-metric" }, "Create a metric"), ", then send events to it; they appear here within a second."));
  }
  return null;
}

show(draw);
