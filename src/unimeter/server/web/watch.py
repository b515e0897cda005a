"""What the HTTP side is asked for, by route: counts, seconds, bytes; the access log; spans.

Owns the wrapper around each route's application, in which all of that is measured:

    router ─> Watched(route) ─> who, may they, handler ─> answer
              └ in flight, bytes both ways, status, seconds

The label is the pattern of the endpoint (``/v1/metrics/{code}``), never the URL, so the number
of lines is bounded by the number of routes and no customer's name is in a scrape. What no route
was found for is counted under the route ``none``.

The time of a request ends with its answer's last byte. An answer that is meant to last
(server-sent events) is counted and not timed: how long a page was open is no latency.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unimeter.keys import without_tokens
from unimeter.server.log import Notice
from unimeter.server.metrics.http import NO_ROUTE
from unimeter.server.statistics import Histogram
from unimeter.server.web.gateway import WAY

if TYPE_CHECKING:
    from unimeter.server.server import Server
    from unimeter.server.web.endpoint import Endpoint

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0)
LASTING = b"text/event-stream"
OTLP = "/v1/otlp/"  # routes whose events are counted apart
NO_ANSWER = "none"  # the client went away before there was one


class RouteCounts:
    """One route and method since the start."""

    __slots__ = ("bytes_in", "bytes_out", "in_flight", "method", "requests", "route", "seconds")

    def __init__(self, route: str, method: str) -> None:
        self.route, self.method = route, method
        self.requests: dict[str, int] = {}  # by class of status: 2xx
        self.seconds = Histogram(SECONDS_BOUNDS)
        self.in_flight = self.bytes_in = self.bytes_out = 0

    def note(self, status: int) -> None:
        """A request has ended; status 0: without an answer."""
        kind = f"{status // 100}xx" if status else NO_ANSWER
        self.requests[kind] = self.requests.get(kind, 0) + 1


class Watch:
    """The counts of one site."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._routes: dict[tuple[str, str], RouteCounts] = {}
        self._no_route = RouteCounts(NO_ROUTE, NO_ROUTE)

    def around(self, endpoint: Endpoint, app: ASGIApp) -> ASGIApp:
        """`app`, watched as this endpoint."""
        key = (endpoint.path, endpoint.method)
        counts = self._routes.setdefault(key, RouteCounts(*key))

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            await self._serve(app, counts, scope, receive, send)

        return watched

    async def _serve(
        self, app: ASGIApp, counts: RouteCounts, scope: Scope, receive: Receive, send: Send
    ) -> None:
        clock = self.server.platform.monotonic
        exchange = _Exchange(counts, receive, send)
        tracing = self.server.tracing
        span = nullcontext() if tracing is None else tracing.http(counts.route, scope, exchange)
        if counts.route.startswith(OTLP):
            WAY.set("otlp")
        counts.in_flight += 1
        began = clock()
        try:
            with span:
                await app(scope, exchange.receive, exchange.send)
        finally:
            seconds = clock() - began
            counts.in_flight -= 1
            counts.note(exchange.status)
            if not exchange.is_lasting:
                counts.seconds.observe(seconds)
            if self.server.config.access_log:
                self.server.say(_access(counts, scope, exchange, seconds))

    def no_route(self, status: int) -> None:
        """A request for a path that nobody serves, or by a method that is not for it."""
        self._no_route.note(status)

    def seen(self) -> Iterator[RouteCounts]:
        """The routes that were asked for, by path and method."""
        for _, one in sorted(self._routes.items()):
            if one.requests or one.in_flight:
                yield one
        if self._no_route.requests:
            yield self._no_route

    def statistics(self) -> dict[str, int]:
        """All routes together."""
        routes = [*self._routes.values(), self._no_route]
        return {
            "http_requests": sum(sum(one.requests.values()) for one in routes),
            "http_in_flight": sum(one.in_flight for one in routes),
        }


class _Exchange:
    """One request and its answer, on their way through."""

    __slots__ = ("_counts", "_receive", "_send", "bytes_out", "is_lasting", "status")

    def __init__(self, counts: RouteCounts, receive: Receive, send: Send) -> None:
        self._counts, self._receive, self._send = counts, receive, send
        self.status = self.bytes_out = 0
        self.is_lasting = False

    async def receive(self) -> Message:
        """Pass on what came."""
        message = await self._receive()
        self._counts.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Pass on what goes."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.is_lasting = any(
                name == b"content-type" and value.startswith(LASTING)
                for name, value in message.get("headers", ())
            )
        else:
            size = len(message.get("body", b""))
            self.bytes_out += size
            self._counts.bytes_out += size
        await self._send(message)


def _access(counts: RouteCounts, scope: Scope, exchange: _Exchange, seconds: float) -> Notice:
    """One line: who, what, how it ended. The query is left out: a portal token may be in it."""
    path = without_tokens(scope["path"])  # somebody may name a key where an id belongs
    client = (scope.get("client") or ("unknown",))[0]
    fields: dict[str, Any] = {
        "client": client,
        "method": counts.method,
        "route": counts.route,
        "path": path,
        "status": exchange.status,
        "bytes": exchange.bytes_out,
        "seconds": round(seconds, 6),
    }
    text = f"{client} {counts.method} {path!a} {exchange.status} {seconds * 1000:.1f} ms"
    return Notice(text, event="http_request", **fields)
