"""The SDK: `Client`, `AsyncClient` and what they share, over protocol version 2.

Read in this order: `core` (every decision, no sockets), `questions` (arguments
to requests, replies to results), `surface` (the methods of a blocking client),
then the drivers `blocking` and `aio` and their subscriptions.

            surface ──────────┐
    Client ─┘                 ├─ questions, checks, outcomes
    AsyncClient ──────────────┘
      │
      └─ core: Call ─ retry, routing, sessions

Nothing here needs anything but the standard library.
"""
