"""Listing stored events: only those that counted, in pages, also after retention."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.storage.meter import CALLS, NOW, NOW_NS, PATH, START_NS, Meter, small_meter

from unimeter.errors import InvalidInputError, RangeUnavailableError
from unimeter.storage import retention
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.outcomes import bitmap_of, is_counted
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.verify import verify
from unimeter.types import Event

DAY_NS = 86_400 * 10**9


def test_a_bitmap_says_which_events_counted() -> None:
    outcomes = bytes([0, 1, 0, 20, 2, 0, 0, 0, 0, 1])
    bits = bitmap_of(outcomes)
    assert [is_counted(bits, number) for number in range(10)] == [o == 0 for o in outcomes]
    assert len(bits) == 2


def test_refused_events_and_duplicates_are_not_listed() -> None:
    meter = small_meter()
    found = meter.opened.events.scan(None, None).events
    assert [(event.account_id, event.value) for event in found] == [
        (1, 1), (2, 1), (1, 2), (2, 1), (1, 3), (2, 1), (1, 4), (1, 5), (1, 6),
    ]  # fmt: skip
    assert [event.offset for event in found] == [1, 2, 4, 5, 7, 8, 10, 13, 16]
    assert found[0].id == "a1" and found[0].timestamp == NOW


def test_pages_join_to_the_whole_list_whatever_their_size() -> None:
    meter = small_meter(batches=30)
    meter.snapshot()
    meter.ingest([Event(1, "calls", 3, NOW)] * 5)
    events = meter.opened.events
    whole = events.scan(1, "calls").events
    assert len(whole) == 35
    for limit in (1, 2, 7, 35, 100):
        paged, cursor = [], ""
        while True:
            page = events.scan(1, "calls", cursor=cursor, limit=limit)
            paged += page.events
            cursor = page.cursor
            if not cursor:
                break
            assert len(page.events) == limit
        assert paged == whole


def test_a_strange_cursor_is_refused() -> None:
    events = small_meter().opened.events
    for cursor in ("x", "1", "1-", "-1-2", "1-2-3", "9" * 30 + "-1", "1-٣"):
        with pytest.raises(InvalidInputError, match="cursor"):
            events.scan(None, None, cursor=cursor)
    with pytest.raises(InvalidInputError, match="limit"):
        events.scan(None, None, limit=0)


def test_accounts_metrics_and_times_select() -> None:
    meter = Meter(MemoryDisk())
    meter.create(CALLS)
    hours = [NOW + timedelta(hours=number) for number in range(5)]
    meter.ingest([Event("ann", "calls", n, hours[n]) for n in range(5)])
    meter.ingest([Event(7, "calls", n, hours[n]) for n in range(5)])
    events = meter.opened.events
    hour_ns = 3600 * 10**9
    page = events.scan("ann", "calls", NOW_NS + hour_ns, NOW_NS + 3 * hour_ns)
    assert [event.value for event in page.events] == [1, 2]
    assert events.scan("bob", "calls").events == []
    assert events.scan(7, "other").events == []
    assert [event.value for event in events.scan(7, None).events] == [0, 1, 2, 3, 4]


def test_segments_without_events_of_the_range_are_not_read_again() -> None:
    meter = Meter(MemoryDisk())
    meter.create(CALLS)
    for number in range(60):
        meter.ingest([Event(1, "calls", 1, NOW + timedelta(days=number // 20))] * 10)
    events, disk = meter.opened.events, meter.opened.disk
    assert isinstance(disk, MemoryDisk)
    expected = 200
    assert len(list(events.rows(1, "calls", NOW_NS + DAY_NS, NOW_NS + 2 * DAY_NS))) == expected
    reads: set[str] = set()
    disk.on_operation = lambda operation, path: reads.add(path) if operation == "read" else None
    assert len(list(events.rows(1, "calls", NOW_NS + DAY_NS, NOW_NS + 2 * DAY_NS))) == expected
    assert len(reads) < len(meter.wal.segments()) - 2


def long_meter() -> Meter:
    """Ninety entries over nine days, a snapshot a day."""
    meter = Meter(MemoryDisk())
    meter.create(CALLS)
    for day in range(9):
        for number in range(10):
            at = NOW + timedelta(days=day, minutes=number)
            meter.clock_ns = int(at.timestamp()) * 10**9
            meter.ingest([Event(1, "calls", 1, at)] * 20 + [Event(2, "calls", 5, at, id="once")])
        meter.snapshot()
    return meter


def test_retention_never_passes_the_older_of_two_snapshots() -> None:
    meter = long_meter()
    kept = meter.opened.snapshots.removal_limit()
    assert meter.opened.apply_retention(RetentionPolicy(bytes=1), meter.clock_ns) > 0
    assert kept - 15 < meter.wal.first_index <= kept + 1
    state = meter.machine.state_hash()
    again = Meter(meter.opened.disk.clone())
    assert again.machine.state_hash() == state
    assert again.opened.notes == []
    report = verify(PATH, disk=meter.opened.disk.clone())
    assert report.ok, report.problems
    assert any("retention" in note for note in report.notes)
    assert report.events > 0 and report.totals > 0


def test_retention_by_age_and_by_size_removes_the_oldest_segments() -> None:
    segments = [(1, 10, 100, 5), (11, 20, 100, 15), (21, 30, 100, 25), (31, 35, 100, 30)]
    choose = retention.first_kept
    assert choose(segments, RetentionPolicy(), 1000, 99) == 1
    assert choose(segments, RetentionPolicy(age_ns=10), 30, 99) == 21
    assert choose(segments, RetentionPolicy(age_ns=10), 30, 19) == 11
    assert choose(segments, RetentionPolicy(bytes=250), 30, 99) == 21
    assert choose(segments, RetentionPolicy(age_ns=1), 1000, 99) == 31
    assert choose([], RetentionPolicy(age_ns=1), 1000, 99) == 1


def test_what_retention_removed_is_refused_and_the_rest_still_answers() -> None:
    meter = long_meter()
    events = meter.opened.events
    meter.opened.apply_retention(RetentionPolicy(age_ns=4 * DAY_NS), meter.clock_ns)
    assert meter.wal.first_index > 20
    with pytest.raises(RangeUnavailableError, match="retention"):
        list(events.rows(1, "calls", START_NS, NOW_NS + DAY_NS, 2))
    late = NOW_NS + 7 * DAY_NS
    assert len(list(events.rows(1, "calls", late, late + DAY_NS, 2))) == 200
    listed = events.scan(2, "calls").events
    assert listed == [], "its one counted event was removed, the duplicates do not show"
    again = Meter(meter.opened.disk.clone())
    with pytest.raises(RangeUnavailableError):
        list(again.opened.events.rows(1, "calls", START_NS, NOW_NS + DAY_NS, 2))
    assert again.total(1) == meter.total(1) == 1800
