// What is left of a balance, as a bar with its thresholds marked, and the same in words.

import { figure, fill, h } from "./dom.js";
import { big, integer } from "./format.js";

export const isBalance = (total) =>
  total.aggregation === "sum" && (total.thresholds || []).some((one) => one.when === "at-or-below");

const most = (...values) => values.reduce((one, other) => (one > other ? one : other), 0n);

// Thousandths of the bar; exact, as the integers may be beyond a float.
const share = (value, full) => (full <= 0n || value <= 0n ? 0 : Number((value * 1000n) / full) / 10);

export function creditBar(total) {
  const marks = (total.thresholds || []).map((one) => ({ ...one, exact: big(one.value) }))
    .sort((one, other) => (one.exact < other.exact ? 1 : -1));
  const number = h("strong", { class: "figure", "data-total": total.metric });
  const words = h("p", { class: "under" });
  const level = h("div", { class: "level" });
  const track = h("div", { class: "track", role: "meter", "aria-label": `Remaining ${total.metric}`, "aria-valuemin": "0" },
    level, marks.map((mark) => (mark.tick = h("div", { class: "tick", title: mark.code }))));
  const legend = h("ul", { class: "marks" }, marks.map((mark) =>
    (mark.line = h("li", null, h("span", { class: "dot" }), h("span", null, mark.code), " ",
      h("span", { class: "number" }, integer(mark.value))))));
  let full = 0n;

  function update(now) {
    const value = big(now.value);
    // A bar is full at the most that was ever granted at once, or what is there if that is more.
    full = most(full, value, big(now.max), ...marks.map((mark) => mark.exact + mark.exact / 4n));
    const part = Math.min(100, share(value, full));
    level.style.width = `${part}%`;
    figure(number, integer(now.value));
    const passed = marks.filter((mark) => value <= mark.exact && mark.when === "at-or-below");
    const lowest = passed.at(-1);
    track.dataset.state = value <= 0n ? "empty" : lowest ? (lowest === marks.at(-1) ? "low" : "warn") : "good";
    track.setAttribute("aria-valuenow", String(part));
    track.setAttribute("aria-valuemax", "100");
    track.setAttribute("aria-valuetext", `${integer(now.value)} left`);
    for (const mark of marks) {
      mark.tick.style.left = `${Math.min(100, share(mark.exact, full))}%`;
      mark.line.dataset.passed = String(passed.includes(mark));
    }
    fill(words, lowest ? `At or below “${lowest.code}”, ${integer(lowest.value)}` : "Above every threshold");
  }

  update(total);
  return { element: h("div", { class: "credit" }, number, track, words, legend), update };
}
