"""The machine against the independent meter, over logs that hypothesis makes up."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from tests.engine.dice import throw
from tests.engine.twin import Batch, Twin, event

from unimeter.periods import DAY_NS, HOUR_NS
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
    to_ns,
)

JAN = to_ns(datetime(2024, 1, 1, tzinfo=timezone.utc))
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"]
ACCOUNTS: list[int | str] = [7, 8, 0, 2**64 - 1, "7", "anna"]
VALUES = st.one_of(
    st.integers(-5, 5), st.sampled_from([2**63 - 1, -(2**63), 2**62, 10**12, -(10**12)])
)
TAGS = ["", "x", "y", "z"]


@st.composite
def schemas(draw: st.DrawFn, code: str = "m") -> MetricSchema:
    agg = draw(st.sampled_from(list(AggType)))
    kind = draw(st.sampled_from(list(PeriodType)))
    period = None
    if kind == PeriodType.FIXED:
        lengths = [None, timedelta(minutes=90), timedelta(hours=36), timedelta(days=1)]
        period = draw(st.sampled_from([*lengths, timedelta(days=73_000)]))
    dimensions = [
        DimensionFilter(key, draw(st.sampled_from([[], ["x", "y"]])))
        for key in draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3))
    ]
    thresholds = [
        AlertThreshold(
            f"t{number}",
            draw(st.integers(-3, 6)),
            draw(st.booleans()),
            draw(st.sampled_from(list(Direction))),
        )
        for number in range(draw(st.integers(0, 3)))
    ]
    return MetricSchema(
        code,
        agg,
        recurring=agg == AggType.COUNT_UNIQUE and draw(st.booleans()),
        period_type=kind,
        billing_cycle_day=draw(st.integers(1, 28)) if kind == PeriodType.CALENDAR else 1,
        filters=dimensions,
        thresholds=thresholds,
        period=period,
        zone="UTC" if kind == PeriodType.FIXED else draw(st.sampled_from(ZONES)),
        resolution=draw(st.sampled_from(list(Resolution))),
    )


def instants() -> st.SearchStrategy[int]:
    """Few enough that many meet, on and beside the edges of buckets, hours to months apart."""
    return st.builds(
        lambda days, hours, nudge: JAN + days * DAY_NS + hours * HOUR_NS + nudge,
        st.sampled_from([0, 0, 0, 1, 2, 30, 31, 45, 90]),
        st.sampled_from([0, 0, 1, 5, 23]),
        st.sampled_from([-1, 0, 0, 1, 1800 * 10**9]),
    )


@st.composite
def rows(draw: st.DrawFn, codes: list[str], version: int) -> Any:
    tags = {
        key: draw(st.sampled_from(TAGS)) for key in draw(st.sampled_from(["", "a", "ab", "bd"]))
    }
    if version == 1:
        tags = {key: text for key, text in tags.items() if text}
    return event(
        draw(st.sampled_from(ACCOUNTS[:4] if version == 1 else ACCOUNTS)),
        draw(st.sampled_from(codes)),
        draw(st.integers(0, 4)) if version == 1 else draw(VALUES),
        draw(st.one_of(st.just(0), instants())),
        draw(st.sampled_from([0, 0, 0, 1, 2])),
        draw(st.sampled_from([None, None, "i", "j"])) if version == 2 else None,
        **tags,
    )


@st.composite
def batches(draw: st.DrawFn, codes: list[str]) -> Batch:
    version = draw(st.sampled_from([1, 2, 2]))
    return Batch(tuple(draw(st.lists(rows(codes, version), min_size=1, max_size=8))), version)


LONG = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@LONG
@given(st.data())
def test_any_log_gives_the_numbers_of_the_meter(data: st.DataObject) -> None:
    twin = Twin(JAN)
    codes = ["m", "n", "unknown"]
    for code in codes[:2]:
        assert twin.put(data.draw(schemas(code), label=code)) == ""
    for _ in range(data.draw(st.integers(1, 5), label="entries")):
        pause = data.draw(st.sampled_from([0, 1, HOUR_NS, DAY_NS, 35 * DAY_NS, 36 * DAY_NS]))
        entry = data.draw(st.lists(batches(codes), min_size=1, max_size=3), label="entry")
        twin.ingest(*entry, at=twin.now + pause)
    twin.check_alerts()
    twin.check_replay()
    for _ in range(3):
        ask(twin, data, codes[:2])


def ask(twin: Twin, data: st.DataObject, codes: list[str]) -> None:
    """Ask both everything about some range."""
    account = data.draw(st.sampled_from(ACCOUNTS), label="account")
    code = data.draw(st.sampled_from(codes), label="code")
    start = data.draw(instants(), label="start")
    length = st.sampled_from([1, HOUR_NS, DAY_NS, 2 * DAY_NS, 31 * DAY_NS, 100 * DAY_NS])
    end = data.draw(st.one_of(length.map(lambda n: start + n), instants()), label="end")
    if end <= start:
        return
    declared = [dimension.key for dimension in twin.model.find(code).schema.filters]
    keys: list[str] = []
    filters: dict[str, Any] = {}
    if declared:
        keys = data.draw(st.lists(st.sampled_from(declared), unique=True), label="keys")
        values = st.one_of(st.sampled_from(TAGS), st.lists(st.sampled_from(TAGS), max_size=2))
        filters = data.draw(st.dictionaries(st.sampled_from(declared), values), label="filters")
    window = data.draw(st.sampled_from([1, 2, 3] if end - start > 3 * DAY_NS else [0, 1, 2, 3]))
    zone = data.draw(st.sampled_from(["", "Europe/Berlin", "Asia/Kathmandu"]), label="zone")
    twin.check_everything(account, code, start, end, keys, filters, window, zone)


@LONG
@given(st.data())
def test_metrics_that_change_and_go_while_events_come(data: st.DataObject) -> None:
    twin = Twin(JAN)
    schema = data.draw(schemas(), label="schema")
    twin.put(schema)
    for step in range(data.draw(st.integers(2, 6), label="steps")):
        twin.ingest(data.draw(batches(["m"]), label="batch"), at=twin.now + HOUR_NS)
        what = data.draw(st.sampled_from(["nothing", "threshold", "value", "delete"]), label="then")
        if what == "threshold" and len(schema.thresholds) < 8:
            added = AlertThreshold(
                f"n{step}", data.draw(st.integers(-2, 4)), data.draw(st.booleans())
            )
            schema.thresholds = [*schema.thresholds, added]
            assert twin.put(schema) == ""
        elif what == "value":
            for dimension in schema.filters:
                if dimension.values and "z" not in dimension.values:
                    dimension.values = [*dimension.values, "z"]
            assert twin.put(schema) == ""
        elif what == "delete":
            twin.delete("m")
            schema = data.draw(schemas(), label="schema again")
            assert twin.put(schema) == ""
    twin.check_alerts()
    twin.check_replay()
    ask(twin, data, ["m"])


@pytest.mark.parametrize("seed", range(40))
def test_a_thrown_log_gives_the_numbers_of_the_meter(seed: int) -> None:
    twin = throw(seed)
    assert twin.stored or seed


def test_thrown_logs_reach_what_must_be_reached() -> None:
    twins = [throw(seed) for seed in range(100, 110)]
    statistics = [twin.machine.statistics() for twin in twins]
    for name in ("stored", "duplicates", "refused", "members", "combinations", "alerts"):
        assert sum(each[name] for each in statistics) > 0, name
    assert sum(len(twin.model.alerts) for twin in twins) > 50
