// Signing in: a key is exchanged for a session that scripts can't read.

import { ask } from "../api.js";
import { fill, h } from "../dom.js";
import { main, problem, signedIn, start } from "../page.js";

// Only an address of this very node: never one that a link was made to carry somewhere else.
function next() {
  const wanted = new URLSearchParams(location.search).get("next") || "/";
  const found = new URL(wanted, location.origin);
  return found.origin === location.origin && /^\/(ui\/|$)/.test(found.pathname) ? found.pathname + found.search : "/";
}

start();
const input = h("input", { id: "key", name: "key", type: "password", autocomplete: "current-password", spellcheck: "false", required: true, placeholder: "um_…" });
const said = h("div");
const button = h("button", { type: "submit", class: "main" }, "Sign in");
fill(main, h("div", { class: "card signin" },
  h("h1", null, "Unimeter"),
  h("p", { class: "lead" }, "Sign in with a key. One that reads sees the dashboard; one with the scope admin changes things, too."),
  h("form", { on: { submit } },
    h("input", { type: "text", autocomplete: "username", value: "key", hidden: true, "aria-hidden": "true" }),
    h("div", { class: "field" }, h("label", { for: "key" }, "Key"), input),
    h("div", { class: "buttons" }, button)),
  said,
  h("p", { class: "hint" }, "Make one on the node's machine: ", h("code", null, "unimeter keys create"))));
document.body.dataset.ready = "1";
input.focus();

async function submit(event) {
  event.preventDefault();
  button.disabled = true;
  fill(said);
  try {
    await ask("/v1/session", { method: "POST", body: { key: input.value.trim() } });
    signedIn(true);
    location.replace(next());
  } catch (error) {
    fill(said, problem(error));
    button.disabled = false;
    input.focus();
    input.select();
  }
}
