// Every threshold that was crossed, newest first; new ones appear by themselves.

import { fill, h } from "../dom.js";
import { empty, head, main, pulse, say, show, twins } from "../page.js";
import { stream } from "../live.js";
import { ALERTS } from "../rows.js";
import { line, table } from "../table.js";

show((found) => {
  const query = new URLSearchParams(location.search);
  const only = ["account", "metric"].filter((name) => query.get(name));
  const place = h("div");
  let newest = found.rows.length ? found.rows[0].position : 0;
  fill(main,
    head("Alerts", only.length ? `Only of ${only.map((name) => `${name} ${query.get(name)}`).join(", ")}.` : "Each crossing of a threshold, once, in order.",
      only.length > 0 && h("a", { class: "button", href: "/ui/alerts" }, "Show all")),
    place,
    found.cursor && h("p", { class: "tools more" }, h("a", { class: "button", href: olderPath(found.cursor) }, "Older")),
    twins());
  draw();

  function draw() {
    fill(place, found.rows.length
      ? table("Alerts", ALERTS, found.rows, (row) => row.position)
      : empty("No alerts", "A metric with thresholds raises one when an account's total crosses it."));
  }

  function olderPath(cursor) {
    query.set("before", cursor);
    return `?${query}`;
  }

  if (query.get("before")) return;
  const wanted = new URLSearchParams([...query].filter(([name]) => name === "account" || name === "metric"));
  wanted.set("alerts", "true");
  wanted.set("totals", "false");
  stream(`/v1/stream?${wanted}`, {
    onState: pulse,
    onEvent(name, alert) {
      if (name !== "alert" || alert.position <= newest) return;
      newest = alert.position;
      found.rows.unshift(alert);
      const body = place.querySelector("tbody");
      if (!body) draw();
      else body.prepend(fresh(line(ALERTS, alert)));
      say(`${alert.threshold} of ${alert.metric}, account ${alert.account}`);
    },
  });
});

function fresh(row) {
  row.classList.add("fresh");
  return row;
}
