"""Rules of counting that only a special meeting of events shows, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from tests.engine.twin import Batch, Twin, event

from unimeter.periods import DAY_NS, HOUR_NS
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    Outcome,
    PeriodType,
    to_ns,
)

JAN = to_ns(datetime(2024, 1, 1, tzinfo=timezone.utc))
FEB = to_ns(datetime(2024, 2, 1, tzinfo=timezone.utc))
ADD, REMOVE = 1, 2


def twin_of(agg: AggType = AggType.SUM, **more: Any) -> Twin:
    twin = Twin(JAN)
    assert twin.put(MetricSchema("m", agg, **more)) == ""
    return twin


def feed(twin: Twin, *rows: Any, at: int = 0, version: int = 2) -> list[Outcome]:
    return twin.ingest(Batch(rows, version), at=at)[0]


# --- keys -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, Outcome.DUPLICATE),
        ({"value": 2}, Outcome.CONFLICT),
        ({"timestamp_ns": JAN + 1}, Outcome.CONFLICT),
        ({"timestamp_ns": 0}, Outcome.CONFLICT),
        ({"operation": ADD}, Outcome.CONFLICT),
        ({"properties": (("b", "2"), ("a", "1"))}, Outcome.CONFLICT),
        ({"properties": ()}, Outcome.CONFLICT),
        ({"account": 8}, Outcome.STORED),
        ({"account": "7"}, Outcome.STORED),
        ({"id": "other"}, Outcome.STORED),
        ({"metric_code": "n"}, Outcome.STORED),
    ],
)
def test_an_id_is_a_duplicate_only_with_the_same_body(change: Any, outcome: Outcome) -> None:
    twin = twin_of(AggType.COUNT_UNIQUE)
    twin.put(MetricSchema("n", AggType.COUNT_UNIQUE))
    row = event(value=1, at=JAN, id="x", a="1", b="2")
    again = replace(row, **change)
    assert feed(twin, row, again) == [Outcome.STORED, outcome]
    assert feed(twin, again, row) == [
        outcome if outcome != Outcome.STORED else Outcome.DUPLICATE,
        Outcome.DUPLICATE,
    ]


def test_a_timestamp_that_the_leader_set_is_no_part_of_the_body() -> None:
    twin = twin_of()
    row = event(id="x")
    assert feed(twin, row) == [Outcome.STORED]
    assert feed(twin, row, at=JAN + HOUR_NS) == [Outcome.DUPLICATE]


@pytest.mark.parametrize("version", [1, 2])
def test_a_key_is_remembered_for_35_days_and_then_counts_again(version: int) -> None:
    row = event(at=JAN) if version == 1 else event(id="x")
    for days, outcome in ((35, Outcome.DUPLICATE), (36, Outcome.STORED)):
        twin = twin_of()
        feed(twin, row, version=version, at=JAN + DAY_NS - 1)
        at = JAN + days * DAY_NS + (DAY_NS - 1 if days == 35 else 0)
        assert feed(twin, row, version=version, at=at) == [outcome]
        assert feed(twin, row, version=version) == [Outcome.DUPLICATE]
        twin.check_replay()


def test_a_refused_event_claims_no_key() -> None:
    twin = twin_of(filters=[DimensionFilter("a", ["1"])])
    assert feed(twin, event(id="x", a="2"), event(id="x", a="1")) == [
        Outcome.DIMENSION_NOT_ALLOWED,
        Outcome.STORED,
    ]


@pytest.mark.parametrize("key", ["value", "operation", "timestamp_ns", "account", "properties"])
def test_v1_content_differs_by_every_field(key: str) -> None:
    twin = twin_of(AggType.COUNT_UNIQUE)
    other = {"value": 2, "operation": ADD, "timestamp_ns": JAN + 1, "account": 8}
    row = event(value=1, at=JAN, a="1")
    changed = replace(row, **{key: other.get(key, (("a", "2"),))})
    outcomes = feed(twin, row, changed, row, changed, version=1)
    assert outcomes == [Outcome.STORED] * 2 + [Outcome.DUPLICATE] * 2


# --- members ----------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [[], [DimensionFilter("a")]])
@pytest.mark.parametrize("recurring", [False, True])
@pytest.mark.parametrize("last", [ADD, REMOVE])
def test_of_two_operations_at_one_instant_the_later_in_the_log_holds(
    dimensions: list[DimensionFilter], recurring: bool, last: int
) -> None:
    twin = twin_of(AggType.COUNT_UNIQUE, recurring=recurring, filters=dimensions)
    feed(twin, event(value=5, at=JAN, operation=3 - last, a="x"))
    feed(twin, event(value=5, at=JAN, operation=last, a="y"))
    for start, end in ((JAN, FEB), (JAN, JAN + 1), (JAN - DAY_NS, JAN + DAY_NS)):
        assert twin.check_total(7, "m", start, end).count == (last == ADD)
        twin.check_everything(7, "m", start, end, ["a"] if dimensions else [])
    twin.check_members(7, "m", JAN)


def test_a_late_removal_does_not_undo_a_later_join() -> None:
    twin = twin_of(AggType.COUNT_UNIQUE, recurring=True, period_type=PeriodType.CALENDAR)
    feed(twin, event(value=5, at=FEB, operation=ADD), event(value=5, at=JAN, operation=REMOVE))
    assert twin.check_total(7, "m", FEB, FEB + DAY_NS).count == 1
    assert twin.check_total(7, "m", JAN, FEB).count == 0


# --- thresholds ---------------------------------------------------------------------


def test_members_carried_along_cross_no_threshold_through_late_events() -> None:
    """The total crosses in February; a late event of January must not cross it again."""
    seats = AlertThreshold("t", 2, recurring=True)
    twin = twin_of(
        AggType.COUNT_UNIQUE,
        recurring=True,
        thresholds=[seats],
        period_type=PeriodType.CALENDAR,
    )
    feed(twin, event(value=1, at=JAN), event(value=2, at=FEB), event(value=9, at=JAN, operation=2))
    feed(twin, event(value=3, at=JAN + 5), event(value=3, at=FEB, operation=REMOVE))
    assert [alert.offset for alert in twin.model.alerts] == [2]
    twin.check_alerts()


def test_eight_thresholds_cross_in_one_event_and_set_eight_bits() -> None:
    thresholds = [AlertThreshold(f"t{n}", n) for n in range(1, 9)]
    twin = twin_of(AggType.COUNT_UNIQUE, thresholds=thresholds)
    feed(twin, *[event(value=n, at=JAN + n) for n in range(8)])
    assert twin.check_total(7, "m", JAN, FEB).alert_flags == 255
    twin.check_alerts()
    rising = twin_of(thresholds=thresholds)
    feed(rising, event(value=8, at=JAN))
    assert rising.check_total(7, "m", JAN, FEB).alert_flags == 255
    assert [alert.offset for alert in rising.model.alerts] == [1] * 8
    rising.check_alerts()


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 0, -1])
@pytest.mark.parametrize("agg", [AggType.SUM, AggType.AVG, AggType.MAX, AggType.LATEST])
def test_thresholds_are_exact_at_the_ends_of_64_bits(agg: AggType, value: int) -> None:
    thresholds = [
        AlertThreshold("up", value, recurring=True),
        AlertThreshold("down", value, recurring=True, direction=Direction.FALLING),
    ]
    twin = twin_of(agg, thresholds=thresholds)
    steps = [0, 2**63 - 1, 1, 2**63 - 1, -(2**63), -1, -(2**63), -(2**63), 2**63 - 1, 2**63 - 1]
    for step in steps:
        feed(twin, event(value=step, at=JAN))
    twin.check_alerts()
    twin.check_total(7, "m", JAN, FEB)


def test_a_balance_in_one_lifetime_period_falls_to_its_threshold() -> None:
    from unimeter.types import LIFETIME

    low = AlertThreshold("low", 100, recurring=True, direction=Direction.FALLING)
    twin = twin_of(period=LIFETIME, thresholds=[low])
    for step, at in ((1000, JAN), (-850, FEB), (-100, FEB + 1), (500, FEB + 2), (-450, JAN)):
        feed(twin, event(value=step, at=at))
    assert [alert.value for alert in twin.model.alerts] == [50, 100]
    twin.check_alerts()


# --- dimensions ----------------------------------------------------------------------


def test_eight_dimensions_of_sixteen_properties() -> None:
    keys = [f"k{n}" for n in range(8)]
    twin = twin_of(filters=[DimensionFilter(key) for key in keys])
    for turn in range(12):
        tags = {f"k{n}": str(n * turn % 3) for n in range(16)}
        feed(twin, event(value=turn, at=JAN, **tags))
    twin.check_everything(7, "m", JAN, FEB, keys)
    twin.check_everything(7, "m", JAN, FEB, ["k5", "k1"], {"k7": ["1", "2"], "k0": "0"})


def test_an_event_without_a_dimension_is_counted_under_the_empty_value() -> None:
    twin = twin_of(filters=[DimensionFilter("open"), DimensionFilter("listed", ["x"])])
    rows = [event(at=JAN), event(at=JAN, open=""), event(at=JAN, listed="x")]
    assert feed(twin, *rows) == [Outcome.STORED] * 3
    assert feed(twin, event(at=JAN, listed="")) == [Outcome.DIMENSION_NOT_ALLOWED]
    assert twin.check_total(7, "m", JAN, FEB, {"open": ""}).count == 3
    assert twin.check_total(7, "m", JAN, FEB, {"listed": ""}).count == 2
    twin.check_everything(7, "m", JAN, FEB, ["open", "listed"])


def test_a_value_added_to_a_list_is_allowed_from_then_on() -> None:
    schema = MetricSchema("m", AggType.SUM, filters=[DimensionFilter("a", ["x"])])
    twin = Twin(JAN)
    twin.put(schema)
    assert feed(twin, event(at=JAN, a="y")) == [Outcome.DIMENSION_NOT_ALLOWED]
    twin.put(replace(schema, filters=[DimensionFilter("a", ["y", "x"])]))
    assert feed(twin, event(at=JAN, a="y"), event(at=JAN, a="x")) == [Outcome.STORED] * 2
    twin.check_replay()
