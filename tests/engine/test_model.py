"""The independent meter against numbers worked out by hand."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.periods import DAY_NS, UTC_TRANSITIONS
from unimeter.sim.counting import Row
from unimeter.sim.model import Model
from unimeter.types import (
    AggType,
    AggValue,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    OperationType,
    Outcome,
    PeriodType,
    to_ns,
)

JAN = to_ns(datetime(2024, 1, 1, tzinfo=timezone.utc))
FEB = to_ns(datetime(2024, 2, 1, tzinfo=timezone.utc))
MARCH = to_ns(datetime(2024, 3, 1, tzinfo=timezone.utc))
ADD, REMOVE = int(OperationType.ADD), int(OperationType.REMOVE)


def meter(agg: AggType, *thresholds: AlertThreshold, **more: object) -> Model:
    model = Model()
    schema = MetricSchema(
        "m",
        agg,
        period_type=PeriodType.CALENDAR,
        thresholds=list(thresholds),
        **more,  # type: ignore[arg-type]
    )
    model.put(schema, UTC_TRANSITIONS)
    return model


def feed(model: Model, *values: int, at: int = JAN, operation: int = 0) -> list[Outcome]:
    rows = [Row(7, "m", value, at + i, operation=operation) for i, value in enumerate(values)]
    return model.ingest(at, rows)


def test_every_aggregation_of_three_events() -> None:
    model = meter(AggType.SUM)
    feed(model, 5, -8, 4)
    assert model.total(7, "m", JAN, FEB) == AggValue(
        sum=1, count=3, max=5, min=-8, last_value=4, last_timestamp=JAN + 2
    )
    assert model.total(7, "m", JAN + 1, JAN + 2).sum == -8
    assert model.total(8, "m", JAN, FEB) == AggValue()


def test_latest_goes_by_timestamp_then_by_log() -> None:
    model = meter(AggType.LATEST)
    feed(model, 1, at=JAN + 9)
    feed(model, 2, at=JAN + 3)
    assert model.total(7, "m", JAN, FEB).last_value == 1
    feed(model, 3, at=JAN + 9)
    assert model.total(7, "m", JAN, FEB).last_value == 3


def test_outcomes_in_their_order_of_precedence() -> None:
    model = meter(AggType.SUM, filters=[DimensionFilter("model", ["small"])])
    good = (("model", "small"),)
    rows = [
        Row(7, "none", 1, JAN, refused=13),
        Row(7, "none", 1, JAN),
        Row(7, "m", 1, JAN, operation=ADD, properties=(("model", "huge"),)),
        Row(7, "m", 1, JAN, properties=(("model", "huge"),), id="a"),
        Row(7, "m", 1, JAN, properties=good, id="a"),
        Row(7, "m", 1, JAN + 5, properties=good, id="a"),  # the time was set by the leader
        Row(7, "m", 1, JAN + 5, properties=good, id="a", is_given=True),
        Row(7, "m", 2, JAN, properties=good, id="a"),
        Row(8, "m", 2, JAN, properties=good, id="a"),
    ]
    assert model.ingest(JAN, rows) == [
        Outcome.BAD_VALUE,
        Outcome.UNKNOWN_METRIC,
        Outcome.OPERATION_NOT_ALLOWED,
        Outcome.DIMENSION_NOT_ALLOWED,
        Outcome.STORED,
        Outcome.DUPLICATE,
        Outcome.CONFLICT,
        Outcome.CONFLICT,
        Outcome.STORED,
    ]
    assert model.next_offset == 10 and model.total(7, "m", JAN, FEB).count == 1


def test_content_keys_are_for_v1_events_with_a_timestamp() -> None:
    model = meter(AggType.COUNT)
    given = Row(7, "m", 1, JAN, is_given=True, is_v1=True)
    assert model.ingest(JAN, [given, given]) == [Outcome.STORED, Outcome.DUPLICATE]
    for is_v1, is_given in ((True, False), (False, True)):
        row = Row(7, "m", 9, JAN, is_given=is_given, is_v1=is_v1)
        assert model.ingest(JAN, [row, row]) == [Outcome.STORED, Outcome.STORED]


def test_a_key_is_known_for_35_days_of_the_log() -> None:
    model = meter(AggType.COUNT)
    row = Row(7, "m", 1, JAN, id="k")
    assert model.ingest(JAN + DAY_NS - 1, [row]) == [Outcome.STORED]
    assert model.ingest(JAN + 36 * DAY_NS - 1, [row]) == [Outcome.DUPLICATE]
    assert model.ingest(JAN + 36 * DAY_NS, [row]) == [Outcome.STORED]
    assert model.ingest(JAN + 37 * DAY_NS, [row]) == [Outcome.DUPLICATE]


def test_a_metric_created_again_starts_at_zero() -> None:
    model = meter(AggType.COUNT)
    row = Row(7, "m", 1, JAN, id="k")
    model.ingest(JAN, [row])
    model.delete("m")
    with pytest.raises(NotFoundError):
        model.total(7, "m", JAN, FEB)
    assert model.ingest(JAN, [row]) == [Outcome.UNKNOWN_METRIC]
    model.put(MetricSchema("m", AggType.SUM), UTC_TRANSITIONS)
    assert model.total(7, "m", JAN, FEB) == AggValue()
    assert model.ingest(JAN, [row]) == [Outcome.STORED]


# --- uniques ------------------------------------------------------------------------


def test_uniques_are_present_members_and_a_union_over_periods() -> None:
    model = meter(AggType.COUNT_UNIQUE)
    feed(model, 1, 2, 3)
    feed(model, 2, at=JAN + 50, operation=REMOVE)
    feed(model, 3, 4, at=FEB)
    assert model.total(7, "m", JAN, FEB).unique == 2
    assert model.total(7, "m", FEB, MARCH).unique == 2
    assert model.total(7, "m", JAN, MARCH).unique == 3
    assert model.total(7, "m", JAN, JAN + 50).unique == 3
    assert model.members(7, "m", JAN + 49) == [1, 2, 3]
    assert model.members(7, "m", JAN + 50) == [1, 3]
    assert model.members(7, "m", FEB) == [3]


def test_recurring_members_stay_until_they_are_removed() -> None:
    model = meter(AggType.COUNT_UNIQUE, recurring=True)
    feed(model, 1, 2, operation=ADD)
    feed(model, 2, at=FEB + 5, operation=REMOVE)
    assert model.total(7, "m", JAN, FEB).unique == 2
    assert model.total(7, "m", FEB, MARCH).unique == 1
    assert model.total(7, "m", FEB, FEB + 5).unique == 2
    assert model.total(7, "m", JAN, MARCH).unique == 2
    assert model.total(7, "m", MARCH, MARCH + 1).unique == 1
    assert model.members(7, "m", MARCH + 99) == [1]
    assert model.accounts("m", MARCH, MARCH + 1)[7].count == 1


# --- thresholds -----------------------------------------------------------------------


def crossings(model: Model) -> list[tuple[str, int, int]]:
    return [(alert.threshold_code, alert.offset, alert.value) for alert in model.alerts]


def test_a_rising_threshold_fires_once_a_period() -> None:
    model = meter(AggType.SUM, AlertThreshold("t", 10))
    feed(model, 9, 1, 5, -10, 10)
    assert crossings(model) == [("t", 2, 10)]
    assert model.total(7, "m", JAN, FEB).alert_flags == 1
    feed(model, 10, at=FEB)
    assert crossings(model) == [("t", 2, 10), ("t", 6, 10)]
    assert model.alerts[1].period_start_ns == FEB


def test_a_recurring_threshold_fires_at_each_crossing_never_per_event() -> None:
    model = meter(AggType.SUM, AlertThreshold("t", 10, recurring=True))
    feed(model, 10, 1, 1, -5, 1, 5, 1)
    assert crossings(model) == [("t", 1, 10), ("t", 6, 13)]


def test_a_falling_threshold_must_first_be_above() -> None:
    low = AlertThreshold("low", 100, direction=Direction.FALLING)
    model = meter(AggType.SUM, low)
    feed(model, 50, 40, 60, -50, -60)
    assert crossings(model) == [("low", 4, 100)]


def test_a_minimum_has_no_side_before_its_first_event() -> None:
    low = AlertThreshold("low", 5, direction=Direction.FALLING)
    model = meter(AggType.MIN, low)
    feed(model, 3)
    assert crossings(model) == [("low", 1, 3)]


def test_an_average_is_compared_exactly() -> None:
    model = meter(AggType.AVG, AlertThreshold("t", 2, recurring=True))
    feed(model, 1, 2, 2)  # 1, 3/2, 5/3
    assert not model.alerts
    feed(model, 3)  # 8/4
    assert crossings(model) == [("t", 4, 2)]


def test_a_threshold_added_later_does_not_fire_for_the_past() -> None:
    model = meter(AggType.COUNT)
    feed(model, 1, 1, 1)
    schema = MetricSchema("m", AggType.COUNT, thresholds=[AlertThreshold("t", 2)])
    model.put(schema, UTC_TRANSITIONS)
    feed(model, 1)
    assert not model.alerts


def test_seats_thresholds_look_at_who_is_active_now() -> None:
    model = meter(AggType.COUNT_UNIQUE, AlertThreshold("t", 2, recurring=True), recurring=True)
    feed(model, 1, operation=ADD)
    feed(model, 2, at=FEB, operation=ADD)
    feed(model, 2, at=FEB + 1, operation=REMOVE)
    feed(model, 2, at=FEB + 2, operation=ADD)
    assert crossings(model) == [("t", 2, 2), ("t", 4, 2)]


# --- dimensions and ranges ---------------------------------------------------------------


def test_filters_and_groups() -> None:
    model = meter(AggType.SUM, filters=[DimensionFilter("a"), DimensionFilter("b")])
    for value, a, b in ((1, "x", "y"), (10, "x", ""), (100, "z", "y"), (1000, "", "")):
        properties = tuple((k, v) for k, v in (("a", a), ("b", b), ("c", "q")) if v)
        model.ingest(JAN, [Row(7, "m", value, JAN, properties=properties)])
    assert model.total(7, "m", JAN, FEB, {"a": "x"}).sum == 11
    assert model.total(7, "m", JAN, FEB, {"a": ["x", "z"], "b": "y"}).sum == 101
    assert model.total(7, "m", JAN, FEB, {"a": []}).sum == 1111
    assert model.total(7, "m", JAN, FEB, {"a": ""}).sum == 1000
    lines = model.breakdown(7, "m", JAN, FEB, ["b"])
    assert [(pairs, total.sum) for pairs, total in lines] == [
        ([("b", "")], 1010),
        ([("b", "y")], 101),
    ]
    for wrong in ({"c": "q"}, {"d": "q"}):
        with pytest.raises(InvalidInputError):
            model.total(7, "m", JAN, FEB, wrong)
    with pytest.raises(InvalidInputError):
        model.breakdown(7, "m", JAN, FEB, ["a", "a"])
    with pytest.raises(InvalidInputError):
        model.total(7, "m", FEB, JAN)


def test_a_series_has_every_window_cut_to_the_range() -> None:
    model = meter(AggType.COUNT)
    feed(model, 1, at=JAN)
    feed(model, 1, at=JAN + 2 * DAY_NS)
    lines = model.series(7, "m", JAN + 5, JAN + 3 * DAY_NS, 1)
    assert [(start, end, total.count) for start, end, total in lines] == [
        (JAN + 5, JAN + DAY_NS, 0),
        (JAN + DAY_NS, JAN + 2 * DAY_NS, 0),
        (JAN + 2 * DAY_NS, JAN + 3 * DAY_NS, 1),
    ]
