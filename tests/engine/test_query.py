"""Queries: what is asked of the store and what is not, refusals, pages, alerts."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from tests.engine.twin import Batch, Twin, event

from unimeter.engine import query
from unimeter.engine.answers import sweep
from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.periods import DAY_NS, HOUR_NS, UTC_TRANSITIONS, make_calendar
from unimeter.types import (
    AggType,
    AggValue,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
    to_ns,
)

JAN = to_ns(datetime(2024, 1, 1, tzinfo=timezone.utc))
FEB = to_ns(datetime(2024, 2, 1, tzinfo=timezone.utc))
NOON = JAN + 12 * HOUR_NS
ADD, REMOVE = 1, 2


def twin_of(agg: AggType = AggType.SUM, **more: Any) -> Twin:
    twin = Twin(JAN)
    assert twin.put(MetricSchema("m", agg, **more)) == ""
    return twin


def feed(twin: Twin, *rows: Any) -> None:
    twin.ingest(Batch(rows))


def edges_of(twin: Twin, start: int, end: int, **more: Any) -> list[tuple[int, int]]:
    plan = query.plan_total(twin.machine, 7, "m", start, end, **more)
    twin.check_total(7, "m", start, end)
    return [(edge.start_ns, edge.end_ns) for edge in plan.edges]


# --- edges ---------------------------------------------------------------------


def test_the_plainest_metric_is_exact_for_a_calendar_month_without_stored_events() -> None:
    twin = twin_of(AggType.COUNT)
    feed(twin, event(at=JAN), event(at=FEB - 1), event(at=FEB), event(at=JAN - 1))
    assert edges_of(twin, JAN, FEB) == []
    assert twin.check_total(7, "m", JAN, FEB).count == 2


def test_a_cut_bucket_asks_for_its_piece_only() -> None:
    twin = twin_of()
    feed(twin, event(at=JAN + 5), event(at=NOON), event(at=FEB + 5), event(at=FEB + HOUR_NS))
    assert edges_of(twin, JAN + 6, FEB) == [(JAN + 6, JAN + DAY_NS)]
    assert edges_of(twin, JAN, FEB + 6) == [(FEB, FEB + 6)]
    assert edges_of(twin, JAN + 6, FEB + 6) == [(JAN + 6, JAN + DAY_NS), (FEB, FEB + 6)]
    assert edges_of(twin, JAN + 6, NOON) == [(JAN + 6, NOON)]


def test_from_the_start_of_the_month_until_now_needs_no_stored_event() -> None:
    twin = twin_of()
    feed(twin, event(at=JAN), event(at=FEB - DAY_NS + 5, value=3))
    assert edges_of(twin, JAN, FEB - DAY_NS + 6) == []
    assert edges_of(twin, JAN, FEB - DAY_NS + 5) == [(FEB - DAY_NS, FEB - DAY_NS + 5)]


def test_cut_buckets_without_events_in_the_piece_are_not_asked_for() -> None:
    twin = twin_of()
    feed(twin, event(at=NOON))
    assert edges_of(twin, NOON + 1, JAN + DAY_NS) == []
    assert edges_of(twin, JAN - HOUR_NS, JAN) == []
    assert edges_of(twin, FEB + 1, FEB + 2) == []
    plan = query.plan_total(twin.machine, 8, "m", JAN + 1, FEB - 1)
    assert plan.edges == [] and plan.finish() == AggValue()


def test_events_of_a_deleted_metric_are_left_out_of_edges() -> None:
    twin = twin_of()
    feed(twin, event(at=NOON, value=100))
    twin.delete("m")
    twin.put(MetricSchema("m", AggType.SUM))
    feed(twin, event(at=NOON, value=1), event(at=NOON + 5, value=10))
    plan = query.plan_total(twin.machine, 7, "m", JAN, NOON + 1)
    assert plan.edges and plan.from_index == 5 and plan.position == 6
    assert twin.answer(plan).sum == 1


def test_a_plan_answers_for_the_moment_it_was_made() -> None:
    twin = twin_of()
    feed(twin, event(at=NOON, value=1), event(at=NOON + 5, value=10))
    whole = query.plan_total(twin.machine, 7, "m", JAN, FEB)
    cut = query.plan_total(twin.machine, 7, "m", JAN, NOON + 1)
    feed(twin, event(at=NOON, value=1000), event(at=NOON + 9, value=1000))
    assert twin.answer(whole).sum == 11 and twin.answer(cut).sum == 1


def test_ranges_beyond_2000_and_2100_are_as_good_as_up_to_them() -> None:
    for zone in ("UTC", "Asia/Kathmandu"):
        twin = twin_of(AggType.COUNT_UNIQUE, recurring=True, period_type=PeriodType.DAY, zone=zone)
        feed(twin, event(at=TIMESTAMP_NS_MIN, value=1), event(at=TIMESTAMP_NS_MAX - 1, value=2))
        for start, end in ((0, 2**63), (TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX), (-5, JAN)):
            assert edges_of(twin, start, end) == []
        for start, end in ((1, 2), (TIMESTAMP_NS_MAX, 2**63)):
            assert query.plan_total(twin.machine, 7, "m", start, end).finish() == AggValue()
            assert query.plan_series(twin.machine, 7, "m", start, end, 3).finish() == []
            assert query.plan_accounts(twin.machine, "m", start, end).finish() == ([], b"")
        assert query.plan_members(twin.machine, 7, "m", 5).finish() == ([], b"")
        twin.check_members(7, "m", TIMESTAMP_NS_MAX - 1)


# --- refusals --------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused_with_words() -> None:
    twin = twin_of(filters=[DimensionFilter("model", ["a"])])
    machine = twin.machine
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: query.plan_total(machine, 7, "none", JAN, FEB), NotFoundError, "'none'"),
        (lambda: query.plan_realtime(machine, 7, "none", JAN), NotFoundError, "'none'"),
        (lambda: query.plan_total(machine, 7, "m", FEB, JAN), InvalidInputError, "not after"),
        (lambda: query.plan_total(machine, 7, "m", JAN, JAN), InvalidInputError, "not after"),
        (
            lambda: query.plan_total(machine, 7, "m", JAN, FEB, {"kind": "x"}),
            InvalidInputError,
            "'kind' is not a dimension of metric 'm', which has 'model'",
        ),
        (
            lambda: query.plan_total(machine, 7, "m", JAN, FEB, {"model": [1]}),  # type: ignore[list-item]
            InvalidInputError,
            "must be str",
        ),
        (
            lambda: query.plan_breakdown(machine, 7, "m", JAN, FEB, ["kind"]),
            InvalidInputError,
            "'kind'",
        ),
        (
            lambda: query.plan_breakdown(machine, 7, "m", JAN, FEB, ["model", "model"]),
            InvalidInputError,
            "twice",
        ),
        (lambda: query.plan_breakdown(machine, 7, "m", JAN, FEB, []), InvalidInputError, "least"),
        (lambda: query.plan_series(machine, 7, "m", JAN, FEB, 4), InvalidInputError, "window 4"),
        (
            lambda: query.plan_series(machine, 7, "m", JAN, FEB, 1, "Mars"),
            InvalidInputError,
            "'Mars'",
        ),
        (lambda: query.plan_series(machine, 7, "m", 0, FEB, 0), InvalidInputError, "windows"),
        (lambda: query.plan_accounts(machine, "m", JAN, FEB, b"x"), InvalidInputError, "cursor"),
        (
            lambda: query.plan_accounts(machine, "m", JAN, FEB, b"\1" * 8),
            InvalidInputError,
            "cursor",
        ),
        (lambda: query.plan_accounts(machine, "m", JAN, FEB, b"", 0), InvalidInputError, "limit"),
        (lambda: query.plan_members(machine, 7, "m", JAN), InvalidInputError, "SUM"),
        (lambda: query.plan_total(machine, -1, "m", JAN, FEB), InvalidInputError, "64-bit"),
        (lambda: query.plan_total(machine, 2**64, "m", JAN, FEB), InvalidInputError, "64-bit"),
        (lambda: query.list_alerts(machine, metric_code="none"), NotFoundError, "'none'"),
    ]
    for ask, kind, words in cases:
        with pytest.raises(kind, match=words):
            ask()


def test_a_cursor_of_another_metric_is_refused() -> None:
    twin = twin_of()
    twin.put(MetricSchema("n", AggType.SUM))
    feed(twin, event(1, at=JAN), event(2, at=JAN))
    _, cursor = query.plan_accounts(twin.machine, "m", JAN, FEB, b"", 1).finish()
    with pytest.raises(InvalidInputError, match="cursor"):
        query.plan_accounts(twin.machine, "n", JAN, FEB, cursor)


# --- totals -----------------------------------------------------------------------


def test_sums_beyond_64_bits_are_exact() -> None:
    twin = twin_of()
    feed(twin, *[event(at=JAN + i, value=2**63 - 1) for i in range(5)])
    assert twin.check_total(7, "m", JAN, FEB).sum == 5 * (2**63 - 1)
    feed(twin, *[event(at=JAN + i, value=-(2**63)) for i in range(9)])
    assert twin.check_total(7, "m", JAN, FEB).sum == 5 * (2**63 - 1) - 9 * 2**63


def test_realtime_is_the_billing_period_that_holds_now() -> None:
    twin = twin_of(period_type=PeriodType.CALENDAR, billing_cycle_day=15)
    feed(twin, event(at=JAN + 13 * DAY_NS, value=1), event(at=JAN + 14 * DAY_NS, value=10))
    plan = query.plan_realtime(twin.machine, 7, "m", FEB)
    assert (plan.start_ns, plan.end_ns) == (JAN + 14 * DAY_NS, FEB + 14 * DAY_NS)
    assert plan.finish().sum == 10
    assert query.plan_realtime(twin.machine, 7, "m", 0).finish() == AggValue()
    assert query.plan_realtime(twin.machine, 7, "m", 2**62).finish() == AggValue()


def test_integer_and_string_accounts_of_one_spelling_are_two() -> None:
    twin = twin_of()
    feed(twin, event(7, at=JAN, value=1), event("7", at=JAN, value=10))
    assert twin.check_total(7, "m", JAN, FEB).sum == 1
    assert twin.check_total("7", "m", JAN, FEB).sum == 10
    assert twin.check_total("\ud800", "m", JAN, FEB) == AggValue()


def test_the_flags_of_a_range_are_those_of_every_period_it_touches() -> None:
    twin = twin_of(
        period=timedelta(days=1), thresholds=[AlertThreshold("a", 1), AlertThreshold("b", 5)]
    )
    feed(twin, event(at=JAN), event(at=JAN + DAY_NS, value=9))
    assert twin.check_total(7, "m", JAN, JAN + DAY_NS).alert_flags == 1
    assert twin.check_total(7, "m", JAN, JAN + DAY_NS + 1).alert_flags == 3
    assert twin.check_total(7, "m", JAN - 10**18, JAN + 10**18).alert_flags == 3
    assert twin.check_total(7, "m", JAN + 2 * DAY_NS, FEB).alert_flags == 0


@pytest.mark.parametrize("resolution", list(Resolution))
@pytest.mark.parametrize("recurring", [False, True])
@pytest.mark.parametrize("dimensions", [[], [DimensionFilter("a")]])
def test_members_are_counted_from_cells_where_these_know(
    resolution: Resolution, recurring: bool, dimensions: list[DimensionFilter]
) -> None:
    twin = twin_of(
        AggType.COUNT_UNIQUE,
        recurring=recurring,
        resolution=resolution,
        filters=dimensions,
        period_type=PeriodType.CALENDAR,
    )
    feed(
        twin,
        event(at=JAN, value=1, a="x"),
        event(at=JAN + 3 * DAY_NS, value=2, a="y"),
        event(at=JAN + 4 * DAY_NS, value=1, operation=REMOVE),
    )
    assert edges_of(twin, JAN, FEB) == []
    assert edges_of(twin, JAN, JAN + 4 * DAY_NS + 1) == []
    assert edges_of(twin, FEB, FEB + DAY_NS) == []
    for start, end in (
        (JAN, JAN + DAY_NS),
        (JAN + 1, FEB),
        (JAN, JAN + 4 * DAY_NS),
        (FEB, FEB + 1),
    ):
        twin.check_everything(7, "m", start, end, ["a"] if dimensions else [])


@pytest.mark.parametrize("recurring", [False, True])
def test_members_of_a_period_that_began_before_2000_are_counted(recurring: bool) -> None:
    for dimensions in ([], [DimensionFilter("a")]):
        twin = twin_of(
            AggType.COUNT_UNIQUE,
            recurring=recurring,
            filters=dimensions,
            period=timedelta(days=73_000),
            resolution=Resolution.PERIOD,
        )
        feed(twin, event(at=JAN, value=1), event(at=JAN, value=2, operation=REMOVE))
        assert twin.check_total(7, "m", 0, 2**62).count == 1
        twin.check_everything(7, "m", 0, 2**62, window=3)
        twin.check_everything(7, "m", JAN, FEB)


def test_a_sweep_unites_the_ends_of_all_periods() -> None:
    days = make_calendar(PeriodType.DAY, 1, 0, UTC_TRANSITIONS)
    joined = [(JAN, 1, 10, False), (JAN + 1, 2, 11, False), (JAN + DAY_NS, 3, 10, True)]
    windows = [(JAN, JAN + DAY_NS), (JAN + DAY_NS, JAN + 3 * DAY_NS)]
    assert [each.count for each in sweep(list(joined), windows, days, True)] == [2, 1]
    assert [each.count for each in sweep(list(joined), windows, days, False)] == [2, 0]
    both = [(JAN, JAN + 3 * DAY_NS)]
    assert [each.unique for each in sweep(list(joined), both, days, True)] == [2]
    assert sweep([], both, days, True) == [AggValue()]


# --- lists ------------------------------------------------------------------------


def test_accounts_come_newest_first_in_pages_that_may_be_short() -> None:
    twin = twin_of()
    feed(twin, *[event(number, at=JAN if number % 2 else FEB) for number in range(1, 8)])
    pages, cursor = [], b""
    while True:
        page, cursor = query.plan_accounts(twin.machine, "m", JAN, FEB, cursor, 3).finish()
        pages.append([line.account_id for line in page])
        if not cursor:
            break
    assert pages == [[7, 5], [3], [1]]


def test_accounts_that_come_during_the_run_do_not_disturb_it() -> None:
    twin = twin_of()
    feed(twin, event(1, at=JAN), event(2, at=JAN), event(3, at=JAN))
    page, cursor = query.plan_accounts(twin.machine, "m", JAN, FEB, b"", 2).finish()
    feed(twin, event(4, at=JAN))
    rest, end = query.plan_accounts(twin.machine, "m", JAN, FEB, cursor, 2).finish()
    assert [line.account_id for line in page + rest] == [3, 2, 1] and end == b""


def test_accounts_share_the_scan_of_an_edge() -> None:
    twin = twin_of()
    feed(twin, event(1, at=NOON), event("s", at=NOON + 5), event(3, at=FEB), event(4, at=NOON - 1))
    plan = query.plan_accounts(twin.machine, "m", NOON, FEB)
    assert plan.edges == [query.Edge(None, "m", NOON, JAN + DAY_NS)]
    twin.check_accounts("m", NOON, FEB)


def test_members_are_listed_in_order_and_pages() -> None:
    twin = twin_of(AggType.COUNT_UNIQUE, recurring=True)
    feed(twin, *[event(at=JAN, value=value, operation=ADD) for value in (5, -2, 9, 0, 2**62)])
    feed(twin, event(at=NOON, value=9, operation=REMOVE))
    first, cursor = twin.answer(query.plan_members(twin.machine, 7, "m", NOON, b"", 3))
    rest, end = twin.answer(query.plan_members(twin.machine, 7, "m", NOON, cursor, 3))
    assert (first, rest, end) == ([-2, 0, 5], [2**62], b"")
    twin.check_members(7, "m", NOON - 1)
    with pytest.raises(InvalidInputError, match="cursor"):
        query.plan_members(twin.machine, 7, "m", NOON, b"abc")


def test_a_series_has_zeros_where_nothing_was_and_no_window_twice() -> None:
    twin = twin_of(zone="Europe/Berlin", period_type=PeriodType.DAY)
    feed(twin, event(at=JAN, value=1), event(at=JAN + 50 * HOUR_NS, value=10))
    for zone in ("", "UTC", "Europe/Berlin", "Asia/Kathmandu"):
        for window in range(4):
            twin.check_everything(7, "m", JAN, JAN + 3 * DAY_NS, window=window, zone=zone)
    plan = query.plan_series(twin.machine, 7, "m", JAN - HOUR_NS, FEB - HOUR_NS, 1, "Europe/Berlin")
    assert plan.edges == [] and len(plan.finish()) == 31


# --- alerts -----------------------------------------------------------------------


def alerting() -> Twin:
    twin = twin_of(
        thresholds=[
            AlertThreshold("up", 2, recurring=True),
            AlertThreshold("low", 0, direction=Direction.FALLING),
        ]
    )
    feed(twin, event(1, at=JAN, value=3), event("a", at=JAN, value=3), event(1, at=JAN, value=-3))
    twin.put(MetricSchema("n", AggType.AVG, thresholds=[AlertThreshold("mean", 3)]))
    feed(twin, event(1, "n", 1, JAN), event(1, "n", 6, JAN), event(1, at=JAN, value=2))
    return twin


def test_alerts_are_listed_in_full_and_in_order() -> None:
    twin = alerting()
    twin.check_alerts()
    lines, more = query.list_alerts(twin.machine)
    assert not more and [line.position for line in lines] == [1, 2, 3, 4, 5]
    assert [line.threshold_code for line in lines] == ["up", "up", "low", "mean", "up"]
    assert [line.offset for line in lines] == [1, 2, 3, 5, 6]
    assert lines[3].value == 3 and lines[3].metric_code == "n"  # 7 / 2, cut


def test_alerts_are_chosen_and_paged() -> None:
    machine = alerting().machine

    def positions(**more: Any) -> tuple[list[int], bool]:
        lines, has_more = query.list_alerts(machine, **more)
        return [line.position for line in lines], has_more

    assert positions(after=2) == ([3, 4, 5], False)
    assert positions(limit=2) == ([1, 2], True)
    assert positions(after=3, limit=2) == ([4, 5], False)
    assert positions(account=1) == ([1, 3, 4, 5], False)
    assert positions(account="a") == ([2], False)
    assert positions(metric_code="n") == ([4], False)
    assert positions(since_offset=3) == ([3, 4, 5], False)
    assert positions(since_offset=4, after=4) == ([5], False)
    assert positions(after=99) == ([], False)


def test_alerts_of_a_deleted_metric_keep_their_names() -> None:
    twin = alerting()
    twin.delete("m")
    lines, _ = query.list_alerts(twin.machine, metric_code="m")
    assert [line.threshold_code for line in lines] == ["up", "up", "low", "up"]
