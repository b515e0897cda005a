// What arrives, newest first, with what became of it.

import { ask } from "../api.js";
import { fill, h, text } from "../dom.js";
import { empty, every, head, main, pulse, show, twin, twins } from "../page.js";
import { EVENTS } from "../rows.js";
import { line, table } from "../table.js";

const CHOICES = [["", "All"], ["stored", "Stored"], ["duplicate", "Duplicates"], ["refused", "Refused"]];
const KEPT = 200;

const keyOf = (row) => `${row.offset}`;

show((first) => {
  const chosen = new URLSearchParams(location.search).get("outcome") || "";
  const place = h("div"), note = h("p", { class: "hint" });
  let isPaused = false;
  const pause = h("button", { type: "button", "aria-pressed": "false", on: { click: () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    text(pause, isPaused ? "Go on" : "Pause");
    pulse(isPaused ? "" : "live");
  } } }, "Pause");
  fill(main,
    head("Events", "What arrives, newest first, and what became of it.", pause),
    h("div", { class: "tools" }, h("div", { class: "choice", role: "group", "aria-label": "Outcome" }, CHOICES.map(([value, label]) =>
      h("button", { type: "button", "aria-pressed": String(value === chosen), on: { click: () => location.assign(value ? `?outcome=${value}` : location.pathname) } }, label))),
    note),
    place, twins());

  function draw(rows) {
    if (rows.length === 0) {
      fill(place, chosen
        ? empty("Nothing of this kind", "Among the newest events there is none with this outcome.")
        : empty("No events yet", "They appear here as they are acknowledged."));
      return;
    }
    const body = place.querySelector("tbody");
    if (!body) {
      fill(place, table("Events", EVENTS, rows, keyOf));
      return;
    }
    const known = new Set([...body.rows].map((row) => row.dataset.key));
    const fresh = rows.filter((row) => !known.has(keyOf(row)));
    body.prepend(...fresh.map((row) => {
      const made = line(EVENTS, row, keyOf);
      if (fresh.length <= 12) made.classList.add("fresh");
      return made;
    }));
    while (body.rows.length > KEPT) body.lastElementChild.remove();
  }

  draw(first.rows);
  every(1000, async () => {
    if (!isPaused) draw((await ask(twin())).rows);
  });
});
