"""Events before they are sent: which mistakes raise, and which refuse one event."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter import limits
from unimeter.client.checks import (
    check_account,
    check_events,
    check_metric_code,
    check_schema,
    event_list,
    fits,
)
from unimeter.errors import InvalidInputError
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Event,
    MetricSchema,
    Outcome,
    to_ns,
)
from unimeter.wire.v2_ingest import decode_ingest, encode_ingest

UTC = timezone.utc


def outcome_of(event: Event) -> Outcome | None:
    return check_events([event]).get(0)


def test_generator_is_read_once_and_a_lone_event_is_named() -> None:
    events = event_list(Event(i, "m") for i in range(3))
    assert [event.account_id for event in events] == [0, 1, 2]
    for wrong in (Event(1, "m"), 7):
        with pytest.raises(InvalidInputError, match="ingest"):
            event_list(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"events\[1\] must be an Event"):
        check_events([Event(1, "m"), "m"])  # type: ignore[list-item]


@pytest.mark.parametrize("value", [1.0, True, None, "1"])
def test_value_that_is_no_int_raises(value: object) -> None:
    with pytest.raises(InvalidInputError, match="scale"):
        check_events([Event(1, "m", value)])  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["\ud800", "é" * 33, "x" * 65, ""])
def test_text_is_measured_in_bytes_of_utf8(text: str) -> None:
    assert outcome_of(Event(text, "m")) == Outcome.BAD_ACCOUNT
    assert outcome_of(Event(1, text)) == Outcome.BAD_METRIC_CODE
    assert outcome_of(Event(1, "m", id=text)) == Outcome.BAD_ID
    assert outcome_of(Event(1, "m", properties={text: "v"})) == Outcome.BAD_PROPERTY
    assert fits("é" * 32, 64, 1) and outcome_of(Event("é" * 32, "é" * 32)) is None


def test_bounds_of_numbers_and_times() -> None:
    first, last = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    assert outcome_of(Event(2**64 - 1, "m", -(2**63), first)) is None
    assert outcome_of(Event(0, "m", 2**63 - 1, last - tick)) is None
    assert outcome_of(Event(-1, "m")) == outcome_of(Event(2**64, "m")) == Outcome.BAD_ACCOUNT
    assert outcome_of(Event(1, "m", -(2**63) - 1)) == Outcome.BAD_VALUE
    assert outcome_of(Event(1, "m", 1, first - tick)) == Outcome.BAD_TIMESTAMP
    assert outcome_of(Event(1, "m", 1, last)) == Outcome.BAD_TIMESTAMP
    for zone in (timezone(timedelta(hours=-12)), timezone(timedelta(hours=14))):
        for extreme in (datetime.max, datetime.min):
            moment = extreme.replace(tzinfo=zone)
            assert outcome_of(Event(1, "m", 1, moment)) == Outcome.BAD_TIMESTAMP


def test_first_outcome_in_the_documented_order_wins() -> None:
    everything = Event(-1, "", 2**70, datetime(1980, 1, 1, tzinfo=UTC), 9, id="")  # type: ignore[arg-type]
    everything.properties = {"": ""}
    order = []
    fixes = [
        ("metric_code", "m"),
        ("account_id", 1),
        ("timestamp", None),
        ("value", 1),
        ("operation_type", 0),
        ("properties", {}),
        ("id", None),
    ]
    for name, good in fixes:
        order.append(outcome_of(everything))
        setattr(everything, name, good)
    assert order == sorted(order) and outcome_of(everything) is None  # type: ignore[type-var]


def test_program_mistake_raises_even_where_the_data_is_wrong_too() -> None:
    with pytest.raises(InvalidInputError):
        check_events([Event(-1, "", 1.5)])  # type: ignore[arg-type]


@pytest.mark.parametrize("account", [-1, 2**64, "", "x" * 65])
def test_account_of_a_query_raises(account: int | str) -> None:
    with pytest.raises(InvalidInputError, match="account_id"):
        check_account(account)


def test_metric_code_of_a_query_raises() -> None:
    for code in ("", "x" * 65, 7):
        with pytest.raises(InvalidInputError, match="metric_code"):
            check_metric_code(code)


texts = st.text(max_size=70)
events = st.builds(
    Event,
    account_id=st.one_of(st.integers(-5, 2**65), texts),
    metric_code=texts,
    value=st.integers(-(2**65), 2**65),
    timestamp=st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))),
    operation_type=st.integers(-1, 4),
    properties=st.dictionaries(texts, texts, max_size=18),
    id=st.one_of(st.none(), texts),
)


@given(st.lists(events, max_size=20))
def test_what_is_not_refused_can_be_sent_as_it_is(batch: list[Event]) -> None:
    refused = check_events(batch)
    kept = [event for index, event in enumerate(batch) if index not in refused]
    rows = decode_ingest(encode_ingest(kept, default_timestamp_ns=limits.TIMESTAMP_NS_MIN)).rows
    for event, row in zip(kept, rows, strict=True):
        assert (row.account, row.metric_code) == (event.account_id, event.metric_code)
        assert (row.value, row.operation, row.id) == (event.value, event.operation_type, event.id)
        assert dict(row.properties) == event.properties
        expected = 0 if event.timestamp is None else to_ns(event.timestamp)
        assert row.timestamp_ns == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"agg_type": "count"}, "agg_type must be of type int.*AggType.SUM"),
        ({"filters": ["region"]}, "DimensionFilter"),
        ({"filters": [DimensionFilter("r", "eu")]}, "values of 'r' must be a list of str"),
        ({"filters": None}, "filters must be a list"),
        ({"thresholds": [AlertThreshold("t", 1.5)]}, "scale"),
        ({"thresholds": 3}, "thresholds must be a list"),
        ({"period": 30}, "timedelta"),
        ({"zone": None}, "zone must be of type str"),
        ({"code": ""}, "metric_code"),
    ],
)
def test_part_of_a_schema_that_has_another_type_is_named(
    change: dict[str, object], words: str
) -> None:
    schema = MetricSchema("m", AggType.COUNT)
    for name, value in change.items():
        setattr(schema, name, value)
    with pytest.raises(InvalidInputError, match=words):
        check_schema(schema)


def test_every_plain_schema_passes() -> None:
    for agg_type in AggType:
        check_schema(MetricSchema("m", agg_type, True, period=timedelta(days=1)))
    with pytest.raises(InvalidInputError, match="MetricSchema"):
        check_schema("m")
