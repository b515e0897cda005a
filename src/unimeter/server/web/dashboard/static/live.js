// The node's stream of changes (server-sent events), read by fetch: EventSource can't send a token.
// It is opened again after a break, with the last id, so that nothing is missed or seen twice.
// While nobody looks at the page it is closed: a browser has six connections to a host, and
// a stream in each of six forgotten tabs would leave none for the seventh.

const SILENT_MS = 40000; // the node says something every 15 s
const HIDDEN_MS = 5000; // out of sight for so long: closed

export function stream(path, { token, onEvent, onState = () => {} }) {
  let isClosed = false, last = "", wait = 250, abort = null;

  async function open() {
    abort = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (token) headers.Authorization = `Bearer ${token}`;
    if (last) headers["Last-Event-ID"] = last;
    const answer = await fetch(path, { headers, signal: abort.signal, cache: "no-store" });
    if (!answer.ok) throw Object.assign(new Error(`status ${answer.status}`), { status: answer.status });
    onState("live");
    wait = 250;
    await readAll(answer.body.pipeThrough(new TextDecoderStream()).getReader());
  }

  async function readAll(reader) {
    let rest = "", timer;
    for (;;) {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENT_MS);
      const { value, done } = await reader.read();
      clearTimeout(timer);
      if (done) return;
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) take(block);
    }
  }

  function take(block) {
    let name = "message", id = null;
    const data = [];
    for (const line of block.split("\n")) {
      const at = line.indexOf(":");
      if (at <= 0) continue;
      const value = line.slice(at + 1).replace(/^ /, "");
      if (line.startsWith("event:")) name = value;
      else if (line.startsWith("id:")) id = value;
      else if (line.startsWith("data:")) data.push(value);
    }
    if (id !== null) last = id;
    if (data.length) onEvent(name, JSON.parse(data.join("\n")));
  }

  const seen = () => new Promise((resolve) => {
    if (!document.hidden) resolve();
    else document.addEventListener("visibilitychange", () => resolve(), { once: true });
  });

  let hiding = null;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => abort?.abort(), HIDDEN_MS);
  });

  // A page that is left may be kept for the way back, with its stream: then it goes on from there.
  window.addEventListener("pagehide", () => abort?.abort());

  async function run() {
    while (!isClosed) {
      await seen();
      try {
        await open();
      } catch (error) {
        if (error.status === 401 || error.status === 403) {
          onState("refused");
          return;
        }
      }
      if (isClosed) return;
      onState("lost");
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random())));
      wait = Math.min(wait * 2, 8000);
    }
  }

  run();
  return () => {
    isClosed = true;
    if (abort) abort.abort();
  };
}
