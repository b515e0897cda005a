// Charts by uPlot, in the page's colours, with the same figures as a table for whoever can't see them.

import { fill, h, text } from "./dom.js";
import { compact, integer, moment } from "./format.js";
import { onTheme } from "./page.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const two = (number) => String(number).padStart(2, "0");

// Times of an axis in UTC, each as short as its step allows; the day where one begins.
function times(plot, ticks, _, __, step) {
  return ticks.map((tick) => {
    const at = new Date(tick * 1e3);
    const day = at.toISOString().slice(5, 10), clock = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
    if (step >= 86400) return day;
    if (step < 60) return `${clock}:${two(at.getUTCSeconds())}`;
    return clock === "00:00" ? day : clock;
  });
}

const tickText = (tick) => (Math.abs(tick) < 1 ? String(+tick.toFixed(3)) : compact(tick));

function axes(unit) {
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const common = { stroke: colour("--muted"), font, ticks: { show: false } };
  return [
    { ...common, grid: { show: false }, gap: 8, size: 30, space: 76, values: times },
    { ...common, size: 56, gap: 6, space: 36,
      grid: { stroke: colour("--line"), width: 1 },
      values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : tickText(tick).replace("-", "−") + (unit || ""))) },
  ];
}

function range(_, low, high) {
  if (low === null || (low === 0 && high === 0)) return [0, 1];
  const top = high > 0 ? high * 1.08 : 0;
  return [low < 0 ? low * 1.08 : 0, top];
}

function plotted(kind, spec) {
  const one = colour(spec.colour || "--accent");
  if (kind === "bars") {
    return { label: spec.label, stroke: one, fill: one, width: 0, points: { show: false },
      paths: window.uPlot.paths.bars({ size: [0.72, 48], radius: 0.12, align: 1 }) };
  }
  return { label: spec.label, stroke: one, width: 1.75, points: { show: false },
    fill: spec.fill ? `${one}1f` : undefined };
}

// A chart in `place`. `update(times, columns, end)`: seconds, one array of numbers a series, and
// where the last bar ends.
export function chart(place, { kind = "line", series, height = 220, label, unit, onCursor }) {
  const canvas = h("div", { class: "plot", role: "img", "aria-label": label });
  place.append(canvas);
  let plot = null, until = 0, data = [[], ...series.map(() => [])];

  function make() {
    if (plot) plot.destroy();
    plot = new window.uPlot({
      width: Math.max(200, canvas.clientWidth), height,
      tzDate: (seconds) => window.uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC"),
      legend: { show: false },
      cursor: { y: false, points: { show: kind !== "bars" }, drag: { x: false, y: false } },
      scales: { x: { time: true, range: (u, low, high) => [low, Math.max(high, until)] }, y: { range } },
      axes: axes(unit),
      series: [{}, ...series.map((one) => plotted(kind, one))],
      hooks: { setCursor: [(u) => onCursor && onCursor(u.cursor.idx ?? null)] },
    }, data, canvas);
  }

  make();
  onTheme(make);
  new ResizeObserver(() => {
    const width = canvas.clientWidth;
    if (plot && width && Math.abs(width - plot.width) > 1) plot.setSize({ width, height });
  }).observe(canvas);
  return {
    update(times, columns, end = 0) {
      until = end;
      data = [times, ...columns];
      plot.setData(data);
    },
    label(sentence) {
      canvas.setAttribute("aria-label", sentence);
    },
  };
}

// A time series of one total: bars, what is under the cursor, and a table of the same. Returns
// what draws another series in the same place.
export function seriesChart(place) {
  const shown = h("p", { class: "reading" });
  const figures = h("tbody"), title = h("th", { scope: "col", class: "number" });
  const region = h("div", { class: "table short", role: "region", tabindex: "0" },
    h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, "From"), title)), figures));
  let points = [], lengthShown = 16;
  const drawn = h("div");
  fill(place, shown, drawn, h("details", { class: "figures" }, h("summary", null, "The figures"), region));
  const drawing = chart(drawn, { kind: "bars", series: [{ label: "total" }], label: "Totals", height: 240, onCursor: read });

  function read(at) {
    const point = at === null ? points.at(-1) : points[at];
    fill(shown, point ? [h("span", null, moment(point.start).slice(0, lengthShown)), " ",
      h("strong", null, integer(point.value))] : "Nothing in this range");
  }

  return (name, rows, window) => {
    points = rows;
    text(title, name);
    region.setAttribute("aria-label", `Figures of ${name}`);
    lengthShown = window === "hour" ? 16 : 10;
    drawing.update(rows.map((row) => Date.parse(row.start) / 1e3), [rows.map((row) => Number(row.value))],
      rows.length ? Date.parse(rows.at(-1).end) / 1e3 : 0);
    const filled = rows.filter((row) => Number(row.count ?? row.value) !== 0).length;
    drawing.label(`${name} by ${window}: ${filled} of ${rows.length} with events; the figures follow as a table`);
    fill(figures, rows.map((row) => h("tr", null,
      h("td", null, moment(row.start).slice(0, lengthShown)),
      h("td", { class: "number" }, integer(row.value)))).reverse());
    read(null);
  };
}
