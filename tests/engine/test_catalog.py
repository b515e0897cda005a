"""The catalog: what is refused and with which words, bytes, allowed changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimeter import limits
from unimeter.engine import catalog as module
from unimeter.engine.catalog import (
    ALREADY_EXISTS,
    CREATE,
    INVALID_INPUT,
    NOT_FOUND,
    OK,
    PUT,
    UPDATE,
    Catalog,
    check_schema,
    decode_schema,
    encode_schema,
    put_body,
)
from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.periods import UTC_TRANSITIONS, zone_transitions
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
)
from unimeter.wire import messages

CALLS = MetricSchema("api_calls", AggType.COUNT)
TOKENS = MetricSchema(
    "tokens",
    AggType.SUM,
    field_name="n",
    period_type=PeriodType.CALENDAR,
    billing_cycle_day=15,
    filters=[DimensionFilter("model", ["small", "large"]), DimensionFilter("kind")],
    thresholds=[
        AlertThreshold("soft", 1_000),
        AlertThreshold("low", -5, recurring=True, direction=Direction.FALLING),
    ],
    zone="Europe/Berlin",
    resolution=Resolution.HOUR,
)


def put(catalog: Catalog, schema: MetricSchema, mode: int = PUT, index: int = 1) -> tuple[int, str]:
    body = put_body(schema, mode)
    return catalog.put(index, body[0], body[1:])


# --- rules --------------------------------------------------------------------


def many(count: int, make: Any) -> list[Any]:
    return [make(f"x{number}") for number in range(count)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": ""}, "metric code is empty"),
        ({"code": "x" * 65}, "65 bytes"),
        ({"code": "é" * 33}, "66 bytes"),
        ({"code": "a\0b"}, "control character"),
        ({"code": "\ud800"}, "not valid Unicode"),
        ({"code": 7}, "must be a str, not int"),
        ({"agg_type": 99}, "agg_type is 99"),
        ({"agg_type": "SUM"}, "must be a AggType"),
        ({"recurring": True}, "only COUNT_UNIQUE"),
        ({"recurring": 3}, "True or False"),
        ({"field_name": "x" * 65}, "field_name"),
        ({"period_type": 9}, "period_type is 9"),
        ({"resolution": 9}, "resolution is 9"),
        ({"period_type": PeriodType.CALENDAR, "billing_cycle_day": 0}, "outside 1-28"),
        ({"period_type": PeriodType.CALENDAR, "billing_cycle_day": 29}, "outside 1-28"),
        ({"billing_cycle_day": 1.0}, "must be an int"),
        ({"billing_cycle_day": 15}, "no meaning for FIXED"),
        ({"period": timedelta(seconds=59)}, "outside 1 minute"),
        ({"period": timedelta(days=73_001)}, "outside 1 minute"),
        ({"period": 30}, "must be a timedelta"),
        ({"period_type": PeriodType.DAY, "period": timedelta(days=1)}, "FIXED only"),
        ({"zone": "Europe/Berlin"}, "no meaning for FIXED"),
        ({"period_type": PeriodType.DAY, "zone": "Mars/Olympus"}, "'Mars/Olympus'"),
        ({"period_type": PeriodType.DAY, "zone": ""}, "zone is empty"),
        ({"filters": many(9, DimensionFilter)}, "at most 8"),
        ({"filters": [DimensionFilter("")]}, "dimension key is empty"),
        ({"filters": [DimensionFilter("k" * 33)]}, "33 bytes"),
        ({"filters": [DimensionFilter("k"), DimensionFilter("k")]}, "'k' is given twice"),
        ({"filters": [DimensionFilter("k", ["a", "a"])]}, "'a' is given twice"),
        ({"filters": [DimensionFilter("k", [""])]}, "is empty"),
        ({"filters": [DimensionFilter("k", ["v" * 65])]}, "65 bytes"),
        ({"filters": [DimensionFilter("k", "abc")]}, "list of str"),
        ({"filters": [DimensionFilter("k", many(1025, str))]}, "at most 1024"),
        ({"thresholds": many(9, lambda code: AlertThreshold(code, 1))}, "at most 8"),
        ({"thresholds": [AlertThreshold("", 1)]}, "threshold code is empty"),
        ({"thresholds": [AlertThreshold("t" * 33, 1)]}, "33 bytes"),
        ({"thresholds": [AlertThreshold("t", 1), AlertThreshold("t", 2)]}, "given twice"),
        ({"thresholds": [AlertThreshold("t", 2**63)]}, "64-bit"),
        ({"thresholds": [AlertThreshold("t", -(2**63) - 1)]}, "64-bit"),
        ({"thresholds": [AlertThreshold("t", 1.5)]}, "scale"),
        ({"thresholds": [AlertThreshold("t", 1, direction=5)]}, "direction is 5"),
    ],
)
def test_a_bad_schema_is_refused_with_the_rule_it_breaks(change: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        put_body(replace(CALLS, **change))
    assert change.get("code", "api_calls") in (*CALLS.code.split(), *[change.get("code")])
    assert str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        CALLS,
        TOKENS,
        MetricSchema("x" * 64, AggType.AVG, period=timedelta(minutes=1)),
        MetricSchema("credits", AggType.SUM, period=timedelta(days=73_000)),
        MetricSchema("seats", AggType.COUNT_UNIQUE, recurring=True),
        MetricSchema("é ü", AggType.MIN, filters=many(8, DimensionFilter)),
        MetricSchema("t", AggType.MAX, thresholds=many(8, lambda code: AlertThreshold(code, 1))),
        MetricSchema("h", AggType.LATEST, period_type=PeriodType.HOUR, zone="Asia/Kathmandu"),
    ],
)
def test_a_good_schema_comes_back_as_it_was(schema: MetricSchema) -> None:
    body = put_body(schema)
    found, transitions = decode_schema(body[1:])
    assert found == schema
    assert transitions == zone_transitions(schema.zone)
    assert encode_schema(found, transitions) == body[1:]


def test_the_default_period_is_listed_as_the_default() -> None:
    given_in_full = replace(CALLS, period=timedelta(days=30))
    assert put_body(given_in_full) == put_body(CALLS)
    assert decode_schema(put_body(CALLS)[1:])[0].period is None


def test_plain_integers_stand_for_enumerations() -> None:
    schema = MetricSchema("m", 1, period_type=1, resolution=0)  # type: ignore[arg-type]
    assert decode_schema(put_body(schema)[1:])[0].agg_type is AggType.SUM


def test_an_unknown_put_mode_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="mode 3"):
        put_body(CALLS, 3)
    assert Catalog().put(1, 3, put_body(CALLS)[1:])[0] == INVALID_INPUT


def test_error_codes_and_modes_are_those_of_the_wire() -> None:
    assert (OK, INVALID_INPUT, NOT_FOUND, ALREADY_EXISTS) == (
        messages.ErrorCode.NONE,
        messages.ErrorCode.INVALID_INPUT,
        messages.ErrorCode.NOT_FOUND,
        messages.ErrorCode.ALREADY_EXISTS,
    )
    assert tuple(messages.PutMode) == (PUT, CREATE, UPDATE)


# --- bytes --------------------------------------------------------------------


def test_every_truncation_of_a_definition_is_refused() -> None:
    data = put_body(TOKENS)[1:]
    for length in range(len(data)):
        with pytest.raises(InvalidInputError):
            decode_schema(data[:length])
    with pytest.raises(InvalidInputError, match="after its end"):
        decode_schema(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_definitions_are_refused_or_mean_themselves(data: st.DataObject) -> None:
    raw = bytearray(put_body(replace(TOKENS, zone="UTC"))[1:])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        schema, transitions = decode_schema(bytes(raw))
    except InvalidInputError:
        return
    check_schema(schema)
    assert encode_schema(schema, transitions) == bytes(raw)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_without_a_traceback(raw: bytes) -> None:
    catalog = Catalog()
    code, words = catalog.put(1, PUT, raw)
    assert code == INVALID_INPUT and words
    assert not catalog.metrics


def test_utc_has_no_transitions() -> None:
    with pytest.raises(InvalidInputError, match="UTC"):
        decode_schema(encode_schema(CALLS, zone_transitions("Europe/Berlin")))


# --- putting ------------------------------------------------------------------


def test_the_same_definition_again_is_fine_in_every_mode() -> None:
    catalog = Catalog()
    assert put(catalog, CALLS, CREATE) == (OK, "")
    before = catalog.encode()
    for index, mode in enumerate((CREATE, PUT, UPDATE)):
        assert put(catalog, CALLS, mode, index + 2) == (OK, "")
    assert catalog.encode() == before


def test_create_of_another_definition_is_refused_even_where_a_change_would_not_be() -> None:
    catalog = Catalog()
    put(catalog, CALLS)
    code, words = put(catalog, replace(CALLS, field_name="other"), CREATE, 2)
    assert code == ALREADY_EXISTS and "'api_calls'" in words


def test_update_of_nothing_is_refused() -> None:
    code, words = put(Catalog(), CALLS, UPDATE)
    assert code == NOT_FOUND and "'api_calls'" in words


def test_a_metric_exposes_what_the_kernel_reads() -> None:
    catalog = Catalog()
    put(catalog, TOKENS, index=9)
    metric = catalog.find("tokens")
    assert (metric.number, metric.code_bytes, metric.agg) == (1, b"tokens", 1)
    assert metric.dimensions == [(b"model", (b"small", b"large")), (b"kind", ())]
    assert metric.thresholds == [("soft", 1_000, False, 0), ("low", -5, True, 1)]
    assert metric.period.kind == PeriodType.CALENDAR and metric.bucket.kind == PeriodType.HOUR
    assert not metric.buckets_are_periods and metric.created_index == 9 and not metric.deleted
    assert catalog.by_code == {b"tokens": 1} and catalog.metrics[0] is metric


@pytest.mark.parametrize(
    ("schema", "same"),
    [
        (CALLS, False),
        (replace(CALLS, resolution=Resolution.PERIOD), True),
        (replace(CALLS, period=timedelta(days=1)), True),
        (replace(CALLS, period=timedelta(minutes=90)), True),
        (replace(CALLS, period_type=PeriodType.HOUR), True),
        (replace(CALLS, period_type=PeriodType.WEEK), False),
    ],
)
def test_buckets_may_be_the_periods(schema: MetricSchema, same: bool) -> None:
    catalog = Catalog()
    put(catalog, schema)
    assert catalog.metrics[0].buckets_are_periods is same


ALLOWED: list[dict[str, Any]] = [
    {"field_name": "other"},
    {"thresholds": [*TOKENS.thresholds, AlertThreshold("hard", 9_000)]},
    {"thresholds": [AlertThreshold("hard", 9_000), *reversed(TOKENS.thresholds)]},
    {"filters": [DimensionFilter("model", ["huge", "small", "large"]), DimensionFilter("kind")]},
    {"filters": [DimensionFilter("kind"), DimensionFilter("model", ["large", "small"])]},
]


@pytest.mark.parametrize("change", ALLOWED)
def test_a_change_that_keeps_history_is_taken(change: Any) -> None:
    catalog = Catalog()
    put(catalog, TOKENS)
    metric = catalog.metrics[0]
    assert put(catalog, replace(TOKENS, **change), index=2) == (OK, "")
    assert catalog.metrics == [metric] and metric.created_index == 1
    assert metric.thresholds[:2] == [("soft", 1_000, False, 0), ("low", -5, True, 1)]
    assert [key for key, _ in metric.dimensions] == [b"model", b"kind"]
    assert metric.dimensions[0][1][:2] == (b"small", b"large")
    if "field_name" in change:
        assert metric.schema.field_name == "other"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"agg_type": AggType.MAX}, "agg_type is SUM and can't become MAX"),
    ({"billing_cycle_day": 1}, "billing_cycle_day is 15 and can't become 1"),
    ({"zone": "Asia/Tokyo"}, "zone is 'Europe/Berlin' and can't become 'Asia/Tokyo'"),
    ({"resolution": Resolution.DAY}, "resolution is HOUR and can't become DAY"),
    ({"period_type": PeriodType.DAY, "billing_cycle_day": 1}, "period_type is CALENDAR"),
    ({"thresholds": TOKENS.thresholds[:1]}, "'low' can't be removed"),
    ({"thresholds": [AlertThreshold("soft", 1), TOKENS.thresholds[1]]}, "1000 and can't become 1"),
    (
        {"thresholds": [TOKENS.thresholds[0], AlertThreshold("low", -5, recurring=True)]},
        "FALLING and can't become RISING",
    ),
    ({"filters": TOKENS.filters[:1]}, "dimension keys"),
    ({"filters": [*TOKENS.filters, DimensionFilter("new")]}, "dimension keys"),
    ({"filters": [DimensionFilter("model", ["small"]), DimensionFilter("kind")]}, "'large'"),
    ({"filters": [DimensionFilter("model"), DimensionFilter("kind")]}, "can't become open"),
    (
        {"filters": [TOKENS.filters[0], DimensionFilter("kind", ["in"])]},
        "is open to any value",
    ),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_a_change_that_breaks_history_is_refused(change: Any, words: str) -> None:
    catalog = Catalog()
    put(catalog, TOKENS)
    before = catalog.encode()
    code, sentence = put(catalog, replace(TOKENS, **change), index=2)
    assert code == ALREADY_EXISTS and words in sentence and "'tokens'" in sentence
    assert catalog.encode() == before


def test_a_change_of_the_period_length_names_both() -> None:
    catalog = Catalog()
    put(catalog, CALLS)
    code, words = put(catalog, replace(CALLS, period=timedelta(days=7)))
    assert code == ALREADY_EXISTS
    assert "period is 2592000000000000 ns and can't become 604800000000000 ns" in words


def test_the_zone_rules_of_the_first_put_stay() -> None:
    catalog = Catalog()
    put(catalog, TOKENS)
    newer_database = encode_schema(TOKENS, UTC_TRANSITIONS)
    assert catalog.put(2, PUT, newer_database) == (OK, "")
    assert catalog.metrics[0].transitions == zone_transitions("Europe/Berlin")


def test_thresholds_may_not_grow_past_the_limit_by_changes() -> None:
    catalog = Catalog()
    eight = [AlertThreshold(f"t{number}", number) for number in range(8)]
    put(catalog, replace(CALLS, thresholds=eight[:1]))
    assert put(catalog, replace(CALLS, thresholds=eight))[0] == OK
    assert len(catalog.metrics[0].thresholds) == limits.THRESHOLDS_PER_METRIC_MAX


# --- deleting ------------------------------------------------------------------


def test_a_deleted_code_is_free_and_its_number_is_not() -> None:
    catalog = Catalog()
    put(catalog, CALLS, index=1)
    put(catalog, TOKENS, index=2)
    assert catalog.delete(3, b"api_calls") == (OK, "")
    assert catalog.metrics[0].deleted and catalog.by_code == {b"tokens": 2}
    with pytest.raises(NotFoundError, match="'api_calls'"):
        catalog.find("api_calls")
    assert put(catalog, replace(CALLS, agg_type=AggType.SUM), CREATE, 4) == (OK, "")
    assert catalog.find("api_calls").number == 3
    assert [metric.code for metric in catalog.live()] == ["tokens", "api_calls"]
    assert [metric.number for metric in catalog.live(after=2)] == [3]


@pytest.mark.parametrize("code", [b"nothing", b"", b"\xff\xfe"])
def test_deleting_nothing_is_refused(code: bytes) -> None:
    assert Catalog().delete(1, code)[0] == NOT_FOUND


@pytest.mark.parametrize("code", ["nothing", "", "\ud800"])
def test_finding_nothing_says_so(code: str) -> None:
    with pytest.raises(NotFoundError):
        Catalog().find(code)


def test_the_number_of_metrics_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.limits, "METRICS_MAX", 2)
    monkeypatch.setattr(module.limits, "METRIC_NUMBERS_MAX", 3)
    catalog = Catalog()
    for number in range(2):
        assert put(catalog, replace(CALLS, code=f"m{number}"), index=number + 1)[0] == OK
    assert put(catalog, CALLS)[0] == INVALID_INPUT
    catalog.delete(5, b"m0")
    assert put(catalog, CALLS)[0] == OK
    catalog.delete(6, b"m1")
    code, words = put(catalog, replace(CALLS, code="fourth"))
    assert code == INVALID_INPUT and "one log" in words


# --- snapshots -----------------------------------------------------------------


def full_catalog() -> Catalog:
    catalog = Catalog()
    for index, schema in enumerate((CALLS, TOKENS, MetricSchema("s", AggType.COUNT_UNIQUE, True))):
        put(catalog, schema, index=index + 1)
    catalog.delete(10, b"api_calls")
    put(catalog, CALLS, index=11)
    put(catalog, replace(TOKENS, field_name="other"), index=12)
    return catalog


def test_a_snapshot_gives_the_same_catalog_and_the_same_bytes() -> None:
    catalog = full_catalog()
    data = catalog.encode()
    again = Catalog.decode(memoryview(data))
    assert again.encode() == data and again.by_code == catalog.by_code
    assert [metric.deleted for metric in again.metrics] == [True, False, False, False]
    assert again.find("tokens").thresholds == catalog.find("tokens").thresholds
    assert again.statistics() == {"metrics": 3, "metric_numbers": 4, "thresholds": 2}
    again.check_invariants()


def test_a_damaged_snapshot_is_a_value_error() -> None:
    data = full_catalog().encode()
    for length in range(0, len(data), 97):
        with pytest.raises(ValueError):
            Catalog.decode(data[:length])
    with pytest.raises(ValueError, match="share"):
        one = encode_schema(CALLS, UTC_TRANSITIONS)
        entry = module._METRIC.pack(1, 0, len(one)) + one
        Catalog.decode((2).to_bytes(4, "little") + entry + entry)
    with pytest.raises(ValueError, match="deleted before"):
        entry = module._METRIC.pack(5, 3, len(one)) + one
        Catalog.decode((1).to_bytes(4, "little") + entry)
