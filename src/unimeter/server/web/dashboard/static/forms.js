// Pieces of forms, and how a refusal is shown beside the field it is about.

import { fill, h } from "./dom.js";
import { problem, say } from "./page.js";

let last = 0;

export function field(label, input, hint) {
  input.id ||= `field-${++last}`;
  const help = hint && h("small", { id: `${input.id}-hint` }, hint);
  if (help) input.setAttribute("aria-describedby", help.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, help);
}

export const choose = (name, options, value) =>
  h("select", { name }, options.map(([key, label]) => h("option", { value: key, selected: key === value }, label)));

export const entry = (name, props) => h("input", { name, autocomplete: "off", spellcheck: "false", ...props });

export function tick(name, label) {
  const input = h("input", { type: "checkbox", name });
  input.id = `field-${++last}`;
  return h("span", null, input, h("label", { for: input.id }, label));
}

// Run an action of a button: disabled meanwhile, and what went wrong is said in `place`.
export async function act(button, place, work) {
  button.disabled = true;
  fill(place);
  try {
    return await work();
  } catch (error) {
    fill(place, problem(error));
    say(error.message);
    return undefined;
  } finally {
    button.disabled = false;
  }
}

// A button that asks once more before it does what can't be undone.
export function sure(label, question, work, kind = "small danger") {
  const place = h("span", { class: "badges" });
  const first = h("button", { type: "button", class: kind, on: { click: ask } }, label);
  function ask() {
    const yes = h("button", { type: "button", class: kind, on: { click: () => work(yes) } }, question);
    const no = h("button", { type: "button", class: "small", on: { click: back } }, "No");
    fill(place, yes, no);
    yes.focus();
  }
  function back() {
    fill(place, first);
    first.focus();
  }
  fill(place, first);
  return place;
}
