// What every page has: the theme, the menu, keys, what is said aloud, and how data is loaded.

import { ask, NodeError } from "./api.js";
import { fill, h, text } from "./dom.js";

export const main = document.getElementById("main");

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const listeners = [];

export const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
export const onTheme = (listener) => listeners.push(listener);

function themed() {
  const button = document.getElementById("theme");
  if (button) text(button, isDark() ? "Light" : "Dark");
  for (const listener of listeners) listener();
}

function toggleTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  try {
    localStorage.setItem("unimeter-theme", root.dataset.theme);
  } catch {
    // kept for this page only
  }
  themed();
}

function toggleMenu() {
  const menu = document.getElementById("menu");
  const isOpen = menu.getAttribute("aria-expanded") === "true";
  menu.setAttribute("aria-expanded", String(!isOpen));
  document.getElementById("nav").classList.toggle("open", !isOpen);
  return !isOpen;
}

function pressed(event) {
  const at = event.target;
  const isTyping = at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName);
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const find = document.getElementById("q") || document.getElementById("find");
    if (!find) return;
    event.preventDefault();
    const menu = document.getElementById("menu");
    if (find.id === "find" && !find.checkVisibility() && menu) toggleMenu();
    find.focus();
    find.select();
  } else if (event.key === "Escape" && isTyping && at.type === "search") {
    at.blur();
  }
}

function markCurrent() {
  const here = location.pathname;
  for (const link of document.querySelectorAll("nav[aria-label=Dashboard] a")) {
    const path = link.getAttribute("href");
    if (path === "/" ? here === "/" : here === path || here.startsWith(`${path}/`)) {
      link.setAttribute("aria-current", here === path ? "page" : "true");
    }
  }
}

export function start() {
  dark.addEventListener("change", themed);
  document.addEventListener("keydown", pressed);
  document.getElementById("theme")?.addEventListener("click", toggleTheme);
  document.getElementById("menu")?.addEventListener("click", toggleMenu);
  document.getElementById("leave")?.addEventListener("click", signOut);
  const leave = document.getElementById("leave");
  if (leave) leave.hidden = !isSignedIn();
  markCurrent();
  themed();
}

function isSignedIn() {
  try {
    return localStorage.getItem("unimeter-signed-in") === "1";
  } catch {
    return false;
  }
}

export function signedIn(value) {
  try {
    if (value) localStorage.setItem("unimeter-signed-in", "1");
    else localStorage.removeItem("unimeter-signed-in");
  } catch {
    // then there is no button to sign out; the session ends by itself
  }
}

async function signOut() {
  await ask("/v1/session", { method: "DELETE" }).catch(() => {});
  signedIn(false);
  location.assign("/ui/login");
}

// Said to a screen reader.
export function say(sentence) {
  text(document.getElementById("say"), sentence);
}

export function pulse(state) {
  const element = document.getElementById("pulse");
  if (!element) return;
  element.dataset.state = state;
  text(element, { live: "Live", lost: "Reconnecting", refused: "Not live", stale: "No answer" }[state] || "");
}

export function problem(error) {
  const words = error instanceof NodeError ? `The node says: ${error.message}` : `This page failed: ${error.message}`;
  const faults = (error.faults || []).filter((fault) => !error.message.includes(fault.reason));
  return h("div", { class: "notice bad", role: "alert" },
    h("p", null, words),
    faults.length > 0 && h("ul", null, faults.map((fault) => h("li", null, `${fault.path}: ${fault.reason}`))));
}

// The view's own data: the twin of this page's address.
export function twin(extra) {
  const path = location.pathname === "/" ? "/overview" : location.pathname;
  const query = new URLSearchParams(location.search);
  query.delete("page");
  query.delete("theme");
  for (const [name, value] of Object.entries(extra || {})) query.set(name, value);
  const asked = String(query);
  return `${path}.json${asked ? `?${asked}` : ""}`;
}

// Links to the twins, at the foot of each view.
export function twins() {
  const path = twin().replace(/\.json(\?|$)/, ".csv$1");
  return h("p", { class: "twins" }, "This view as ",
    h("a", { href: twin() }, "JSON"), " or ", h("a", { href: path }, "CSV"), ". Times are UTC.");
}

export function head(title, lead, ...actions) {
  return h("div", { class: "head" },
    h("div", null, h("h1", null, title), lead && h("p", { class: "lead" }, lead)),
    actions.length > 0 && h("div", { class: "actions" }, actions));
}

export function empty(title, ...lines) {
  return h("div", { class: "empty" }, h("h2", null, title), lines.map((line) => h("p", null, line)));
}

// How long to wait before asking again: twenty times as long as the answer took, so that pages
// ask a busy node for less.
export const patience = (least, took) => Math.min(15000, Math.max(least, 20 * took));

// Run `work` every so often while the page is looked at.
export async function every(ms, work) {
  for (;;) {
    const began = performance.now();
    try {
      await work();
      pulse("live");
    } catch {
      pulse("stale");
    }
    await new Promise((resolve) => setTimeout(resolve, patience(ms, performance.now() - began)));
    while (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    }
  }
}

// Load the view's data and show it, or what the node said.
export async function show(render, path = twin()) {
  start();
  try {
    const found = await ask(path);
    await render(found);
    document.body.dataset.ready = "1";
    return found;
  } catch (error) {
    fill(main, head(document.title.split(" · ")[0]), problem(error));
    document.body.dataset.ready = "failed";
    // A node that starts, or that is not there just now: look again.
    if (error.status === 0 || error.status === 503) setTimeout(() => location.reload(), 3000);
    return null;
  }
}
