// API keys: who may do what. A new key is shown once.

import { ask } from "../api.js";
import { fill, h } from "../dom.js";
import { moment } from "../format.js";
import { act, entry, field, sure, tick } from "../forms.js";
import { empty, head, main, say, show, twin, twins } from "../page.js";
import { accountOf } from "../rows.js";
import { table, time } from "../table.js";

show((first) => {
  const place = h("div"), said = h("div"), made = h("div");
  const name = entry("name", { required: true, maxlength: 64, placeholder: "billing job" });
  const account = entry("account", { placeholder: "any" }), metric = entry("metric", { placeholder: "any" });
  const scopes = [["ingest", "ingest: send events"], ["read", "read: see totals"], ["admin", "admin: change things"]]
    .map(([value, label]) => tick(value, label));
  const button = h("button", { type: "submit", class: "main" }, "Create key");
  fill(main,
    head("Keys", "Who may send events, read totals and change things."),
    first.is_open && h("p", { class: "notice warn" }, "There is no key yet, so everybody who reaches this port may do everything. The first one must have the scope admin; from then on every request needs a key."),
    made,
    h("form", { class: "card", on: { submit: create } },
      h("h2", null, "New key"),
      h("fieldset", null, h("legend", { class: "hidden" }, "Scopes"), h("div", { class: "tools" }, scopes)),
      h("div", { class: "fields" }, field("Name", name), field("Only for account", account), field("Only for metric", metric)),
      h("div", { class: "buttons" }, button)),
    h("section", { class: "card" }, h("header", null, h("h2", null, "Keys")), said, place),
    twins());
  draw(first);

  const columns = [
    { label: "Name", of: (row) => row.name },
    { label: "Id", kind: "code", of: (row) => row.id },
    { label: "Scopes", of: (row) => h("span", { class: "badges" }, row.scopes.map((scope) => h("span", { class: "badge" }, scope))) },
    { label: "Only for", of: (row) => [row.account !== null && `account ${row.account}`, row.account !== null && row.metric && ", ", row.metric && `metric ${row.metric}`, row.account === null && !row.metric && "—"] },
    { label: "Created", kind: "when", of: (row) => time(moment, row.created) },
    { label: "", of: (row) => (row.revoked ? h("span", { class: "badge bad" }, `revoked ${moment(row.revoked)}`) : sure("Revoke", `Revoke ${row.name} for good`, (yes) => revoke(yes, row))) },
  ];

  function draw(found) {
    if (found.rows.length === 0) fill(place, empty("No keys yet", "Keep what the form shows: a key is shown once."));
    else queueMicrotask(() => fill(place, table("Keys", columns, found.rows)));
  }

  async function create(event) {
    event.preventDefault();
    const body = { name: name.value.trim(), scopes: scopes.map((scope) => scope.querySelector("input")).filter((input) => input.checked).map((input) => input.name) };
    if (account.value.trim()) body.account = accountOf(account.value.trim());
    if (metric.value.trim()) body.metric = metric.value.trim();
    const found = await act(button, made, () => ask("/v1/keys", { method: "POST", body }));
    if (!found) return;
    fill(made, h("div", { class: "notice" }, h("p", null, `The key “${found.name}”. It is shown only now:`), h("code", { class: "secret" }, found.key),
      first.is_open && h("p", null, "From now on this dashboard needs a key as well. ", h("a", { href: "/ui/login?next=/ui/keys" }, "Sign in"))));
    say("The key was created");
    await ask(twin()).then(draw, () => {});
  }

  async function revoke(yes, row) {
    const done = await act(yes, said, async () => {
      await ask(`/v1/keys/${row.id}`, { method: "DELETE" });
      return true;
    });
    if (done) draw(await ask(twin()));
  }
});
