// One account, live.

import { fill, h } from "../dom.js";
import { stream } from "../live.js";
import { empty, head, main, pulse, show, twin, twins } from "../page.js";
import { metricLink } from "../rows.js";
import { usage } from "../usage.js";

const chosen = ({ metric, window, group_by: by }) =>
  Object.fromEntries(Object.entries({ metric, window, group_by: by }).filter(([, value]) => value));

show((found) => {
  const name = found.account_text;
  document.title = `${name} · Unimeter`;
  const query = new URLSearchParams({ account: name, totals: "true", alerts: "true" });
  const place = h("div"), foot = h("div", null, twins());
  fill(main, head(name, "What this account has used in the current period, as it happens."), place, foot);
  if (found.totals.length === 0) {
    fill(place, empty("Nothing was metered for this account", "An account needs no creating: it is there with its first stored event, and so is this page."));
    stream(`/v1/stream?${query}`, { onState: pulse, onEvent: (event) => event === "total" && location.reload() });
    return;
  }
  usage(place, found, {
    pathOf: (choice) => twin(chosen(choice)),
    streamPath: `/v1/stream?${query}`,
    links: { metric: metricLink, alerts: `/ui/alerts?account=${encodeURIComponent(name)}` },
    onChoice(choice) {
      const wanted = new URLSearchParams(location.search);
      for (const key of ["metric", "window", "group_by"]) wanted.delete(key);
      for (const [key, value] of Object.entries(chosen(choice))) wanted.set(key, value);
      history.replaceState(null, "", `${location.pathname}?${wanted}`);
      fill(foot, twins());
    },
  });
});
