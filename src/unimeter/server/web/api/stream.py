"""GET /v1/stream: alerts and changed totals as server-sent events.

    retry: 1000

    event: hello
    id: 17.0
    data: {"node":1,"position":4711,"unknown":[]}

    event: total
    id: 17.4711
    data: {"account":"acme","metric":"tokens","aggregation":"sum","value":12, ...}

    event: alert                event: overflow                 : heartbeat
    id: 18.4711                 data: {"position":4720}         id: 18.4720
    data: {"position":18, ...}

Owns the text of the events and the connection: one chunk of bounded size is on its way to a
reader, and the next is made when it was taken. What the events are, and when they come, is
`server.watcher` and `server.pumps`. The id is that stream's place; a browser sends the last one
back by itself (``Last-Event-ID``) and goes on from there, at whichever node it comes to.

A stream of somebody who may see one account or some metrics is about these, also where the
request names none. It ends when its key is revoked or its token expires.

Rejected: a WebSocket. It needs a protocol of our own on both sides for what the browser does
here by itself: connecting again, and resuming.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from unimeter.accounts import parse_account
from unimeter.instants import format_ns
from unimeter.keys import Scope
from unimeter.limits import STREAM_NAMES_MAX, STREAM_PAIRS_MAX
from unimeter.server.live import Interest, Total, interest_of
from unimeter.server.pumps import Pumps
from unimeter.server.watcher import Batch, Place, Watcher
from unimeter.server.web.alert_cells import alert_object
from unimeter.server.web.answers import exact
from unimeter.server.web.api import params
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Param
from unimeter.server.web.problems import bad
from unimeter.types import Account
from unimeter.wire.messages import AlertRow

CONTENT_TYPE: Final = "text/event-stream"
CONTENT_JSON: Final = "application/json"
HEADERS: Final = {
    "Content-Type": f"{CONTENT_TYPE}; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy that gathers would hold up every event
}
RETRY_MS: Final = 1000  # how long a browser waits before it connects again
INTERVAL_MS_MAX: Final = 60_000
ALERT_FORMS_MAX: Final = 4096  # alerts kept as JSON for the next stream that sends them
_PLACE: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?")
_encode = msgspec.json.Encoder().encode


async def stream(call: Call) -> Response:
    """Open a stream."""
    interest = _interest(call)
    place, after = _place(call)
    interval = call.integer("interval_ms", 0, 0, INTERVAL_MS_MAX) / 1000
    wants_alerts = _flag(call, "alerts")
    if not wants_alerts and not interest.totals:
        raise bad("totals", "is false, and alerts too: nothing is left", "one of them")
    return EventStream(call, interest, wants_alerts, place, after, interval)


def _interest(call: Call) -> Interest:
    """What the request asks for, within what the caller may see."""
    principal = call.principal
    accounts = [parse_account(text) for text in _names(call, "account")]
    metrics = _names(call, "metric")
    if not accounts and principal.account is not None:
        accounts = [principal.account]
    if not metrics and principal.metrics is not None:
        metrics = sorted(principal.metrics)
    one_account: list[Account | None] = [*accounts] or [None]
    one_metric: list[str | None] = [*metrics] or [None]
    for account in one_account:
        for metric in one_metric:
            principal.check_sees(account, metric)
    if len(accounts) * max(1, len(metrics)) > STREAM_PAIRS_MAX:
        expected = f"at most {STREAM_PAIRS_MAX} pairs of an account and a metric"
        raise bad("account", f"are {len(accounts)}, with {len(metrics)} metrics", expected)
    return interest_of(accounts, metrics, totals=_flag(call, "totals"))


def _names(call: Call, name: str) -> list[str]:
    found = call.texts(name)
    if len(found) > STREAM_NAMES_MAX:
        raise bad(name, f"is given {len(found)} times", f"at most {STREAM_NAMES_MAX}")
    return found


def _flag(call: Call, name: str) -> bool:
    """A parameter that is true unless it says false."""
    return params.flag(call, name) if call.text(name, "") else True


def _place(call: Call) -> tuple[Place | None, int | None]:
    """Where to go on: a whole place, or an alert's position alone, or neither."""
    name, text = "Last-Event-ID", call.request.headers.get("last-event-id", "")
    if not text:
        name, text = "after", call.text("after", "")
    if not text:
        return None, None
    match = _PLACE.fullmatch(text)
    if match is None:
        raise bad(name, f"is {text[:40]!r}", "the id of an event of a stream, such as 17.4711")
    after, index = match.groups()
    return (None, int(after)) if index is None else (Place(int(after), int(index)), None)


class EventStream(Response):
    """One open stream: the sink of its watcher, and the answer that never ends by itself."""

    def __init__(
        self,
        call: Call,
        interest: Interest,
        wants_alerts: bool,
        place: Place | None,
        after: int | None,
        interval: float,
    ) -> None:
        super().__init__(None, 200, HEADERS)
        del self.headers["content-length"]
        self._call = call
        self._clock = call.site.server.platform.monotonic
        self._pumps: Pumps = call.site.server.clients.pumps
        self._pending = b""
        self._is_sending = True  # the head
        self._is_over = False
        self._news = asyncio.Event()
        self._watcher: Watcher = self._pumps.open(
            self,
            interest,
            wants_alerts=wants_alerts,
            place=place,
            after=after,
            interval=interval,
        )

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Send events until the reader goes away or the node ends the stream."""
        listening = asyncio.ensure_future(self._listen(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._hello(), "more_body": True})
            await self._send_all(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._pumps.close(self._watcher)
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    async def _send_all(self, send: Send) -> None:
        while True:
            self._is_sending = False
            self._pumps.ready(self._watcher)
            await self._news.wait()
            self._news.clear()
            if self._is_over:
                return
            self._is_sending = True
            data, self._pending = self._pending, b""
            began = self._clock()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            # Waiting for a slow reader costs nothing; it is not told from work, so it is bounded.
            self._pumps.spent(min(self._clock() - began, 0.001))

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()

    # --- the watcher's sink ------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the chunk before was taken."""
        return not (self._is_sending or self._pending or self._is_over)

    def send(self, batch: Batch) -> None:
        """Take a batch as one chunk."""
        pieces = [
            b"event: alert\nid: %d.%d\ndata: %b\n\n"
            % (alert.position, batch.before.entry, self._alert(alert))
            for alert in batch.alerts
        ]
        for total, place in batch.placed():
            pieces.append(b"event: total\nid: %d.%d\ndata: %b\n\n" % (*place, total_json(total)))
        if batch.overflow:
            data = _encode({"position": batch.place.entry})
            pieces.append(b"event: overflow\nid: %d.%d\ndata: %b\n\n" % (*batch.place, data))
        self._give(b"".join(pieces))

    def _alert(self, alert: AlertRow) -> bytes:
        """The data of an alert, made once for all who get it."""
        forms = self._pumps.live.alert_forms
        found = forms.get(alert.position)
        if found is None:
            if len(forms) >= ALERT_FORMS_MAX:
                forms.clear()
            found = forms[alert.position] = _encode(exact(alert_object(alert)))
        return found

    def beat(self, place: Place) -> None:
        """A comment, so that both sides know that the other is there."""
        self._give(b": heartbeat\nid: %d.%d\n\n" % place)

    def check(self) -> bool:
        """Whether the key or the token still opens this."""
        call = self._call
        return call.site.server.auth.is_good(call.principal)

    def end(self) -> None:
        """Nothing more is sent."""
        self._is_over = True
        self._news.set()

    def _give(self, data: bytes) -> None:
        self._pending = data
        self._news.set()

    def _hello(self) -> bytes:
        node = self._call.site.server.node
        known = node.machine.catalog.by_code
        unknown = [
            code for code in self._watcher.topic.interest.metrics if code.encode() not in known
        ]
        data = {"node": node.node_id, "position": node.machine.applied, "unknown": unknown}
        place = self._watcher.place
        return b"retry: %d\n\nevent: hello\nid: %d.%d\ndata: %b\n\n" % (
            RETRY_MS, *place, _encode(data),
        )  # fmt: skip


def total_json(total: Total) -> bytes:
    """The data of a total, made once for all who get it."""
    found = total.forms.get("json")
    if found is None:
        found = total.forms["json"] = _encode(exact(total_object(total)))
    return found


def total_object(total: Total) -> dict[str, Any]:
    """The JSON object of a total; large integers are still integers (see `answers.exact`)."""
    value = total.value
    return {
        "account": total.account,
        "metric": total.metric_code,
        "aggregation": total.agg.name.lower(),
        "value": value.number(total.agg),
        "count": value.count,
        "sum": value.sum,
        "min": value.min,
        "max": value.max,
        "last": value.last_value,
        "start": _time(total.start_ns),
        "end": _time(total.end_ns),
        "alert_flags": value.alert_flags,
        "position": total.position,
    }


@functools.lru_cache(1024)
def _time(ns: int) -> str:
    """A bound of a billing period: there are few of them."""
    return format_ns(ns)


_NAMES: Final = {"type": "array", "items": {"type": "string"}, "maxItems": STREAM_NAMES_MAX}
_YES: Final = {"type": "boolean", "default": True}
_EVENT: Final = {
    "type": "object",
    "description": "Each event; `data` is JSON.",
    "required": ["id"],
    "properties": {
        "event": {"type": "string", "enum": ["hello", "total", "alert", "overflow"]},
        "id": {"type": "string", "description": "where to go on: Last-Event-ID"},
        "data": {"type": "string", "contentMediaType": CONTENT_JSON},
    },
}
_TEXT: Final = "The id of the last event that was seen; a browser sends it by itself."

ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/stream",
        stream,
        Scope.READ,
        "Alerts and changed totals as they happen",
        description=(
            "Server-sent events. `total` comes when the total of the current billing period has "
            "changed, coalesced to a rate that the reader takes; `alert` once for each alert, in "
            "order; `overflow` says that more totals changed than were kept: read them again. A "
            "stream that is resumed goes on after the id that it names."
        ),
        tag="live",
        params=(
            Param("account", "Only of these accounts.", _NAMES, example=["acme"]),
            Param("metric", "Only of these metrics.", _NAMES, example=["api_calls"]),
            Param("alerts", "Whether alerts are sent.", _YES),
            Param("totals", "Whether changed totals are sent.", _YES),
            Param(
                "interval_ms",
                "The least time between two batches.",
                {"type": "integer", "minimum": 0, "maximum": INTERVAL_MS_MAX, "default": 0},
            ),
            Param("after", f"{_TEXT} Or the position of an alert alone."),
            Param("Last-Event-ID", _TEXT, where="header"),
        ),
        answers={200: {"content": {CONTENT_TYPE: {"schema": _EVENT}}}},
        takes_portal=True,
    ),
]
