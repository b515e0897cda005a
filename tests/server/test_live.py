"""Topics and watchers without a loop: what is told, once, and what survives a resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from unimeter import limits
from unimeter.engine import entries
from unimeter.server import handlers, live, watcher
from unimeter.server.hosts import InlineHost
from unimeter.server.live import Live, interest_of
from unimeter.server.node import Node
from unimeter.server.watcher import Batch, Place, Watcher
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.recovery import open_directory
from unimeter.storage.wal import WalLimits
from unimeter.types import (
    Account,
    AggType,
    AlertThreshold,
    Event,
    MetricSchema,
    PeriodType,
    from_ns,
    to_ns,
)
from unimeter.wire.messages import MetricDelete, MetricPut
from unimeter.wire.v2_ingest import encode_ingest

NOVEMBER = 1_793_491_200 * 10**9  # 2026-11-01
DAY_NS = 86_400 * 10**9


class Reader:
    """A sink that is read by hand."""

    is_ready = True

    def send(self, batch: Batch) -> None:
        raise AssertionError("nobody pumps here")

    def beat(self, place: Place) -> None:
        raise AssertionError("nobody pumps here")

    def check(self) -> bool:
        return True

    def end(self) -> None:
        return


class Meter:
    """A node in memory whose clock the test sets, and its live state."""

    def __init__(self, *codes: str, threshold: int = 10**9) -> None:
        host = InlineHost()
        bounds = WalLimits(segment_bytes=2**20, segment_bytes_first=2**20, background=False)
        self.node = Node(open_directory(MemoryDisk(), "data", bounds=bounds), host)
        self.node.upkeep.disk_free_bytes_min = 0
        self.now = NOVEMBER
        self.node.clock = lambda: self.now
        self.live = Live(self.node)
        self.kinds: list[int] = []
        host.on_changed = self.changed
        self.threshold = threshold
        for code in codes:
            self.metric(code)

    def changed(self, kind: int) -> None:
        self.kinds.append(kind)
        if self.live.changes_catalog(kind):
            self.live.rebuild(is_other_machine=False)

    def metric(self, code: str) -> None:
        thresholds = [AlertThreshold("full", self.threshold)]
        schema = MetricSchema(
            code, AggType.SUM, period_type=PeriodType.CALENDAR, thresholds=thresholds
        )
        handlers.call(self.node, MetricPut(schema))

    def send(self, *rows: tuple[Account, str, int]) -> None:
        """One entry."""
        events = [Event(account, code, value, from_ns(self.now)) for account, code, value in rows]
        self.node.ingest_payload(encode_ingest(events))

    def watch(
        self,
        accounts: Sequence[Account] = (),
        metrics: Sequence[str] = (),
        *,
        totals: bool = True,
        **options: Any,
    ) -> Watcher:
        options.setdefault("wants_alerts", True)
        interest = interest_of(accounts, metrics, totals=totals)
        return Watcher(self.live, Reader(), interest, **options)

    def read(self, stream: Watcher) -> Batch:
        self.live.drain()
        return stream.collect()

    def told(self, stream: Watcher) -> list[tuple[Account, str, int]]:
        """The totals of the next batch, which is the only one."""
        batch = self.read(stream)
        assert not stream.has_more and not batch.overflow
        return [(one.account, one.metric_code, one.value.sum) for one in batch.totals]


def test_nothing_is_noted_while_nobody_watches_totals() -> None:
    meter = Meter("m")
    assert meter.node.touched is None
    stream = meter.watch([1], ["m"])
    assert meter.node.touched is not None
    only_alerts = meter.watch([1], totals=False)
    stream.close()
    assert meter.node.touched is None
    only_alerts.close()
    meter.send((1, "m", 5))
    assert entries.EVENTS not in meter.kinds
    assert meter.live.statistics()["live_topics"] == meter.live.statistics()["live_pairs"] == 0


def test_a_stream_begins_with_the_totals_that_it_names() -> None:
    meter = Meter("m", "n")
    meter.send((1, "m", 5), ("1", "m", 7))
    assert meter.told(meter.watch([1, "1", 2], ["m"])) == [
        (1, "m", 5), (2, "m", 0), ("1", "m", 7),
    ]  # fmt: skip
    # Metrics that are not named: those that have events.
    assert meter.told(meter.watch([1, 2])) == [(1, "m", 5)]
    assert meter.told(meter.watch()) == []


def test_ten_changes_are_told_once_with_the_newest_value() -> None:
    meter = Meter("m", "n")
    stream = meter.watch([1], ["m"])
    assert meter.told(stream) == [(1, "m", 0)]
    for _ in range(10):
        meter.send((1, "m", 3), (2, "m", 1), (1, "n", 1))
    assert meter.told(stream) == [(1, "m", 30)]
    assert meter.told(stream) == []
    for _ in range(10):
        meter.send((1, "m", 1))
        meter.live.drain()
    assert meter.told(stream) == [(1, "m", 40)]


def test_filters_by_account_and_metric() -> None:
    meter = Meter("m", "n")
    meter.send((1, "m", 1), (1, "n", 1), (2, "m", 1), ("x", "n", 1))
    streams = {
        "account": meter.watch([1]),
        "metric": meter.watch([], ["n"]),
        "both": meter.watch(["x"], ["m", "n"]),
        "all": meter.watch(),
    }
    for stream in streams.values():
        meter.read(stream)
    meter.send((1, "m", 1), (1, "n", 1), (2, "m", 1), ("x", "n", 1), (3, "n", 1))
    told = {name: sorted(map(str, meter.told(stream))) for name, stream in streams.items()}
    assert told == {
        "account": ["(1, 'm', 2)", "(1, 'n', 2)"],
        "metric": ["('x', 'n', 2)", "(1, 'n', 2)", "(3, 'n', 1)"],
        "both": ["('x', 'n', 2)"],
        "all": [
            "('x', 'n', 2)", "(1, 'm', 2)", "(1, 'n', 2)", "(2, 'm', 2)", "(3, 'n', 1)",
        ],
    }  # fmt: skip


@pytest.mark.parametrize("others", [1, 500])
def test_a_named_pair_without_events_is_told_with_its_first_one(others: int) -> None:
    meter = Meter("m", "n")
    meter.send(("known", "m", 1))
    named = [*range(20), "new", "known"]
    stream = meter.watch(named)
    assert meter.told(stream) == [("known", "m", 1)]
    # Few new series or many: either list is walked.
    meter.send(*((10_000 + n, "m", 1) for n in range(others)), ("new", "n", 4), (3, "m", 2))
    assert sorted(map(str, meter.told(stream))) == ["('new', 'n', 4)", "(3, 'm', 2)"]
    meter.send(("new", "n", 4))
    assert meter.told(stream) == [("new", "n", 8)]


def test_a_metric_that_is_made_later_is_followed_and_one_that_is_deleted_is_not() -> None:
    meter = Meter("m")
    stream = meter.watch([1], ["late"])
    assert meter.told(stream) == []
    meter.metric("late")
    assert meter.told(stream) == [(1, "late", 0)]
    meter.send((1, "late", 5))
    assert meter.told(stream) == [(1, "late", 5)]
    handlers.call(meter.node, MetricDelete("late"))
    assert meter.told(stream) == []
    meter.metric("late")
    meter.send((1, "late", 2))
    assert meter.told(stream) == [(1, "late", 2)]


def test_a_new_month_is_a_change() -> None:
    meter = Meter("m", "n")
    stream = meter.watch([1, 2], ["m"])
    meter.send((1, "m", 5))
    meter.read(stream)
    meter.now += 20 * DAY_NS
    assert not meter.live.look_at_clock()
    assert meter.told(stream) == []
    meter.now = NOVEMBER + 30 * DAY_NS
    assert meter.live.look_at_clock()
    assert meter.told(stream) == [(1, "m", 0), (2, "m", 0)]
    assert not meter.live.look_at_clock()
    meter.send((1, "m", 7))
    assert meter.told(stream) == [(1, "m", 7)]


# --- alerts --------------------------------------------------------------------------


def positions(batch: Batch) -> list[int]:
    return [alert.position for alert in batch.alerts]


def test_alerts_come_once_and_in_order_from_wherever_a_stream_begins() -> None:
    meter = Meter("m", threshold=1)
    meter.send(*((n, "m", 1) for n in range(5)))
    late, early = meter.watch(totals=False), meter.watch(totals=False, after=2)
    resumed = meter.watch(totals=False, place=Place(4, 0))
    assert [positions(meter.read(one)) for one in (late, early, resumed)] == [[], [3, 4, 5], [5]]
    meter.send((7, "m", 1))
    assert [positions(meter.read(one)) for one in (late, early, resumed)] == [[6]] * 3
    assert [positions(meter.read(one)) for one in (late, early, resumed)] == [[]] * 3


def test_a_reader_far_behind_reads_alerts_from_the_engine_and_loses_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "TOPIC_ALERTS_MAX", 16)
    monkeypatch.setattr(live, "ALERTS_PER_DRAIN", 10)
    monkeypatch.setattr(watcher, "ALERTS_PER_BATCH", 7)
    meter = Meter("m", "n", threshold=1)
    slow = meter.watch([n for n in range(200) if n % 3], ["m"], totals=False)
    brisk = meter.watch([n for n in range(200) if n % 3], ["m"], totals=False)
    seen: list[int] = []
    for first in range(0, 200, 20):
        meter.send(*((n, "m", 1) for n in range(first, first + 20)), (first, "n", 1))
        meter.live.drain()
        seen += positions(meter.read(brisk))
    for one, found in ((slow, []), (brisk, seen)):
        while True:
            found += positions(meter.read(one))
            if not one.has_more and not meter.live.has_more:
                break
        with meter.node.lock:
            rows, _ = handlers.alert_rows(meter.node, 0, 10_000)
        wanted = [row.position for row in rows if row.account % 3 and row.metric_code == "m"]
        assert found == wanted
    assert slow.after == brisk.after == meter.node.last_alert
    assert len(slow.topic.alerts) <= 16


def test_an_alert_that_another_node_told_already_is_not_told_again() -> None:
    meter = Meter("m", threshold=1)
    meter.send((1, "m", 1))
    ahead = meter.watch(totals=False, place=Place(3, 0))
    meter.send((2, "m", 1), (3, "m", 1))
    assert positions(meter.read(ahead)) == []
    assert ahead.after == 3
    meter.send((4, "m", 1))
    assert positions(meter.read(ahead)) == [4]


# --- resuming totals -------------------------------------------------------------------


def test_a_stream_that_resumes_gets_what_changed_since_and_nothing_else() -> None:
    meter = Meter("m", "n")
    stream = meter.watch([1, 2, 3], ["m"])
    meter.send((1, "m", 1), (2, "m", 1))
    batch = meter.read(stream)
    stream.close()
    assert batch.place.entry == meter.node.machine.applied
    meter.send((2, "m", 1), (9, "m", 1), (3, "n", 1))
    again = meter.watch([1, 2, 3], ["m"], place=batch.place)
    assert meter.told(again) == [(2, "m", 2)]
    assert again.place.entry == meter.node.machine.applied
    again.close()
    assert meter.told(meter.watch([1, 2, 3], ["m"], place=again.place)) == []


def test_until_all_that_a_stream_begins_with_is_sent_its_place_asks_for_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watcher, "TOTALS_PER_BATCH", 2)
    meter = Meter("m")
    meter.send((1, "m", 1))
    stream = meter.watch([1, 2, 3], ["m"])
    assert stream.place.entry == 0
    first = meter.read(stream)
    assert len(first.totals) == 2 and first.place.entry == 0 and stream.has_more
    meter.send((1, "m", 1))
    second = meter.read(stream)
    assert len(second.totals) == 1 and second.place.entry == meter.node.machine.applied - 1
    third = meter.read(stream)
    assert [one.account for one in third.totals] == [1]
    assert third.place.entry == meter.node.machine.applied


def test_what_changed_while_a_batch_was_sent_is_not_lost_by_a_resume() -> None:
    """The seam: the place of a batch's totals holds only once the last of them is sent."""
    meter = Meter("m")
    stream = meter.watch([1, 2], ["m"])
    before = meter.read(stream).place
    meter.send((1, "m", 1), (2, "m", 1))
    batch = meter.read(stream)
    assert batch.before.entry == before.entry < batch.place.entry
    again = meter.watch([1, 2], ["m"], place=batch.before)
    assert meter.told(again) == [(1, "m", 1), (2, "m", 1)]


def test_a_resume_that_is_too_far_back_gets_all_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "RESUME_ENTRIES_MAX", 3)
    meter = Meter("m")
    place = meter.read(meter.watch([1, 2], ["m"])).place
    for _ in range(5):
        meter.send((2, "m", 1))
    assert meter.told(meter.watch([1, 2], ["m"], place=place)) == [(1, "m", 0), (2, "m", 5)]


def test_a_month_that_began_during_a_loss_is_a_change() -> None:
    meter = Meter("m")
    meter.send((1, "m", 5))
    place = meter.read(meter.watch([1], ["m"])).place
    meter.now = NOVEMBER + 31 * DAY_NS
    assert meter.told(meter.watch([1], ["m"], place=place)) == [(1, "m", 0)]


def test_a_node_that_lags_says_no_older_total_than_the_reader_has() -> None:
    meter = Meter("m")
    meter.send((1, "m", 1))
    ahead = meter.watch([1], ["m"], place=Place(0, meter.node.machine.applied + 2))
    assert meter.told(ahead) == []
    meter.send((1, "m", 1))
    assert meter.told(ahead) == []
    meter.send((1, "m", 1))
    assert meter.told(ahead) == []  # as far as the reader
    meter.send((1, "m", 1))
    assert meter.told(ahead) == [(1, "m", 4)]


def test_a_stream_of_all_accounts_that_missed_changes_is_told_to_read_again() -> None:
    meter = Meter("m")
    stream = meter.watch([], ["m"])
    place = meter.read(stream).place
    assert place.entry == meter.node.machine.applied
    assert not meter.read(meter.watch([], ["m"], place=place)).overflow
    meter.send((1, "m", 1))
    late = meter.watch([], ["m"], place=place)
    batch = meter.read(late)
    assert batch.overflow and batch.place.entry == meter.node.machine.applied
    assert meter.told(late) == []


# --- bounds ----------------------------------------------------------------------------


def test_more_changes_than_are_kept_are_an_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TOPIC_PAIRS_MAX", 10)
    meter = Meter("m")
    slow, brisk = meter.watch(), meter.watch()
    for first in range(0, 24, 8):
        meter.send(*((n, "m", 1) for n in range(first, first + 8)))
        assert len(meter.told(brisk)) == 8
    batch = meter.read(slow)
    assert batch.overflow and len(batch.totals) == 10 == len(slow.topic.pairs)
    meter.send((1, "m", 1))
    assert meter.told(slow) == meter.told(brisk) == [(1, "m", 2)]


def test_changes_of_all_accounts_are_bounded_between_two_drains_and_named_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "WATCHED_ANY_MAX", 8)
    meter = Meter("m")
    everything, named = meter.watch(), meter.watch([19], ["m"])
    meter.read(named)
    meter.send(*((n, "m", 1) for n in range(20)))
    assert meter.told(named) == [(19, "m", 1)]
    assert meter.read(everything).overflow
    meter.send((2, "m", 1))
    assert meter.told(everything) == [(2, "m", 2)]


def test_equal_interests_share_a_topic_and_a_reading() -> None:
    meter = Meter("m")
    streams = [meter.watch(order, ["m"]) for order in ([1, 2], [2, 1]) for _ in range(50)]
    assert len({id(stream.topic) for stream in streams}) == 1
    for stream in streams:
        meter.read(stream)
    before = meter.live.readings_made
    meter.send((1, "m", 5), (2, "m", 6))
    meter.live.drain()
    assert {len(stream.collect().totals) for stream in streams} == {2}
    assert meter.live.readings_made == before + 2
    for stream in streams:
        stream.close()
    assert meter.node.touched is None and not meter.live.statistics()["live_topics"]


def test_a_reading_for_others_is_never_older_than_what_a_new_stream_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pair that fell out of a bound is not noted, so what was read of it before is no answer."""
    monkeypatch.setattr(live, "WATCHED_ANY_MAX", 1)
    meter = Meter("m")
    everything = meter.watch()
    meter.send((1, "m", 1))
    assert meter.told(everything) == [(1, "m", 1)]
    meter.send((2, "m", 1), (1, "m", 1))
    assert meter.told(meter.watch([1], ["m"])) == [(1, "m", 2)]


def test_a_peers_snapshot_makes_every_total_and_alert_be_looked_at_again() -> None:
    meter, other = Meter("m", threshold=3), Meter("m", threshold=3)
    stream = meter.watch([1], ["m"])
    meter.send((1, "m", 1))
    meter.read(stream)
    other.send((9, "m", 3), (1, "m", 1), (1, "m", 4))
    meter.node.machine = other.node.machine
    meter.live.rebuild(is_other_machine=True)
    batch = meter.read(stream)
    assert [one.value.sum for one in batch.totals] == [5]
    assert positions(batch) == [2]


@pytest.mark.parametrize("agg", list(AggType))
@pytest.mark.parametrize("period", list(PeriodType))
def test_every_billing_period_is_read_without_stored_events(
    agg: AggType, period: PeriodType
) -> None:
    meter = Meter()
    for recurring in {False, agg == AggType.COUNT_UNIQUE}:
        schema = MetricSchema(f"m{recurring}", agg, period_type=period, recurring=recurring)
        handlers.call(meter.node, MetricPut(schema))
        stream = meter.watch([1], [schema.code])
        for _ in range(3):
            meter.now += 17 * DAY_NS // 16
            meter.send((1, schema.code, 3))
            batch = meter.read(stream)
            assert [one.value.last_value for one in batch.totals] == [3]


def test_limits_are_what_the_page_says() -> None:
    assert limits.TOPIC_PAIRS_MAX >= limits.STREAM_PAIRS_MAX
    assert to_ns(from_ns(NOVEMBER)) == NOVEMBER
