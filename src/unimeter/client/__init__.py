"""The SDK: `Client`, `AsyncClient` and what they share, over protocol version 2.

Read in this order: `core` (every decision, no sockets), `questions` (arguments
to requests, replies to results), `surface` (the methods; `async_surface` is the
same with `await`), then the drivers `blocking` and `aio` and their streams.

    surface        <── Client ──────> pool ── transport      alert_stream
    async_surface  <── AsyncClient ─> streams                subscription
         │                  │
         └ questions        └ core: Call ─ retry, routing, sessions
           checks             outcomes

Nothing here needs anything but the standard library.
"""
