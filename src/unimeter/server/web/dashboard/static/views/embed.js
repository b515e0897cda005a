// What a customer sees of their own account, in a frame on another site. The token comes in the
// fragment (#token=…), which no server sees, or as ?token=; it is sent as a header and nowhere else.

import { ask } from "../api.js";
import { fill, h } from "../dom.js";
import { main, start } from "../page.js";
import { usage } from "../usage.js";

const query = new URLSearchParams(location.search);
const token = new URLSearchParams(location.hash.slice(1)).get("token") || query.get("token") || "";

const chosen = (choice) => {
  const wanted = new URLSearchParams();
  for (const [key, value] of Object.entries(choice)) if (value) wanted.set(key, value);
  return String(wanted);
};

function sorry(title, sentence) {
  fill(main, h("div", { class: "empty", role: "alert" }, h("h1", null, title), h("p", null, sentence)));
  document.body.dataset.ready = "failed";
}

async function run() {
  start();
  if (!token) {
    sorry("Nothing to show", "This view needs a token: whoever put it here should add #token=… to its address.");
    return;
  }
  try {
    const pathOf = (choice) => `/embed/usage.json?${chosen(choice)}`;
    const found = await ask(pathOf({ metric: query.get("metric"), window: query.get("window") }), { token });
    const place = h("div");
    fill(main, h("h1", { class: "hidden" }, "Usage"), place);
    if (found.totals.length === 0) {
      fill(place, h("div", { class: "empty" }, h("h2", null, "No usage yet"), h("p", null, "It appears here with the first event.")));
    } else {
      usage(place, found, { pathOf, token, streamPath: streamPath(found) });
    }
    document.body.dataset.ready = "1";
  } catch (error) {
    const isOver = error.status === 401 || error.status === 403;
    sorry(isOver ? "This view has ended" : "Usage can't be shown now", isOver ? "Load the page again to see your usage." : `The node says: ${error.message}`);
  }
}

function streamPath(found) {
  const wanted = new URLSearchParams({ account: found.account_text, totals: "true", alerts: "true" });
  for (const total of found.totals) wanted.append("metric", total.metric);
  return `/v1/stream?${wanted}`;
}

run();
