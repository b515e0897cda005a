"""When streams are served and what they may cost, on a clock and a loop that the test turns."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.test_live import Meter

from unimeter.errors import BackpressureError
from unimeter.server import pumps
from unimeter.server.live import interest_of
from unimeter.server.pumps import INTERVAL_SECONDS, SHARE, SLICE_SECONDS, Pumps
from unimeter.server.watcher import Batch, Place, Watcher


class Handle:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clockwork:
    """A loop and a platform whose time is the test's; work takes what `cost` says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.busy = 0.0
        self._timers: list[tuple[float, int, Handle, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        handle = Handle()
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), handle, callback))
        return handle

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.busy += seconds

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            due, _, handle, callback = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            if not handle.is_cancelled:
                callback()
        self.now = max(self.now, until)


class Sink:
    """A reader whose every batch costs the loop something."""

    def __init__(self, clock: Clockwork, cost: float = 0.0) -> None:
        self.clock, self.cost = clock, cost
        self.is_ready = True
        self.may = True
        self.batches: list[tuple[float, Batch]] = []
        self.beats: list[tuple[float, Place]] = []
        self.ended = 0

    def send(self, batch: Batch) -> None:
        assert self.is_ready
        self.clock.work(self.cost)
        self.batches.append((self.clock.now, batch))

    def beat(self, place: Place) -> None:
        self.beats.append((self.clock.now, place))

    def check(self) -> bool:
        return self.may

    def end(self) -> None:
        self.ended += 1

    def values(self) -> list[int]:
        return [total.value.sum for _, batch in self.batches for total in batch.totals]


class Pumped:
    """A meter in memory with its pumps."""

    def __init__(self) -> None:
        self.clock = Clockwork()
        self.meter = Meter("m")
        clock: Any = self.clock
        self.pumps = Pumps(clock, clock)
        self.pumps.attach(self.meter.node)
        self.meter.node.host.on_changed = lambda kind: self.pumps.changed()  # type: ignore[attr-defined]

    def open(self, accounts: list[int], cost: float = 0.0, **options: Any) -> tuple[Sink, Watcher]:
        sink = Sink(self.clock, cost)
        interest = interest_of(accounts, ["m"], totals=True)
        return sink, self.pumps.open(sink, interest, wants_alerts=True, **options)


def test_a_change_is_told_at_once_and_the_next_ones_after_the_interval() -> None:
    pumped = Pumped()
    sink, _ = pumped.open([1])
    pumped.clock.run(1.0)
    pumped.meter.send((1, "m", 1))
    began = pumped.clock.now
    for _ in range(10):
        pumped.clock.run(INTERVAL_SECONDS / 20)
        pumped.meter.send((1, "m", 1))
    pumped.clock.run(1.0)
    assert sink.values() == [0, 1, 11]
    assert sink.batches[1][0] == began
    assert sink.batches[2][0] == pytest.approx(began + INTERVAL_SECONDS)


def test_all_streams_together_take_their_share_and_each_has_its_turn() -> None:
    pumped = Pumped()
    cost = SLICE_SECONDS / 4
    sinks = [pumped.open([n], cost)[0] for n in range(100)]
    pumped.clock.run(20.0)
    pumped.clock.busy = 0.0
    before = [len(sink.batches) for sink in sinks]
    began = pumped.clock.now
    while pumped.clock.now < began + 60.0:
        pumped.meter.send(*((n, "m", 1) for n in range(100)))
        pumped.clock.run(0.01)
    share = pumped.clock.busy / (pumped.clock.now - began)
    assert 0.8 * SHARE < share <= 1.05 * SHARE
    served = [len(sink.batches) - count for sink, count in zip(sinks, before, strict=True)]
    assert max(served) - min(served) <= 2 and min(served) > 10
    pumped.clock.run(20.0)
    assert len({sink.values()[-1] for sink in sinks}) == 1


def test_what_sinks_say_that_writing_cost_is_counted() -> None:
    pumped = Pumped()
    sink, _ = pumped.open([1])
    pumped.clock.run(1.0)
    pumped.pumps.spent(0.02)
    pumped.meter.send((1, "m", 1))
    pumped.clock.run(0.0)
    assert sink.values() == [0, 1]
    pumped.meter.send((1, "m", 1))
    pumped.clock.run(0.02 / SHARE - 0.01)
    assert sink.values() == [0, 1]
    pumped.clock.run(0.02)
    assert sink.values() == [0, 1, 2]


def test_a_busy_reader_is_left_out_until_it_is_ready_and_then_gets_the_newest() -> None:
    pumped = Pumped()
    slow, watcher = pumped.open([1])
    brisk, _ = pumped.open([1])
    pumped.clock.run(1.0)
    slow.is_ready = False
    for _ in range(5):
        pumped.meter.send((1, "m", 1))
        pumped.clock.run(0.1)
    assert slow.values() == [0] and brisk.values() == [0, 1, 2, 3, 4, 5]
    slow.is_ready = True
    pumped.pumps.ready(watcher)
    pumped.clock.run(0.1)
    assert slow.values() == [0, 5]


def test_a_stream_can_ask_for_fewer_messages() -> None:
    pumped = Pumped()
    sink, _ = pumped.open([1], interval=0.5)
    for _ in range(20):
        pumped.meter.send((1, "m", 1))
        pumped.clock.run(0.1)
    pumped.clock.run(1.0)
    times = [at for at, _ in sink.batches]
    assert all(later - at >= 0.5 for at, later in itertools.pairwise(times))
    assert sink.values()[-1] == 20 and len(times) <= 6


def test_heartbeats_come_when_there_is_nothing_else_and_say_where_the_stream_stands() -> None:
    pumped = Pumped()
    sink, _ = pumped.open([1])
    pumped.clock.run(1.0)
    pumped.meter.send((2, "m", 1))
    pumped.clock.run(3 * pumps.HEARTBEAT_SECONDS + 2)
    assert len(sink.beats) == 3
    assert sink.beats[-1][1] == Place(0, pumped.meter.node.machine.applied)


def test_who_may_no_longer_read_is_ended_and_forgotten() -> None:
    pumped = Pumped()
    sink, _ = pumped.open([1])
    other, _ = pumped.open([1])
    sink.may = False
    pumped.clock.run(2.0)
    assert (sink.ended, other.ended) == (1, 0)
    pumped.meter.send((1, "m", 1))
    pumped.clock.run(1.0)
    assert sink.values() == [0] and other.values() == [0, 1]


def test_a_month_that_begins_is_told_without_an_event() -> None:
    pumped = Pumped()
    sink, _ = pumped.open([1])
    pumped.meter.send((1, "m", 5))
    pumped.clock.run(2.0)
    pumped.meter.now += 31 * 86_400 * 10**9
    pumped.clock.run(2.0)
    assert sink.values() == [5, 0]


def test_streams_end_with_the_node_and_none_begins_after(monkeypatch: pytest.MonkeyPatch) -> None:
    pumped = Pumped()
    sinks = [pumped.open([n])[0] for n in range(3)]
    monkeypatch.setattr(pumps, "STREAMS_MAX", 3)
    with pytest.raises(BackpressureError):
        pumped.open([9])
    pumped.pumps.end()
    assert [sink.ended for sink in sinks] == [1, 1, 1]
    with pytest.raises(BackpressureError):
        pumped.open([9])
    pumped.meter.send((1, "m", 5))
    pumped.clock.run(1.0)
    assert pumped.meter.node.touched is None
    assert all(not sink.batches for sink in sinks)
