// One account, live: totals of the current period, balances, a chart, a break-down, who is active,
// alerts. The dashboard's account page and the embedded view draw with this.
//
//     twin ──> everything, once        stream ──> figures at once, the rest asked for again soon

import { ask } from "./api.js";
import { seriesChart } from "./chart.js";
import { creditBar, isBalance } from "./credit.js";
import { figure as write, fill, h, text } from "./dom.js";
import { integer, moment, period, plural, words } from "./format.js";
import { stream } from "./live.js";
import { patience, problem, pulse, say } from "./page.js";
import { line, table, time } from "./table.js";

const AGAIN_MS = 1000; // after a change, at least, before chart and tables are asked for again

const NOUNS = { count: "events", sum: "sum", max: "largest", min: "smallest", latest: "latest", avg: "average", "count-unique": "active now" };

const ALERT_COLUMNS = (links) => [
  { label: "When", kind: "when", of: (row) => time(moment, row.timestamp) },
  { label: "Metric", of: (row) => (links ? links.metric(row.metric) : h("span", { class: "code" }, row.metric)) },
  { label: "Threshold", of: (row) => h("span", { class: `badge ${row.direction === "falling" ? "bad" : "warn"}` }, row.threshold) },
  { label: "Total then", kind: "number", of: (row) => integer(row.value) },
];

// `pathOf(choice)` gives the twin's address for {metric, window, group_by}; `streamPath` the stream's.
export function usage(place, first, { pathOf, streamPath, token, links, onChoice = () => {} }) {
  const tiles = new Map(), columns = ALERT_COLUMNS(links);
  let choice = { metric: first.metric, window: first.window, group_by: first.group_by };
  let turn = 0, timer = null, took = 0, seenAlert = first.alerts.length ? first.alerts[0].position : 0;

  const alarm = h("div", { role: "status" });
  const balances = h("div", { class: "grid wide" }), figures = h("div", { class: "grid" });
  const series = h("div"), noSeries = h("div"), chartHead = h("h2");
  const windows = group("Step", [["hour", "Hours"], ["day", "Days"]], (window) => choose({ window }));
  const breakdown = h("section", { class: "card" }), members = h("section", { class: "card" });
  const side = h("div", { class: "grid wide" }, breakdown, members);
  const alerts = h("section", { class: "card" });
  const chartCard = h("section", { class: "card" }, h("header", null, chartHead, windows.element), noSeries, series);
  fill(place, alarm, balances, figures, chartCard, side, alerts);

  for (const total of first.totals) {
    if (isBalance(total)) balances.append(balance(total));
    figures.append(tile(total));
  }
  balances.hidden = balances.childElementCount === 0;
  let redraw = null, brokenDown = "";
  drawAlerts(first.alerts);
  drawDetail(first);

  function balance(total) {
    const bar = creditBar(total);
    remember(total.metric).bars.push(bar);
    return h("section", { class: "card", "aria-label": `Balance of ${total.metric}` },
      h("header", null, h("h2", null, total.metric), h("p", null, "remaining")), bar.element);
  }

  function remember(metric) {
    if (!tiles.has(metric)) tiles.set(metric, { bars: [], figures: [], under: null, button: null });
    return tiles.get(metric);
  }

  function tile(total) {
    const kept = remember(total.metric);
    const figure = h("span", { class: "figure", "data-total": total.metric });
    write(figure, integer(total.value));
    const under = h("span", { class: "under" }, underOf(total));
    kept.figures.push(figure);
    kept.under = under;
    kept.total = total;
    kept.button = h("button", { type: "button", class: "card tile", on: { click: () => choose({ metric: total.metric, group_by: "" }) } },
      h("span", { class: "name" }, h("span", { class: "code" }, total.metric), h("span", { class: "label" }, NOUNS[total.aggregation] || words(total.aggregation))),
      figure, under);
    return kept.button;
  }

  function underOf(total) {
    const span = period(total.start, total.end);
    if (total.aggregation === "count" || total.aggregation === "count-unique") return span;
    return `${plural(total.count, "event")} · ${span}`;
  }

  // --- what moves -------------------------------------------------------------------

  function moved(change) {
    const kept = tiles.get(change.metric);
    if (!kept) {
      soon(true);
      return;
    }
    // The stream begins with the totals as they are; those have not moved.
    const isNews = String(kept.total.value) !== String(change.value) || String(kept.total.count) !== String(change.count);
    if (!isNews) return;
    for (const name of ["value", "count", "sum", "min", "max", "last", "start", "end"]) kept.total[name] = change[name];
    for (const figure of kept.figures) {
      write(figure, integer(change.value));
      figure.classList.remove("moved");
      requestAnimationFrame(() => figure.classList.add("moved"));
    }
    text(kept.under, underOf(kept.total));
    for (const bar of kept.bars) bar.update(kept.total);
    soon(false);
  }

  function alerted(alert) {
    if (alert.position <= seenAlert) return;
    seenAlert = alert.position;
    const sentence = `${alert.metric} ${alert.direction === "falling" ? "fell to" : "reached"} “${alert.threshold}”: ${integer(alert.value)}`;
    fill(alarm, h("div", { class: `notice ${alert.direction === "falling" ? "bad" : "warn"}`, "data-alert": alert.position }, sentence));
    say(sentence);
    const body = alerts.querySelector("tbody");
    if (!body) {
      drawAlerts([alert]);
    } else {
      const made = line(columns, alert);
      made.classList.add("fresh");
      body.prepend(made);
    }
  }

  function soon(isNew) {
    if (timer) return;
    timer = setTimeout(async () => {
      timer = null;
      if (document.hidden) {
        document.addEventListener("visibilitychange", () => soon(isNew), { once: true });
        return;
      }
      await again(isNew);
    }, patience(AGAIN_MS, took));
  }

  async function again(isNew) {
    const mine = ++turn, began = performance.now();
    try {
      const found = await ask(pathOf(choice), { token });
      took = performance.now() - began;
      if (mine !== turn) return;
      for (const total of found.totals) {
        if (!tiles.has(total.metric) && isNew) {
          if (isBalance(total)) balances.append(balance(total));
          figures.append(tile(total));
          balances.hidden = balances.childElementCount === 0;
        }
      }
      drawDetail(found);
    } catch (error) {
      if (mine === turn) fill(noSeries, problem(error));
    }
  }

  // --- the metric that was chosen -----------------------------------------------------

  function choose(change) {
    choice = { ...choice, ...change };
    onChoice(choice);
    mark();
    again(false);
  }

  function mark() {
    for (const [metric, kept] of tiles) kept.button?.setAttribute("aria-current", String(metric === choice.metric));
    windows.mark(choice.window);
  }

  function drawDetail(found) {
    choice = { metric: found.metric, window: found.window, group_by: found.group_by };
    mark();
    chartCard.hidden = side.hidden = !found.metric;
    if (!found.metric) return;
    const kept = tiles.get(found.metric);
    const aggregation = kept ? kept.total.aggregation : "";
    text(chartHead, `${found.metric} by ${found.window}`);
    if (found.series) {
      redraw ||= seriesChart(series);
      redraw(found.metric, found.series, found.window);
    }
    series.hidden = !found.series;
    fill(noSeries, !found.series && h("p", { class: "notice warn" }, `The node says: ${found.problems.series || "there is no series"}`));
    drawBreakdown(found, aggregation);
    drawMembers(found, aggregation);
    side.hidden = breakdown.hidden && members.hidden;
  }

  function drawBreakdown(found, aggregation) {
    const has = found.dimensions.length > 0;
    breakdown.hidden = !has;
    if (!has) return;
    const now = JSON.stringify([found.metric, found.group_by, found.breakdown]);
    if (now === brokenDown) return;
    brokenDown = now;
    const at = breakdown.contains(document.activeElement) ? document.activeElement : null;
    const held = at && (at.dataset.choice ? `[data-choice="${CSS.escape(at.dataset.choice)}"]` : ".table");
    const tabs = group("Tag", found.dimensions.map((key) => [key, key]), (key) => choose({ group_by: key }));
    tabs.mark(found.group_by);
    const most = found.breakdown.reduce((one, row) => Math.max(one, Math.abs(Number(row.value))), 0);
    fill(breakdown, h("header", null, h("h2", null, "By tag"), tabs.element),
      found.breakdown.length
        ? table(`${found.metric} by ${found.group_by}`, [
          { label: found.group_by, of: (row) => row.group[found.group_by] || h("span", { class: "tags" }, "none") },
          { label: NOUNS[aggregation] === "active now" ? "Active" : "Total", kind: "number", of: (row) => [integer(row.value), bar(row, most)] },
        ], found.breakdown)
        : h("p", { class: "hint" }, "No events in this period."));
    if (held) breakdown.querySelector(held)?.focus();
  }

  function bar(row, most) {
    const inner = h("span");
    inner.style.width = `${most ? (100 * Math.abs(Number(row.value))) / most : 0}%`;
    return h("span", { class: "share", "aria-hidden": "true" }, inner);
  }

  function drawMembers(found, aggregation) {
    members.hidden = aggregation !== "count-unique" || !found.members;
    if (members.hidden) return;
    fill(members, h("header", null, h("h2", null, "Active now"), h("p", null, plural(found.members.length, "member") + (found.more_members ? " shown, more follow" : ""))),
      found.members.length
        ? h("ul", { class: "members" }, found.members.map((member) => h("li", null, String(member))))
        : h("p", { class: "hint" }, "Nobody is active."));
  }

  function drawAlerts(rows) {
    fill(alerts, h("header", null, h("h2", null, "Alerts"), links && h("a", { href: links.alerts }, "All of them")),
      rows.length ? table("Alerts", columns, rows) : h("p", { class: "hint" }, "No threshold was crossed."));
  }

  stream(streamPath, {
    token,
    onState: pulse,
    onEvent(name, data) {
      if (name === "total") moved(data);
      else if (name === "alert") alerted(data);
      else if (name === "overflow") soon(true);
    },
  });
}

function group(label, choices, onChoose) {
  const buttons = choices.map(([value, name]) => [value,
    h("button", { type: "button", "aria-pressed": "false", "data-choice": value, on: { click: () => onChoose(value) } }, name)]);
  return {
    element: h("div", { class: "choice", role: "group", "aria-label": label }, buttons.map(([, button]) => button)),
    mark(chosen) {
      for (const [value, button] of buttons) button.setAttribute("aria-pressed", String(value === chosen));
    },
  };
}
