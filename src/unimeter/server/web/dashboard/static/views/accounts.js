// Accounts, found by their beginning.

import { ask } from "../api.js";
import { fill, h } from "../dom.js";
import { accountPath } from "../format.js";
import { empty, head, main, problem, say, show, twin, twins } from "../page.js";
import { table } from "../table.js";

const COLUMNS = [
  { label: "Account", of: (row) => h("a", { href: accountPath(row.text) }, row.text) },
  { label: "Kind", of: (row) => (/^[0-9]+$/.test(row.text) ? "number" : "name") },
];

show((first) => {
  const asked = new URLSearchParams(location.search).get("q") || "";
  const input = h("input", { id: "q", name: "q", type: "search", value: asked, autocomplete: "off", spellcheck: "false", placeholder: "acme, or 42" });
  const place = h("div"), foot = h("div");
  let turn = 0, timer = null;
  fill(main,
    head("Accounts", "Everyone who has events, by name or number."),
    h("form", { class: "tools", role: "search", "aria-label": "Accounts", on: { submit: (event) => { event.preventDefault(); find(); } } },
      h("label", { for: "q" }, "Begins with"), input),
    place, foot);

  function draw(found) {
    const rows = h("div", null, found.rows.length
      ? table("Accounts", COLUMNS, found.rows)
      : input.value
        ? empty(`No account begins with “${input.value}”`, "A search looks at the beginning of a name. Digits alone are the number; str:42 is the text 42.")
        : empty("No accounts yet", "An account appears with its first stored event."));
    fill(place, rows);
    if (found.cursor) more(rows, found.cursor);
    fill(foot, twins());
    document.getElementById("find").value = "";
  }

  function more(rows, cursor) {
    const button = h("button", { type: "button", on: { click: async () => {
      button.disabled = true;
      try {
        const next = await ask(twin({ cursor }));
        button.remove();
        const page = table("Accounts", COLUMNS, next.rows);
        rows.querySelector("tbody").append(...page.querySelectorAll("tbody tr"));
        say(`${next.rows.length} more accounts`);
        if (next.cursor) more(rows, next.cursor);
      } catch (error) {
        rows.append(problem(error));
      }
    } } }, "Show more");
    rows.append(h("p", { class: "tools more" }, button));
  }

  async function find() {
    clearTimeout(timer);
    const mine = ++turn, query = input.value.trim();
    history.replaceState(null, "", query ? `?q=${encodeURIComponent(query)}` : location.pathname);
    try {
      const found = await ask(twin());
      if (mine !== turn) return;
      draw(found);
      say(`${found.rows.length}${found.cursor ? " or more" : ""} accounts`);
    } catch (error) {
      if (mine === turn) fill(place, problem(error));
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, 150);
  });
  draw(first);
});
