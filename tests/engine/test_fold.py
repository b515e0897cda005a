"""Folding many cells and members: more than the kernel makes room for at a time."""

from __future__ import annotations

import random
from datetime import datetime, timezone

import pytest
from tests.engine.twin import Batch, Twin, event

from unimeter.engine import query
from unimeter.periods import DAY_NS
from unimeter.types import AggType, DimensionFilter, MetricSchema, PeriodType, to_ns

JAN = to_ns(datetime(2024, 1, 1, tzinfo=timezone.utc))
MARCH = to_ns(datetime(2024, 3, 1, tzinfo=timezone.utc))


@pytest.mark.parametrize("recurring", [False, True])
@pytest.mark.parametrize("kind", [PeriodType.FIXED, PeriodType.WEEK])
def test_thousands_of_members_over_many_days_are_united(recurring: bool, kind: PeriodType) -> None:
    dice = random.Random(str((recurring, kind)))
    twin = Twin(JAN)
    twin.put(MetricSchema("m", AggType.COUNT_UNIQUE, recurring, period_type=kind))
    for _ in range(3):
        rows = [
            event(
                value=dice.randrange(1500),
                at=JAN + dice.randrange(60) * DAY_NS + dice.randrange(3),
                operation=dice.choice([0, 1, 2]),
            )
            for _ in range(2000)
        ]
        twin.ingest(Batch(tuple(rows)))
    for start, end in ((JAN, MARCH), (JAN + DAY_NS, JAN + 9 * DAY_NS), (JAN + 2, MARCH - 1)):
        assert twin.check_total(7, "m", start, end).count > 300
    plan = query.plan_series(twin.machine, 7, "m", JAN, MARCH, 2)
    assert twin.answer(plan) == twin.model.series(7, "m", JAN, MARCH, 2)
    twin.check_members(7, "m", JAN + 20 * DAY_NS + 1, limit=1000)
    twin.check_members(7, "m", MARCH, limit=1000)


def test_hundreds_of_combinations_are_added_up_by_group() -> None:
    dice = random.Random(5)
    twin = Twin(JAN)
    dimensions = [DimensionFilter(key) for key in "abc"]
    twin.put(MetricSchema("m", AggType.SUM, filters=dimensions))
    rows = [
        event(
            value=dice.choice([1, -7, 2**63 - 1, -(2**63)]),
            at=JAN + dice.randrange(60) * DAY_NS,
            **{key: str(dice.randrange(9)) for key in dice.sample("abc", dice.randrange(4))},
        )
        for _ in range(4000)
    ]
    twin.ingest(Batch(tuple(rows)))
    assert twin.machine.statistics()["combinations"] > 600
    filters = {"a": ["1", "2", "7"], "c": "3"}
    for keys in (["a"], ["b", "a"], ["c", "b", "a"]):
        for chosen in ({}, filters):
            plan = query.plan_breakdown(twin.machine, 7, "m", JAN, MARCH, keys, chosen)
            lines = twin.answer(plan)
            assert lines == twin.model.breakdown(7, "m", JAN, MARCH, keys, chosen)
    twin.check_total(7, "m", JAN, MARCH, filters)
    plan = query.plan_series(twin.machine, 7, "m", JAN, MARCH, 1, "", filters)
    assert twin.answer(plan) == twin.model.series(7, "m", JAN, MARCH, 1, "", filters)
