"""What a stream asks for, what it is given, and where it goes on after a loss.

Owns the part of a stream that needs no waiting, so that blocking and asyncio streams agree to
the letter: the request that resumes, which pushes are new, and which were seen before.

    AlertFeed   positions of alerts                      client.alerts.subscribe
    WatchFeed   a place: alert position, log index       client.watch

`request()` goes on behind what was *received*; what was handed out is the stream's to know, and
each item comes with the place that holds once it was handled.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from unimeter.types import AlertRecord, Overflow, TotalChange, from_ns
from unimeter.wire import v2
from unimeter.wire.framer import ResponseFrame
from unimeter.wire.messages import (
    AlertPush,
    AlertPushEnable,
    AlertPushReply,
    PacketType,
    Request,
    Response,
    TotalPush,
    TotalPushKind,
    Watch,
    WatchReply,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Change = AlertRecord | TotalChange | Overflow
"""What a watch hands out."""


class Feed(Protocol, Generic[T_co]):
    """One stream's memory."""

    pushes: frozenset[int]
    """Packet types of its pushes."""

    def request(self) -> Request:
        """What to ask of a node: what follows everything received."""

    @property
    def is_from_now(self) -> bool:
        """Whether no place is known yet: the server's answer says where "now" is."""

    def confirmed(self, response: Response) -> Any:
        """Take the answer to the request: the place that it names, None if it is no answer."""

    def take(self, frame: ResponseFrame, address: str) -> tuple[T_co, Any] | None:
        """A push: (item, place that holds once it was handled); None if it is nothing new."""

    @property
    def place(self) -> Any:
        """Where the stream stands once everything received was handled."""


class AlertFeed:
    """Alerts, by position."""

    pushes = frozenset([int(PacketType.ALERT_PUSH)])

    def __init__(self, request: AlertPushEnable) -> None:
        self._request = request
        self.place = request.after or 0

    def request(self) -> AlertPushEnable:
        """`after` is None only as long as no server has said where "now" is."""
        if self._request.after is None:
            return self._request
        return replace(self._request, after=self.place)

    @property
    def is_from_now(self) -> bool:
        """Whether no place is known yet."""
        return self._request.after is None

    def confirmed(self, response: Response) -> int | None:
        """The server says behind which alert it begins."""
        if not isinstance(response, AlertPushReply):
            return None
        self._moved(response.after)
        return response.after

    def take(self, frame: ResponseFrame, address: str) -> tuple[AlertRecord, int] | None:
        """An alert, unless it was received before."""
        push = v2.decode_push(frame.status, frame.payload)[1]
        assert isinstance(push, AlertPush)
        if push.alert.position <= self.place:
            return None
        self._moved(push.alert.position)
        return push.alert.record(address), self.place

    def _moved(self, position: int) -> None:
        self.place = max(self.place, position)
        self._request = replace(self._request, after=self.place)


class WatchFeed:
    """Alerts and changed totals."""

    pushes = frozenset([int(PacketType.ALERT_PUSH), int(PacketType.TOTAL_PUSH)])

    def __init__(self, request: Watch) -> None:
        self._request = request

    @property
    def place(self) -> str:
        """As text, which `client.watch(after=...)` takes."""
        request = self._request
        if request.entry is None:
            return "" if request.after is None else str(request.after)
        return f"{request.after}.{request.entry}"

    def request(self) -> Watch:
        """Without a place only as long as no server has given one."""
        return self._request

    @property
    def is_from_now(self) -> bool:
        """Whether no place is known yet."""
        return self._request.entry is None

    def confirmed(self, response: Response) -> str | None:
        """The server says where the stream begins."""
        if not isinstance(response, WatchReply):
            return None
        self._moved(response.after, response.entry)
        return f"{response.after}.{response.entry}"

    def take(self, frame: ResponseFrame, address: str) -> tuple[Change, str] | None:
        """An alert that was not received before, a total, or an overflow."""
        position, push = v2.decode_push(frame.status, frame.payload)
        if isinstance(push, AlertPush):
            if push.alert.position <= (self._request.after or 0):
                return None
            self._moved(push.alert.position, 0)
            return push.alert.record(address), self.place
        assert isinstance(push, TotalPush)
        self._moved(push.after, push.entry)
        if push.kind == TotalPushKind.PLACE:
            return None
        if push.kind == TotalPushKind.OVERFLOW:
            return Overflow(push.entry), self.place
        return _change(push, position), self.place

    def _moved(self, after: int, entry: int) -> None:
        known = self._request
        after, entry = max(known.after or 0, after), max(known.entry or 0, entry)
        self._request = replace(known, after=after, entry=entry)


def _change(push: TotalPush, position: int) -> TotalChange:
    return TotalChange(
        account_id=push.account,
        metric_code=push.metric_code,
        agg_type=push.agg_type,
        value=push.value,
        period_start=from_ns(push.start_ns),
        period_end=from_ns(push.end_ns),
        position=position,
    )
