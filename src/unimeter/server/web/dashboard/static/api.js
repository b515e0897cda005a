// Asking the node. A refusal becomes a NodeError with the node's own words.

export class NodeError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the node answered ${status}`);
    this.status = status;
    this.kind = String(problem.type || "").split(":").pop();
    this.faults = problem.errors || [];
  }
}

export async function ask(path, { method = "GET", body, token, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-Unimeter-Request"] = "1";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, {
      method, headers, signal, cache: "no-store",
      body: body === undefined ? undefined : json(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new NodeError(0, { detail: "the node does not answer" });
  }
  const found = answer.status === 204 ? null : await read(answer);
  if (answer.ok) return found;
  if (answer.status === 401 && !token && document.body.dataset.view !== "login") leaveForLogin();
  throw new NodeError(answer.status, found || {});
}

// JSON in which a BigInt is an integer of all its digits.
export function json(value) {
  const marked = JSON.stringify(value, (_, item) => (typeof item === "bigint" ? `\0${item}\0` : item));
  return marked.replace(/"\\u0000(-?[0-9]+)\\u0000"/g, "$1");
}

async function read(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text);
  } catch {
    return { detail: text.slice(0, 300) };
  }
}

function leaveForLogin() {
  location.replace(`/ui/login?next=${encodeURIComponent(location.pathname + location.search)}`);
}
