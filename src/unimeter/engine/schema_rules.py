"""What a metric's definition may say, and how it may change.

Owns every rule that a definition is refused by, with the words of the refusal:
what is wrong, where, and how to mend it. It refuses to know numbers, bytes and
totals, and whether a zone exists, which only the host that proposes the metric asks.

What a change may do is what keeps history meaningful: append thresholds, add
values to a dimension's list, rename the field. Thresholds and dimensions keep
their order, as the bits of `alert_flags` and stored combinations count on it.

The rules are applied twice: by the node that proposes a metric, for a quick
answer, and when the entry is applied, on every replica, where they decide. So they
must not depend on anything but the definition. That is why control characters are
looked for one by one: `str.isprintable` differs between releases of Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import IntEnum
from typing import Final, TypeVar

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.periods import FIXED_PERIOD_NS_DEFAULT
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
    check_integer,
)

_NS_PER_US: Final = 1_000


def check_text(text: object, what: str, bytes_max: int, *, may_be_empty: bool = False) -> bytes:
    """The UTF-8 of `text`, or InvalidInputError naming `what` and the rule it breaks."""
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} must be a str, not {type(text).__name__}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{what} {text!r} is not valid Unicode") from error
    if not encoded and not may_be_empty:
        raise InvalidInputError(f"{what} is empty; give it a name")
    if len(encoded) > bytes_max:
        raise InvalidInputError(
            f"{what} {text!r} has {len(encoded)} bytes of UTF-8; at most {bytes_max} are allowed"
        )
    if any(char < " " or char == "\x7f" for char in text):
        raise InvalidInputError(f"{what} {text!r} has a control character; remove it")
    return encoded


_Enum = TypeVar("_Enum", bound=IntEnum)


def check_enum(value: object, kind: type[_Enum], what: str) -> _Enum:
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and value in kind.__members__.values()
    ):
        return kind(value)
    names = ", ".join(kind.__members__)
    raise InvalidInputError(f"{what} is {value!r}; it must be a {kind.__name__}: {names}")


def _check_bool(value: object, what: str) -> None:
    if value is not True and value is not False and value not in (0, 1):
        raise InvalidInputError(f"{what} must be True or False, not {value!r}")


def _check_unique(names: Sequence[str], what: str) -> None:
    seen: list[str] = []
    for name in names:
        if name in seen:
            raise InvalidInputError(f"{what} {name!r} is given twice; each may appear once")
        seen.append(name)


def _check_count(count: int, count_max: int, what: str) -> None:
    if count > count_max:
        raise InvalidInputError(f"{what}: {count} given, at most {count_max} are allowed")


def check_schema(schema: MetricSchema) -> None:
    """Raise InvalidInputError, saying what, where and how to mend it, if a rule is broken.

    Whether the zone exists is not asked here: only the host that proposes
    the metric asks its database (`put_body`).
    """
    check_text(schema.code, "metric code", limits.METRIC_CODE_BYTES_MAX)
    where = f"metric {schema.code!r}"
    agg = check_enum(schema.agg_type, AggType, f"{where}: agg_type")
    check_text(
        schema.field_name,
        f"{where}: field_name",
        limits.FIELD_NAME_BYTES_MAX,
        may_be_empty=True,
    )
    check_enum(schema.resolution, Resolution, f"{where}: resolution")
    _check_bool(schema.recurring, f"{where}: recurring")
    if schema.recurring and agg != AggType.COUNT_UNIQUE:
        raise InvalidInputError(
            f"{where}: recurring carries members into the next period, which only "
            f"COUNT_UNIQUE has; leave it out for {agg.name}"
        )
    _check_period(schema, where)
    _check_dimensions(schema.filters, where)
    _check_thresholds(schema.thresholds, where)


def _check_period(schema: MetricSchema, where: str) -> None:
    kind = check_enum(schema.period_type, PeriodType, f"{where}: period_type")
    day = check_integer(schema.billing_cycle_day, f"{where}: billing_cycle_day")
    if not limits.CYCLE_DAY_MIN <= day <= limits.CYCLE_DAY_MAX:
        raise InvalidInputError(
            f"{where}: billing_cycle_day {day} is outside {limits.CYCLE_DAY_MIN}-"
            f"{limits.CYCLE_DAY_MAX}; choose a day that every month has"
        )
    if day != 1 and kind != PeriodType.CALENDAR:
        raise InvalidInputError(
            f"{where}: billing_cycle_day {day} has no meaning for {kind.name}; "
            "use period_type=PeriodType.CALENDAR or leave the day out"
        )
    _check_length(schema.period, kind, where)
    check_text(schema.zone, f"{where}: zone", limits.ZONE_BYTES_MAX)
    if schema.zone != "UTC" and kind == PeriodType.FIXED:
        raise InvalidInputError(
            f"{where}: zone {schema.zone!r} has no meaning for FIXED, whose periods count "
            "from 1970 UTC; use CALENDAR, DAY, WEEK or HOUR, or leave the zone out"
        )


def _check_length(period: timedelta | None, kind: PeriodType, where: str) -> None:
    if period is None:
        return
    if not isinstance(period, timedelta):
        raise InvalidInputError(f"{where}: period must be a timedelta, not {period!r}")
    if kind != PeriodType.FIXED:
        raise InvalidInputError(
            f"{where}: period is for FIXED only; {kind.name} has its own length, leave it out"
        )
    if not limits.PERIOD_NS_MIN <= to_period_ns(period) <= limits.PERIOD_NS_MAX:
        raise InvalidInputError(f"{where}: period {period} is outside 1 minute to 73,000 days")


def _check_dimensions(dimensions: Sequence[DimensionFilter], where: str) -> None:
    _check_count(len(dimensions), limits.DIMENSIONS_PER_METRIC_MAX, f"{where}: dimensions")
    for dimension in dimensions:
        check_text(dimension.key, f"{where}: dimension key", limits.PROPERTY_KEY_BYTES_MAX)
        inside = f"{where}: dimension {dimension.key!r}"
        values: object = dimension.values
        if not isinstance(values, list | tuple):
            raise InvalidInputError(f"{inside}: values must be a list of str, not {values!r}")
        _check_count(len(dimension.values), limits.DIMENSION_VALUES_MAX, f"{inside}: values")
        for value in dimension.values:
            check_text(value, f"{inside}: value", limits.DIMENSION_VALUE_BYTES_MAX)
        _check_unique(list(dimension.values), f"{inside}: value")
    _check_unique([dimension.key for dimension in dimensions], f"{where}: dimension key")


def _check_thresholds(thresholds: Sequence[AlertThreshold], where: str) -> None:
    _check_count(len(thresholds), limits.THRESHOLDS_PER_METRIC_MAX, f"{where}: thresholds")
    for threshold in thresholds:
        check_text(threshold.code, f"{where}: threshold code", limits.THRESHOLD_CODE_BYTES_MAX)
        inside = f"{where}: threshold {threshold.code!r}"
        value = check_integer(threshold.value, f"{inside}: value")
        if not limits.VALUE_MIN <= value <= limits.VALUE_MAX:
            raise InvalidInputError(f"{inside}: value {value} does not fit a signed 64-bit integer")
        _check_bool(threshold.recurring, f"{inside}: recurring")
        check_enum(threshold.direction, Direction, f"{inside}: direction")
    _check_unique([threshold.code for threshold in thresholds], f"{where}: threshold code")


def check_change(old: MetricSchema, new: MetricSchema) -> None:
    """Raise InvalidInputError naming field, old and new, unless history keeps its meaning."""
    for name in ("agg_type", "recurring", "period_type", "billing_cycle_day", "zone", "resolution"):
        _check_same(old, name, getattr(old, name), getattr(new, name))
    _check_same(old, "period", schema_period_ns(old), schema_period_ns(new), " ns")
    old_keys = sorted(dimension.key for dimension in old.filters)
    new_keys = sorted(dimension.key for dimension in new.filters)
    _check_same(old, "dimension keys", old_keys, new_keys)
    listed = {dimension.key: dimension.values for dimension in new.filters}
    for dimension in old.filters:
        _check_values(old.code, dimension, listed[dimension.key])
    offered = {threshold.code: threshold for threshold in new.thresholds}
    for threshold in old.thresholds:
        _check_threshold_kept(old.code, threshold, offered.get(threshold.code))


def _check_same(
    old: MetricSchema, name: str, before: object, after: object, unit: str = ""
) -> None:
    if before != after:
        was, wanted = _shown(before), _shown(after)
        raise InvalidInputError(
            f"metric {old.code!r}: {name} is {was}{unit} and can't become {wanted}{unit}, "
            "as totals already kept would change their meaning; create another metric"
        )


def _shown(value: object) -> str:
    return value.name if isinstance(value, IntEnum) else repr(value)


def _check_values(code: str, dimension: DimensionFilter, after: Sequence[str]) -> None:
    where = f"metric {code!r}: dimension {dimension.key!r}"
    if not dimension.values and after:
        raise InvalidInputError(
            f"{where} is open to any value and can't become a list {list(after)!r}; "
            "create another metric"
        )
    if dimension.values and not after:
        raise InvalidInputError(
            f"{where} allows {dimension.values!r} and can't become open; add the values you need"
        )
    for value in dimension.values:
        if value not in after:
            raise InvalidInputError(
                f"{where} allows {value!r}, which can't be taken away; list it too"
            )


def _check_threshold_kept(code: str, old: AlertThreshold, new: AlertThreshold | None) -> None:
    where = f"metric {code!r}: threshold {old.code!r}"
    if new is None:
        raise InvalidInputError(f"{where} can't be removed; list it too")
    for name in ("value", "recurring", "direction"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            raise InvalidInputError(
                f"{where}: {name} is {_shown(before)} and can't become {_shown(after)}; "
                "add a threshold with a new code"
            )


def merged(old: MetricSchema, new: MetricSchema) -> MetricSchema:
    """`new` with the order of `old`: what was there first, then what was added."""
    listed = {dimension.key: dimension.values for dimension in new.filters}
    filters = [
        DimensionFilter(
            dimension.key,
            dimension.values
            + [value for value in listed[dimension.key] if value not in dimension.values],
        )
        for dimension in old.filters
    ]
    known = [threshold.code for threshold in old.thresholds]
    added = [threshold for threshold in new.thresholds if threshold.code not in known]
    return MetricSchema(
        code=old.code,
        agg_type=old.agg_type,
        recurring=old.recurring,
        field_name=new.field_name,
        period_type=old.period_type,
        billing_cycle_day=old.billing_cycle_day,
        filters=filters,
        thresholds=old.thresholds + added,
        period=old.period,
        zone=old.zone,
        resolution=old.resolution,
    )


def to_period_ns(period: timedelta) -> int:
    return period // timedelta(microseconds=1) * _NS_PER_US


def schema_period_ns(schema: MetricSchema) -> int:
    if schema.period_type != PeriodType.FIXED:
        return 0
    return FIXED_PERIOD_NS_DEFAULT if schema.period is None else to_period_ns(schema.period)
