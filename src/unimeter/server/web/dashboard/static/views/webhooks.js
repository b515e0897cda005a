// Where alerts are sent, how far that has come, and the levers.

import { ask } from "../api.js";
import { fill, h } from "../dom.js";
import { integer, plural } from "../format.js";
import { act, entry, field, sure } from "../forms.js";
import { accountOf } from "../rows.js";
import { empty, every, head, main, say, show, twin, twins } from "../page.js";

const split = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);

show((first) => {
  const place = h("div"), made = h("div");
  const url = entry("url", { type: "url", required: true, placeholder: "https://example.com/hooks/usage" });
  const accounts = entry("accounts", { placeholder: "all" }), metrics = entry("metrics", { placeholder: "all" });
  const button = h("button", { type: "submit", class: "main" }, "Create webhook");
  let shown = "";
  fill(main,
    head("Webhooks", "Alerts, signed and sent to a URL: at least once, in order for each account, tried again for days."),
    made, place,
    h("form", { class: "card", on: { submit: create } }, h("h2", null, "New webhook"),
      h("div", { class: "fields" }, field("URL", url), field("Only accounts", accounts, "Separated by commas."), field("Only metrics", metrics, "Separated by commas.")),
      h("div", { class: "buttons" }, button)),
    twins());
  draw(first);
  every(2000, async () => draw(await ask(twin())));

  function draw(found) {
    const now = JSON.stringify(found.rows);
    if (now === shown || place.contains(document.activeElement)) return;
    shown = now;
    fill(place, found.rows.length
      ? found.rows.map(card)
      : empty("No webhooks yet", "Add a URL below; it gets every alert from then on."));
  }

  function card(hook) {
    const said = h("div");
    const lever = (name, work) => {
      const one = h("button", { type: "button", class: "small", on: { click: () => act(one, said, work) } }, name);
      return one;
    };
    const post = (what, body) => ask(`/v1/webhooks/${hook.id}/${what}`, { method: "POST", body });
    const again = async () => {
      shown = "";
      document.activeElement.blur();
      draw(await ask(twin()));
    };
    const from = entry("after", { type: "number", min: 0, value: "0", "aria-label": "Replay after alert number" });
    return h("section", { class: "card", "aria-label": hook.url },
      h("header", null, h("h2", { class: "code" }, hook.url), h("span", { class: `badge ${hook.state === "active" ? "good" : "warn"}` }, hook.state)),
      hook.paused_reason && h("p", { class: "notice warn" }, `Paused: ${hook.paused_reason}`),
      h("dl", { class: "pairs" },
        pair("Delivered", hook.lag ? `up to alert ${integer(hook.through)}; ${plural(hook.lag, "alert")} to go` : `everything, up to alert ${integer(hook.through)}`),
        hook.retrying > 0 && pair("Being tried again", plural(hook.retrying, "alert")),
        hook.error && pair("Last failure", hook.error),
        pair("For", [hook.accounts.length ? `accounts ${hook.accounts.join(", ")}` : "all accounts", "; ", hook.metrics.length ? `metrics ${hook.metrics.join(", ")}` : "all metrics"])),
      said,
      h("div", { class: "row" },
        lever("Send a test", async () => {
          const test = await post("test");
          fill(said, h("p", { class: `notice ${test.delivered ? "" : "bad"}` }, test.delivered ? `Delivered: the receiver answered ${test.status}.` : `Not delivered: ${test.error}`));
        }),
        hook.state === "active" ? lever("Pause", async () => { await post("pause", { reason: "by hand" }); await again(); }) : lever("Resume", async () => { await post("resume"); await again(); }),
        lever("Replay after", async () => { await post("replay", { after: Number(from.value) }); await again(); }), from,
        sure("Delete", "Delete it for good", (yes) => act(yes, said, async () => { await ask(`/v1/webhooks/${hook.id}`, { method: "DELETE" }); await again(); }))));
  }

  async function create(event) {
    event.preventDefault();
    const body = { url: url.value.trim(), accounts: split(accounts.value).map(accountOf), metrics: split(metrics.value) };
    const found = await act(button, made, () => ask("/v1/webhooks", { method: "POST", body }));
    if (!found) return;
    fill(made, h("div", { class: "notice" }, h("p", null, "Its secret, to verify signatures with. It is shown only now:"), h("code", { class: "secret" }, found.secret)));
    say("The webhook was created");
    shown = "";
    draw(await ask(twin()));
  }
});

const pair = (name, value) => [h("dt", null, name), h("dd", null, value)];
