"""The newest events backwards: every one that was sent, with what became of it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.storage.meter import NOW, Meter, small_meter

from unimeter.errors import InvalidInputError
from unimeter.storage import events as events_module
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.newest import SeenEvent, newest_events
from unimeter.types import Event, Outcome


def every(row: Any, outcome: int | None) -> bool:
    return True


def listed(meter: Meter, limit: int = 1000, **more: Any) -> list[SeenEvent]:
    """All pages."""
    found: list[SeenEvent] = []
    cursor = ""
    while True:
        page = newest_events(meter.opened.events, every, cursor, limit, **more)
        assert len(page.events) <= limit
        found += page.events
        cursor = page.cursor
        if not cursor:
            return found


def test_everything_that_was_sent_comes_newest_first_with_its_outcome() -> None:
    meter = small_meter(batches=5)
    found = listed(meter)
    assert [one.offset for one in found] == list(range(15, 0, -1))
    assert [(one.row.account, one.outcome) for one in found[:6]] == [
        (3, Outcome.UNKNOWN_METRIC),
        (2, Outcome.DUPLICATE),
        (1, Outcome.STORED),
        (3, Outcome.UNKNOWN_METRIC),
        (2, Outcome.DUPLICATE),
        (1, Outcome.STORED),
    ]
    assert sum(one.outcome == 0 for one in found) == len(
        meter.opened.events.scan(None, None).events
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("looked_max", [1, 4, 1000])
def test_pages_join_to_the_whole_whatever_their_size(limit: int, looked_max: int) -> None:
    meter = small_meter(batches=40)  # more entries than are read at once
    assert listed(meter, limit, looked_max=looked_max) == listed(meter)


def test_a_filter_that_nothing_passes_costs_one_page_at_a_time() -> None:
    meter = small_meter(batches=10)
    looked = 0

    def nothing(row: Any, outcome: int | None) -> bool:
        nonlocal looked
        looked += 1
        return False

    page = newest_events(meter.opened.events, nothing, "", 5, looked_max=7)
    assert page.events == [] and page.cursor and looked == 7


def test_a_malformed_event_says_why_by_itself() -> None:
    meter = small_meter(batches=1)
    meter.ingest([Event("", "calls", 1, NOW), Event(1, "calls", 1, NOW, properties={"": "x"})])
    assert [one.outcome for one in listed(meter)[:2]] == [
        Outcome.BAD_PROPERTY,
        Outcome.BAD_ACCOUNT,
    ]


def test_after_a_restart_the_reason_is_known_where_the_log_was_replayed() -> None:
    disk = MemoryDisk()
    meter = small_meter(disk, batches=3)
    meter.snapshot()
    meter.ingest([Event(3, "nothing", 1, NOW)])
    meter.close()
    again = Meter(disk)
    outcomes = [one.outcome for one in listed(again)]
    assert outcomes[0] == Outcome.UNKNOWN_METRIC  # after the snapshot: counted again
    assert outcomes[1] is None  # before it: the bitmap says only that it did not count
    assert outcomes.count(0) == len(again.opened.events.scan(None, None).events)


def test_reasons_are_kept_for_a_bounded_number_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "REASON_BYTES_MAX", 9)
    meter = small_meter(batches=10)
    outcomes = [one.outcome for one in listed(meter) if one.row.account == 3]
    assert outcomes == [Outcome.UNKNOWN_METRIC] * 3 + [None] * 7


def test_what_is_not_applied_is_not_shown() -> None:
    meter = small_meter(batches=1)
    meter.opened.events.applied_index = lambda: meter.machine.applied
    meter.stage([Event(9, "calls", 1, NOW)])
    meter.wal.sync()
    assert listed(meter)[0].row.account == 3


def test_a_strange_cursor_is_refused() -> None:
    store = small_meter().opened.events
    for cursor in ("x", "0-0", "1", "1-", "-1-2", "9" * 30 + "-1", "1-٣"):
        with pytest.raises(InvalidInputError, match="cursor"):
            newest_events(store, every, cursor)
    assert newest_events(store, every, "999999-5").events
