"""A metric and a total as JSON: their members, in the command line's words.

Owns both directions for metrics (`MetricBody` in and out) and the columns of a total, which is
the same in every route: one total, a window of a series, a group, an account of a list.

    {"code": "tokens", "type": "sum", "period": "month", "cycle_day": 1, "zone": "UTC",
     "dimensions": [{"key": "model", "values": ["small", "large"]}],
     "thresholds": [{"code": "high", "value": 1000, "when": "at-or-above", "again": false}],
     "recurring": false, "resolution": "day", "field": ""}

`value` of a total is the metric's own number; for an average it is the floor, and `sum` and
`count` are exact. Where nothing was counted, what has no meaning is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from unimeter import limits
from unimeter.accounts import STRING_PREFIX
from unimeter.errors import InvalidInputError
from unimeter.instants import format_ns
from unimeter.limits import VALUE_MAX, VALUE_MIN
from unimeter.period_words import parse_period, period_word
from unimeter.server.web.api.places import checked_definition
from unimeter.server.web.problems import Problem, bad
from unimeter.types import (
    Account,
    AggType,
    AggValue,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    Resolution,
)

KINDS: Final = {agg.name.lower().replace("_", "-"): agg for agg in AggType}
WHENS: Final = {"at-or-above": Direction.RISING, "at-or-below": Direction.FALLING}
_WHEN_OF: Final = {direction: when for when, direction in WHENS.items()}
_KIND_OF: Final = {agg: kind for kind, agg in KINDS.items()}
_PERIOD: Final = "hour, day, week, month, lifetime, or a duration: 30d, 12h, 90m"
NAME_PATTERN: Final = r"^[^\x00-\x1f\x7f]+$"
_DIGITS: Final = "^-?[0-9]{1,19}$"


def _text(bytes_max: int) -> Meta:
    """A name: its bytes are counted by the engine; what has more characters has more bytes."""
    return Meta(min_length=1, max_length=bytes_max, pattern=NAME_PATTERN)


MetricCode = Annotated[str, _text(limits.METRIC_CODE_BYTES_MAX)]
AccountName = (
    Annotated[int, Meta(ge=0)]
    | Annotated[str, Meta(min_length=1, max_length=limits.ACCOUNT_BYTES_MAX + len(STRING_PREFIX))]
)


class DimensionBody(msgspec.Struct, forbid_unknown_fields=True):
    """A property that totals are kept by; without values, any may come."""

    key: Annotated[str, _text(limits.PROPERTY_KEY_BYTES_MAX)]
    values: Annotated[
        list[Annotated[str, _text(limits.DIMENSION_VALUE_BYTES_MAX)]],
        Meta(max_length=limits.DIMENSION_VALUES_MAX),
    ] = []


class ThresholdBody(msgspec.Struct, forbid_unknown_fields=True):
    """Raises an alert when a period's total reaches it; `again`: at each crossing."""

    code: Annotated[str, _text(limits.THRESHOLD_CODE_BYTES_MAX)]
    value: Annotated[int, Meta(ge=VALUE_MIN, le=VALUE_MAX)] | Annotated[str, Meta(pattern=_DIGITS)]
    when: Literal["at-or-above", "at-or-below"] = "at-or-above"
    again: bool = False


class MetricBody(msgspec.Struct, forbid_unknown_fields=True):
    """A metric: how the values of events become a total."""

    code: MetricCode
    type: Literal["count", "sum", "max", "latest", "count-unique", "min", "avg"]
    period: Annotated[
        str,
        Meta(description=_PERIOD),
    ] = "30d"
    cycle_day: Annotated[
        int,
        Meta(
            ge=limits.CYCLE_DAY_MIN,
            le=limits.CYCLE_DAY_MAX,
            description="the day a month begins",
        ),
    ] = 1
    zone: Annotated[str, Meta(description="IANA zone of hours, days, weeks and months")] = "UTC"
    dimensions: Annotated[
        list[DimensionBody], Meta(max_length=limits.DIMENSIONS_PER_METRIC_MAX)
    ] = []
    thresholds: Annotated[
        list[ThresholdBody], Meta(max_length=limits.THRESHOLDS_PER_METRIC_MAX)
    ] = []
    recurring: Annotated[
        bool, Meta(description="count-unique: members stay until they are removed")
    ] = False
    resolution: Annotated[
        Literal["hour", "day", "period"], Meta(description="the buckets totals are kept by")
    ] = "day"
    field: Annotated[str, Meta(description="a note: where the values come from")] = ""


def metric_of(body: MetricBody, root: str = "$") -> MetricSchema:
    """The definition; a problem that names the member which is against a rule."""
    try:
        period_type, length = parse_period(body.period)
    except InvalidInputError as error:
        raise bad(f"{root}.period", str(error), _PERIOD) from None
    schema = MetricSchema(
        code=body.code,
        agg_type=KINDS[body.type],
        recurring=body.recurring,
        field_name=body.field,
        period_type=period_type,
        billing_cycle_day=body.cycle_day,
        filters=[DimensionFilter(one.key, list(one.values)) for one in body.dimensions],
        thresholds=[
            AlertThreshold(
                one.code, _value(one, f"{root}.thresholds[{at}]"), one.again, WHENS[one.when]
            )
            for at, one in enumerate(body.thresholds)
        ],
        period=length,
        zone=body.zone,
        resolution=Resolution[body.resolution.upper()],
    )
    return checked_definition(schema, root)


def _value(threshold: ThresholdBody, place: str) -> int:
    value = int(threshold.value)
    if not VALUE_MIN <= value <= VALUE_MAX:
        raise bad(f"{place}.value", f"is {value}", "an integer from -2^63 to 2^63-1")
    return value


def metric_json(schema: MetricSchema) -> dict[str, Any]:
    """The members of a metric, as `MetricBody` reads them back."""
    return {
        "code": schema.code,
        "type": _KIND_OF[AggType(schema.agg_type)],
        "period": period_word(schema),
        "cycle_day": schema.billing_cycle_day,
        "zone": schema.zone,
        "dimensions": [{"key": one.key, "values": list(one.values)} for one in schema.filters],
        "thresholds": [
            {
                "code": one.code,
                "value": one.value,
                "when": _WHEN_OF[Direction(one.direction)],
                "again": bool(one.recurring),
            }
            for one in schema.thresholds
        ],
        "recurring": bool(schema.recurring),
        "resolution": Resolution(schema.resolution).name.lower(),
        "field": schema.field_name,
    }


METRIC_COLUMNS: Final = tuple(MetricBody.__struct_fields__)


def kind_of(schema: MetricSchema) -> str:
    """How a metric adds up, in the word of its JSON: count, sum, ..., count-unique."""
    return _KIND_OF[AggType(schema.agg_type)]


# --- totals ------------------------------------------------------------------------

INTEGER: Final[Mapping[str, Any]] = {
    "type": ["integer", "string"],
    "description": "a string of digits beyond 2^53 - 1",
}
MAYBE_INTEGER: Final[Mapping[str, Any]] = {**INTEGER, "type": ["integer", "string", "null"]}
TIME: Final[Mapping[str, Any]] = {"type": "string", "format": "date-time"}
MAYBE_TIME: Final[Mapping[str, Any]] = {"type": ["string", "null"], "format": "date-time"}
TEXT: Final[Mapping[str, Any]] = {"type": "string"}
ACCOUNT: Final[Mapping[str, Any]] = {
    "type": ["integer", "string"],
    "description": "an integer account beyond 2^53 - 1 is a string of digits",
}

NUMBERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "value": {**INTEGER, "description": "the metric's own number"},
    "count": {"type": ["integer", "string"], "description": "events; of count-unique: members"},
    "sum": MAYBE_INTEGER,
    "min": MAYBE_INTEGER,
    "max": MAYBE_INTEGER,
    "last": MAYBE_INTEGER,
    "last_at": MAYBE_TIME,
    "average": {"type": ["number", "null"], "description": "for reading; bill from sum and count"},
    "alert_flags": {"type": "integer", "description": "bit i: threshold i fired in the period"},
}
SPAN: Final[Mapping[str, Mapping[str, Any]]] = {"start": TIME, "end": TIME}
TOTAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "account": ACCOUNT,
    "metric": TEXT,
    "aggregation": TEXT,
    **SPAN,
    **NUMBERS,
}
"""A total's columns and what each holds."""


def numbers(value: AggValue, schema: MetricSchema) -> list[Any]:
    """The cells of `NUMBERS`."""
    own = value.number(schema.agg_type)
    if schema.agg_type == AggType.COUNT_UNIQUE or not value.count:
        return [own, value.count, None, None, None, None, None, None, value.alert_flags]
    return [
        own,
        value.count,
        value.sum,
        value.min,
        value.max,
        value.last_value,
        format_ns(value.last_timestamp) if value.last_timestamp else None,
        value.sum / value.count,
        value.alert_flags,
    ]


def total_cells(
    account: Account, schema: MetricSchema, start_ns: int, end_ns: int, value: AggValue
) -> list[Any]:
    """The cells of `TOTAL`."""
    head = [account, schema.code, kind_of(schema), format_ns(start_ns), format_ns(end_ns)]
    return head + numbers(value, schema)


# --- for the OpenAPI page -------------------------------------------------------------


def object_schema(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An object with these members."""
    return {"type": "object", "required": list(columns), "properties": dict(columns)}


def rows_schema(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The answer of a list: rows of these columns."""
    rows = {"type": "array", "items": object_schema(columns)}
    return {
        "type": "object",
        "required": ["rows"],
        "properties": {"rows": rows, "cursor": TEXT, "position": {"type": "integer"}},
    }


def same_definition(one: MetricSchema, other: MetricSchema) -> bool:
    """Whether two definitions are the same in all that JSON shows."""
    return metric_json(one) == metric_json(other)


def no_metric(code: str) -> Problem:
    """The 404 of a code that stands for no metric."""
    return Problem(404, "not-found", f"there is no metric {code[:80]!r}")
