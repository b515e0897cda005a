"""One stream's cursors: what it has been told, and what it is told next.

Owns the rule that makes a stream lose nothing and repeat nothing. A stream can be resumed from
two numbers, which every message carries as ``<after>.<index>``:

    after   the position of the last alert sent: exact, alerts are numbered without gaps
    index   the log index up to which every changed total was sent

Alerts come in order, each once. A total is an absolute value: one that was sent for an entry
may be sent again after a resume, never an older one than the reader has (`hold`: this node
first applies as much as the node before had). A stream that is resumed gets the totals of its
named pairs that changed since; where finding that out would cost too much, it gets them all.

    begins        first totals of the named pairs          index 0 until they are sent
    resumes       those that changed after `index`         index as given until they are sent
    goes on       those that changed since the last round

A round is gathered only when the one before was taken, so a slow reader has rounds further
apart and each has the newest values. `Batch` has bounds of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from unimeter import limits
from unimeter.errors import BackpressureError
from unimeter.server.handlers import alert_rows
from unimeter.server.live import Interest, Live, Pair, Topic, Total
from unimeter.wire.messages import AlertRow

ALERTS_PER_BATCH = 256
TOTALS_PER_BATCH = 512
RESUME_ENTRIES_MAX = 4096  # log entries read to find out what changed since; else all is sent
RESUME_PAIRS_MAX = 64  # each reads those entries
_WINDOW_BYTES = 64 * 1024


class Place(NamedTuple):
    """Where a stream stands: it goes on from here after a loss."""

    after: int
    entry: int

    def __str__(self) -> str:
        return f"{self.after}.{self.entry}"


@dataclass(slots=True)
class Batch:
    """What one stream is told at once, in this order: alerts, totals, overflow.

    `before` is the place that holds until all of it is sent, but for its alerts; `place` holds
    afterwards.
    """

    before: Place
    place: Place
    alerts: list[AlertRow] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)
    overflow: bool = False

    def __bool__(self) -> bool:
        return bool(self.alerts or self.totals or self.overflow)

    def placed(self) -> Iterator[tuple[Total, Place]]:
        """Each total with the place that holds once it is sent: that of all, with the last."""
        last = len(self.totals) - 1
        for number, total in enumerate(self.totals):
            is_all = number == last and not self.overflow
            yield total, self.place if is_all else self.before


class Sink(Protocol):
    """Where a stream's messages go."""

    @property
    def is_ready(self) -> bool:
        """Whether what was given before has been taken."""

    def send(self, batch: Batch) -> None:
        """Take a batch. Called only while ready."""

    def beat(self, place: Place) -> None:
        """Nothing is new: say that the stream is alive, and where it stands."""

    def check(self) -> bool:
        """Whether whoever reads may still read; looked at once a second."""

    def end(self) -> None:
        """Nothing more will come."""


class Watcher:
    """One stream."""

    __slots__ = (
        "_begins",
        "_is_scanning",
        "_joined",
        "_overflow",
        "_place_after",
        "_todo",
        "after",
        "beat_at",
        "has_more",
        "hold",
        "index",
        "interval",
        "live",
        "not_before",
        "seen",
        "sink",
        "topic",
        "wants_alerts",
    )

    def __init__(
        self,
        live: Live,
        sink: Sink,
        interest: Interest,
        *,
        wants_alerts: bool,
        place: Place | None = None,
        after: int | None = None,
        interval: float = 0.0,
    ) -> None:
        """Begin a stream, or with a `place` go on with one.

        `after` alone: alerts above that position and the totals from now on.
        """
        self.live, self.sink, self.wants_alerts = live, sink, wants_alerts
        self.interval, self.not_before, self.beat_at = interval, 0.0, 0.0
        self.topic: Topic = live.join(self, interest)
        last = live.node.last_alert
        self.after = place.after if place else last if after is None else after
        self.index = self.hold = place.entry if place else 0
        self.seen = live.tick
        self.has_more = False
        self._todo: deque[Pair] = deque()
        self._place_after = live.index  # the index once `_todo` is sent
        self._overflow = False
        self._is_scanning = False
        self._begins = interest.totals
        self._joined = live.node.machine.applied  # what came later is followed
        if not interest.totals:
            self.hold = 0
        elif place is None and not interest.accounts:
            self.index = self._joined  # there is nothing to begin with

    @property
    def wants_totals(self) -> bool:
        """Whether it is about totals too."""
        return self.topic.interest.totals

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.after, self.index)

    def close(self) -> None:
        """End it; may be repeated."""
        self.live.leave(self, self.topic)

    # --- one round -----------------------------------------------------------------

    def collect(self) -> Batch:
        """What is new, up to the bounds of a batch; `has_more` tells whether that was all."""
        before = self.place
        alerts = self._alerts() if self.wants_alerts else []
        before = Place(self.after, before.entry)
        self.has_more = len(alerts) == ALERTS_PER_BATCH or self._lags_in_alerts
        batch = Batch(before, before, alerts)
        if self.wants_totals and self.live.index >= self.hold:
            self._totals(batch)
        batch.place = self.place
        return batch

    @property
    def _lags_in_alerts(self) -> bool:
        return self.wants_alerts and self.after < self.live.alerts_through

    def _alerts(self) -> list[AlertRow]:
        """The next alerts above `after`, from the topic or, before it began, from the engine."""
        topic, live = self.topic, self.live
        if self.after < topic.alerts_from:
            with live.node.lock:
                rows, _ = alert_rows(live.node, self.after, ALERTS_PER_BATCH)
            assert rows, "an alert counted is an alert that can be read"
            self.after = rows[-1].position
            return [row for row in rows if topic.wants(row.account, row.metric_code)]
        found = []
        for row in topic.alerts:
            if row.position > self.after:
                found.append(row)
                if len(found) == ALERTS_PER_BATCH:
                    self.after = row.position
                    return found
        # One that this node has not heard of yet may have been sent by another.
        self.after = max(self.after, live.alerts_through)
        return found

    def _totals(self, batch: Batch) -> None:
        """The next totals that changed."""
        if self._begins:
            self._begins = False
            self._begin()
        if not self._todo and not self._is_scanning:
            changed, missed = self.topic.changed_since(self.seen)
            self._todo.extend(changed)
            self._overflow = self._overflow or missed
            self.seen, self._place_after = self.live.tick, self.live.index
        pairs = self.topic.pairs
        for _ in range(min(len(self._todo), TOTALS_PER_BATCH)):
            pair = self._todo.popleft()
            total = self.live.total(pair, pairs.get(pair, self.seen))
            if total is not None:
                batch.totals.append(total)
        if self._todo:
            self.has_more = True
        elif not self._is_scanning:
            batch.overflow, self._overflow = self._overflow, False
            self.index = max(self.index, self._place_after)

    # --- the first round -----------------------------------------------------------

    def _begin(self) -> None:
        """What a stream begins with, or what it missed."""
        live, topic = self.live, self.topic
        if not topic.interest.accounts:
            self._overflow = 0 < self.index < self._joined
            return  # what has changed since it joined is in the topic
        with live.node.lock:  # nothing is applied between what is known and what is followed
            self.seen, self._place_after = live.tick, live.index
            pairs = live.first_pairs(topic)
            position = live.node.machine.applied
            live.arm_all(topic)
        is_near = self.index and position - self.index <= RESUME_ENTRIES_MAX
        if not (is_near and len(pairs) <= RESUME_PAIRS_MAX and self._scan(pairs, position)):
            self._todo.extend(pairs)

    def _scan(self, pairs: list[Pair], position: int) -> bool:
        """Find out aside which of `pairs` changed after `index`; False if that can't be done."""
        node, first = self.live.node, self.index + 1
        starts = self.live.period_starts(code for _, code in pairs)

        def work() -> list[Pair]:
            then = next(iter(node.wal.read(first - 1, first - 1, _WINDOW_BYTES))).timestamp_ns
            return [
                pair
                for pair in pairs
                # Where another period has begun, the total is another one without an event.
                if starts.get(pair[1], 0) > then or _has_events(node.events, pair, first, position)
            ]

        self._is_scanning = True  # first: an inline host has the result before this returns
        try:
            node.host.aside(work, self._scanned(pairs))
        except BackpressureError:
            self._is_scanning = False
            return False
        return True

    def _scanned(self, pairs: list[Pair]) -> Callable[[Any], None]:
        def then(result: Any) -> None:
            self._is_scanning = False
            # An absolute value may be sent again; what can't be told apart is.
            self._todo.extend(pairs if isinstance(result, Exception) else result)
            self.live.want(self)

        return then


def _has_events(events: Any, pair: Pair, first: int, position: int) -> bool:
    """Whether an event of `pair` was counted in the entries ``[first, position]``."""
    start, end = limits.TIMESTAMP_NS_MIN, limits.TIMESTAMP_NS_MAX
    return next(iter(events.rows(*pair, start, end, first, position)), None) is not None
