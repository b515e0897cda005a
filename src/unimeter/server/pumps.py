"""When each stream is served, and what all of them together may cost.

Owns the turn of the streams: a queue of watchers that have something new and whose readers
have taken what they had. A turn sorts in what changed (`live.drain`), then serves watchers for
SLICE_SECONDS; what that cost, and what the sinks say that writing cost, decides when the next
turn is, so that all streams together take SHARE of the loop's time, however many there are.

    changed ─> turn: drain, serve a slice ─> pause = cost / SHARE, at least INTERVAL_SECONDS
                          └─ reader busy: left out until it has taken its batch (`ready`)

With a few streams the pause is the least one and a change is told within it; with a thousand
busy ones each is served less often, gets the newest totals, and ingest does not notice. Alerts
that wait meanwhile are in the engine.

Once a second, while anybody watches: heartbeats, readers whose key is gone, billing periods
that ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

from unimeter.errors import BackpressureError
from unimeter.limits import STREAMS_MAX
from unimeter.server.live import Interest, Live
from unimeter.server.node import Node
from unimeter.server.platform import Platform
from unimeter.server.watcher import Sink, Watcher

SHARE = 0.02  # of the loop's time
INTERVAL_SECONDS = 0.025  # between two turns: what a page can show
SLICE_SECONDS = 0.001  # of serving in one turn; ingest waits for no longer
HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 1.0


class Pumps:
    """All streams of one node's event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, platform: Platform) -> None:
        self.loop, self._clock = loop, platform.monotonic
        self.live: Live  # from `attach` on
        self._watchers: dict[Watcher, None] = {}
        self._due: dict[Watcher, None] = {}
        self._is_changed = False
        self._handle: asyncio.TimerHandle | None = None
        self._look_handle: asyncio.TimerHandle | None = None
        self._next = 0.0  # when the next turn may be
        self._spent = 0.0  # by sinks, since the last turn
        self._is_closed = False
        self.turns = self.batches = self.alerts_sent = self.totals_sent = self.overflows = 0
        self.seconds = 0.0

    def attach(self, node: Node) -> None:
        """There is a node to watch."""
        self.live = Live(node)
        self.live.want = self.ready

    # --- streams -------------------------------------------------------------------

    def open(self, sink: Sink, interest: Interest, **options: Any) -> Watcher:
        """Begin to serve a stream (see `Watcher`); BackpressureError if there are too many."""
        if len(self._watchers) >= STREAMS_MAX:
            raise BackpressureError(f"{STREAMS_MAX} streams are open here, the most", 5.0)
        if self._is_closed:
            raise BackpressureError("the node is stopping", 1.0)
        watcher = Watcher(self.live, sink, interest, **options)
        watcher.beat_at = self._clock() + HEARTBEAT_SECONDS
        self._watchers[watcher] = None
        if self._look_handle is None:
            self._look_handle = self.loop.call_later(LOOK_SECONDS, self._look)
        self.ready(watcher)
        return watcher

    def close(self, watcher: Watcher) -> None:
        """Serve a stream no more; may be repeated."""
        if watcher not in self._watchers:
            return
        del self._watchers[watcher]
        self._due.pop(watcher, None)
        watcher.close()

    def ready(self, watcher: Watcher) -> None:
        """The watcher may have something to send, and its sink can take it."""
        if watcher in self._watchers:
            self._due[watcher] = None
            self._wake()

    def spent(self, seconds: float) -> None:
        """A sink has used the loop for so long."""
        self._spent += seconds

    def end(self) -> None:
        """End every stream: the node stops or has failed."""
        self._is_closed = True
        for handle in (self._handle, self._look_handle):
            if handle is not None:
                handle.cancel()
        for watcher in list(self._watchers):
            self.close(watcher)
            watcher.sink.end()

    # --- what the node tells -----------------------------------------------------------

    def changed(self) -> None:
        """Totals may have changed, or alerts come to exist."""
        if self._watchers:
            self._is_changed = True
            self._wake()

    def rebuild(self, *, is_other_machine: bool) -> None:
        """There are other metrics, or all of the state is another."""
        if self._watchers:
            self.live.rebuild(is_other_machine=is_other_machine)
            self._due.update(self._watchers)
            self.changed()

    # --- turns ---------------------------------------------------------------------

    def _wake(self) -> None:
        if self._handle is None and not self._is_closed:
            delay = max(0.0, self._next - self._clock())
            self._handle = self.loop.call_later(delay, self._turn)

    def _turn(self) -> None:
        """One turn: what is new, and a slice of serving."""
        self._handle = None
        began = self._clock()
        # Once for the whole turn: each time may wait for a large entry that is being applied.
        with self.live.node.lock:
            if self._is_changed:
                self._is_changed = False
                for topic in self.live.drain():
                    self._due.update(topic.watchers)
                self._is_changed = self.live.has_more
            self._serve_some()
        cost, self._spent = self._clock() - began + self._spent, 0.0
        self.turns += 1
        self.seconds += cost
        self._next = began + max(INTERVAL_SECONDS, cost / SHARE)
        if self._due or self._is_changed:
            self._wake()

    def _serve_some(self) -> None:
        """Serve watchers for as long as one turn may."""
        now = self._clock()
        until = now + SLICE_SECONDS
        early: dict[Watcher, None] = {}  # had their last batch just now
        while self._due and now < until:
            watcher = next(iter(self._due))
            del self._due[watcher]
            if watcher.not_before > now:
                early[watcher] = None
            else:
                self._serve(watcher, now)
            now = self._clock()
        self._due.update(early)

    def _serve(self, watcher: Watcher, now: float) -> None:
        """Give one watcher what is new for it."""
        if not watcher.sink.is_ready:
            return  # `ready` is called when it is
        batch = watcher.collect()
        if batch:
            self.batches += 1
            self.alerts_sent += len(batch.alerts)
            self.totals_sent += len(batch.totals)
            self.overflows += batch.overflow
            watcher.beat_at = now + HEARTBEAT_SECONDS
            watcher.not_before = now + watcher.interval
            watcher.sink.send(batch)
        if watcher.has_more and watcher.sink.is_ready:
            self._due[watcher] = None

    def _look(self) -> None:
        """Once a second."""
        self._look_handle = None
        if not self._watchers:
            return
        self._look_handle = self.loop.call_later(LOOK_SECONDS, self._look)
        now = self._clock()
        for watcher in list(self._watchers):
            if not watcher.sink.check():
                self.close(watcher)
                watcher.sink.end()
            elif now >= watcher.beat_at and watcher.sink.is_ready:
                self._beat(watcher, now)
        if self.live.look_at_clock():
            self.changed()
        self.spent(self._clock() - now)

    def _beat(self, watcher: Watcher, now: float) -> None:
        watcher.beat_at = now + HEARTBEAT_SECONDS
        watcher.not_before = 0.0
        self._serve(watcher, now)
        if watcher.sink.is_ready:
            watcher.sink.beat(watcher.place)

    def statistics(self) -> dict[str, int]:
        """Streams, and what was sent to them."""
        return {
            "live_streams": len(self._watchers),
            "live_streams_due": len(self._due),
            "live_batches": self.batches,
            "live_alerts_sent": self.alerts_sent,
            "live_totals_sent": self.totals_sent,
            "live_overflows": self.overflows,
            "live_microseconds": int(self.seconds * 1e6),
            **(self.live.statistics() if self._watchers else {}),
        }
