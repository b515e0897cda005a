"""The catalog: which metrics there are, and how one may change.

Owns the definitions, their bytes in the log and in snapshots, and every rule
that a definition or a change of one is refused by. It refuses to know totals:
the kernel reads a `Metric` and keeps the numbers elsewhere.

A metric gets the next number when it is created and keeps it; a number is
never used again. Deleting a metric frees its code only, so a metric created
later under that code has another number and starts at zero, and the alerts
of the old one can still name it.

    create ──> live ──put (compatible)──> live ──delete──> deleted, code free
                 └──put (anything else)──> refused: field, old, new

What a change may do is what keeps history meaningful: append thresholds, add
values to a dimension's list, rename the field. Thresholds and dimensions keep
their order, as the bits of `alert_flags` and stored combinations count on it.
Putting an equal definition again is fine and changes nothing; that includes
the zone's rules, which stay those of the first put, because totals are
already kept in its buckets.

A schema's bytes, little-endian; a text is a length (u8) and UTF-8:

    version u8 = 1 | aggregation u8 | recurring u8 | period u8 | cycle day u8
    | resolution u8 | period_ns i64 (0: not FIXED) | code | field name | zone
    | transitions u16, each: from i64 s, offset i32 s
    | dimensions u8, each: key, values u16, each a text
    | thresholds u8, each: code, value i64, recurring u8, direction u8

Rejected: JSON (two encoders may give two byte strings for one schema), and
dropping deleted metrics (their numbers would have to be remembered anyway).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import timedelta
from enum import IntEnum
from typing import Final, TypeVar

from unimeter import limits
from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.periods import (
    FIXED_PERIOD_NS_DEFAULT,
    UTC_TRANSITIONS,
    Calendar,
    Transitions,
    bucket_calendar,
    check_transitions,
    make_calendar,
    zone_transitions,
)
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

PUT: Final = 0  # create, or change compatibly
CREATE: Final = 1  # refuse if there is another one already
UPDATE: Final = 2  # refuse if there is none

# The numbers of wire.messages.ErrorCode, which the engine may not import.
OK: Final = 0
INVALID_INPUT: Final = 4
NOT_FOUND: Final = 5
ALREADY_EXISTS: Final = 6

Refusal = tuple[int, str]
"""(error code, sentence); (0, "") means done."""

_DONE: Final[Refusal] = (OK, "")
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<BBBBBBq")
_TRANSITION: Final = struct.Struct("<qi")
_THRESHOLD: Final = struct.Struct("<qBB")
_METRIC: Final = struct.Struct("<QQI")  # created index, deleted index, schema bytes
_NS_PER_US: Final = 1_000


# --- rules --------------------------------------------------------------------


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


def _check_enum(value: object, kind: type[_Enum], what: str) -> _Enum:
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
    agg = _check_enum(schema.agg_type, AggType, f"{where}: agg_type")
    check_text(
        schema.field_name,
        f"{where}: field_name",
        limits.FIELD_NAME_BYTES_MAX,
        may_be_empty=True,
    )
    _check_enum(schema.resolution, Resolution, f"{where}: resolution")
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
    kind = _check_enum(schema.period_type, PeriodType, f"{where}: period_type")
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
    if not limits.PERIOD_NS_MIN <= _to_period_ns(period) <= limits.PERIOD_NS_MAX:
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
        _check_enum(threshold.direction, Direction, f"{inside}: direction")
    _check_unique([threshold.code for threshold in thresholds], f"{where}: threshold code")


def check_change(old: MetricSchema, new: MetricSchema) -> None:
    """Raise InvalidInputError naming field, old and new, unless history keeps its meaning."""
    for name in ("agg_type", "recurring", "period_type", "billing_cycle_day", "zone", "resolution"):
        _check_same(old, name, getattr(old, name), getattr(new, name))
    _check_same(old, "period", _schema_period_ns(old), _schema_period_ns(new), " ns")
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


def _merged(old: MetricSchema, new: MetricSchema) -> MetricSchema:
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


# --- bytes --------------------------------------------------------------------


def _to_period_ns(period: timedelta) -> int:
    return period // timedelta(microseconds=1) * _NS_PER_US


def _schema_period_ns(schema: MetricSchema) -> int:
    if schema.period_type != PeriodType.FIXED:
        return 0
    return FIXED_PERIOD_NS_DEFAULT if schema.period is None else _to_period_ns(schema.period)


def _text(text: str) -> bytes:
    encoded = text.encode()
    assert len(encoded) < 256
    return bytes([len(encoded)]) + encoded


def encode_schema(schema: MetricSchema, transitions: Transitions) -> bytes:
    """The one byte string of a checked schema and the rules of its zone."""
    head = _HEAD.pack(
        _VERSION,
        schema.agg_type,
        bool(schema.recurring),
        schema.period_type,
        schema.billing_cycle_day,
        schema.resolution,
        _schema_period_ns(schema),
    )
    parts = [head, _text(schema.code), _text(schema.field_name), _text(schema.zone)]
    parts.append(len(transitions).to_bytes(2, "little"))
    parts.extend(_TRANSITION.pack(second, offset) for second, offset in transitions)
    parts.append(bytes([len(schema.filters)]))
    for dimension in schema.filters:
        parts.append(_text(dimension.key) + len(dimension.values).to_bytes(2, "little"))
        parts.extend(map(_text, dimension.values))
    parts.append(bytes([len(schema.thresholds)]))
    for threshold in schema.thresholds:
        parts.append(_text(threshold.code))
        parts.append(
            _THRESHOLD.pack(threshold.value, bool(threshold.recurring), threshold.direction)
        )
    return b"".join(parts)


class _Reader:
    """Takes values from the front of bytes; says so when they end early."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._position = 0

    def take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._data):
            raise InvalidInputError(
                f"definition ends at byte {len(self._data)}, at least {end} expected"
            )
        taken = bytes(self._data[self._position : end])
        self._position = end
        return taken

    def integer(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little")

    def text(self) -> str:
        raw = self.take(self.integer(1))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{raw!r} in a definition is not UTF-8") from error

    def check_end(self) -> None:
        if self._position != len(self._data):
            raise InvalidInputError(
                f"definition has {len(self._data) - self._position} bytes after its end"
            )


def _decode_dimension(reader: _Reader) -> DimensionFilter:
    key = reader.text()
    return DimensionFilter(key, [reader.text() for _ in range(reader.integer(2))])


def _decode_threshold(reader: _Reader) -> AlertThreshold:
    code = reader.text()
    value, recurring, direction = _THRESHOLD.unpack(reader.take(_THRESHOLD.size))
    if direction not in (0, 1) or recurring not in (0, 1):
        raise InvalidInputError(f"threshold {code!r}: flags {recurring}, {direction} are not known")
    return AlertThreshold(code, value, bool(recurring), Direction(direction))


def _decode_period(period_ns: int, kind: PeriodType) -> timedelta | None:
    """None for the default, so that what was put is what is listed."""
    expected_zero = kind != PeriodType.FIXED
    if expected_zero != (period_ns == 0) or period_ns % _NS_PER_US:
        raise InvalidInputError(f"period of {period_ns} ns is not one of {kind.name}")
    if period_ns in (0, FIXED_PERIOD_NS_DEFAULT):
        return None
    return timedelta(microseconds=period_ns // _NS_PER_US)


def decode_schema(data: bytes | memoryview) -> tuple[MetricSchema, Transitions]:
    """What `encode_schema` took; InvalidInputError if the bytes break any rule."""
    reader = _Reader(data)
    version, agg, recurring, kind, day, resolution, period_ns = _HEAD.unpack(
        reader.take(_HEAD.size)
    )
    if version != _VERSION or recurring not in (0, 1):
        raise InvalidInputError(f"definition of version {version} is not known here")
    kind = _check_enum(kind, PeriodType, "period_type")
    code, field_name, zone = reader.text(), reader.text(), reader.text()
    transitions = tuple(
        _TRANSITION.unpack(reader.take(_TRANSITION.size)) for _ in range(reader.integer(2))
    )
    schema = MetricSchema(
        code=code,
        agg_type=_check_enum(agg, AggType, "agg_type"),
        recurring=bool(recurring),
        field_name=field_name,
        period_type=kind,
        billing_cycle_day=day,
        filters=[_decode_dimension(reader) for _ in range(reader.integer(1))],
        thresholds=[_decode_threshold(reader) for _ in range(reader.integer(1))],
        period=_decode_period(period_ns, kind),
        zone=zone,
        resolution=_check_enum(resolution, Resolution, "resolution"),
    )
    reader.check_end()
    check_schema(schema)
    check_transitions(transitions)
    if zone == "UTC" and transitions != UTC_TRANSITIONS:
        raise InvalidInputError("UTC has no transitions")
    return schema, transitions


def put_body(schema: MetricSchema, mode: int = PUT) -> bytes:
    """The body of a METRIC_PUT entry, checked; for the node that proposes it.

    Asks this host's time zone database for the zone, the only time anybody does.
    """
    if mode not in (PUT, CREATE, UPDATE):
        raise InvalidInputError(f"mode {mode!r} is not 0 (put), 1 (create) or 2 (update)")
    check_schema(schema)
    return bytes([mode]) + encode_schema(schema, zone_transitions(schema.zone))


# --- the catalog ----------------------------------------------------------------


class Metric:
    """One metric as the kernel reads it. `number` counts from 1 and is never reused.

    `bucket` is the calendar totals are kept by; every period is made of whole
    buckets. `dimensions` are (key, allowed values; none = open) in bytes,
    `thresholds` (code, value, recurring, direction).
    """

    __slots__ = (
        "agg",
        "bucket",
        "buckets_are_periods",
        "code",
        "code_bytes",
        "combination_texts",
        "created_index",
        "deleted_index",
        "dimensions",
        "number",
        "period",
        "recurring",
        "schema",
        "thresholds",
        "transitions",
    )

    bucket: Calendar
    period: Calendar
    dimensions: list[tuple[bytes, tuple[bytes, ...]]]
    combination_texts: dict[int, tuple[str, ...]]
    """Values of combinations by number, which never change: queries keep them here."""
    thresholds: list[tuple[str, int, bool, int]]

    def __init__(
        self, number: int, schema: MetricSchema, transitions: Transitions, created_index: int
    ) -> None:
        assert number > 0 and created_index > 0
        self.number = number
        self.code = schema.code
        self.code_bytes = schema.code.encode()
        self.agg = int(schema.agg_type)
        self.recurring = schema.recurring
        self.transitions = transitions
        self.created_index = created_index
        self.deleted_index = 0
        self.combination_texts = {}
        self.period = make_calendar(
            schema.period_type, schema.billing_cycle_day, _schema_period_ns(schema), transitions
        )
        self.bucket = bucket_calendar(schema.resolution, self.period)
        self.buckets_are_periods = self.bucket.tiles_like(self.period)
        self.define(schema)

    @property
    def deleted(self) -> bool:
        """Whether the metric's code is free again."""
        return self.deleted_index > 0

    def define(self, schema: MetricSchema) -> None:
        """Take a schema that differs only as `check_change` allows."""
        assert schema.code == self.code and schema.agg_type == self.agg
        self.schema = schema
        self.dimensions = [
            (dimension.key.encode(), tuple(value.encode() for value in dimension.values))
            for dimension in schema.filters
        ]
        self.thresholds = [
            (threshold.code, threshold.value, threshold.recurring, int(threshold.direction))
            for threshold in schema.thresholds
        ]


class Catalog:
    """All metrics ever created; ``metrics[number - 1]`` is the one of that number."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.by_code: dict[bytes, int] = {}  # live ones only

    def put(self, index: int, mode: int, data: bytes | memoryview) -> Refusal:
        """Create or change a metric as the entry at `index` says, or say why not."""
        try:
            schema, transitions = decode_schema(data)
            number = self.by_code.get(schema.code.encode())
            if mode not in (PUT, CREATE, UPDATE):
                raise InvalidInputError(f"put mode {mode} is not known here")
        except InvalidInputError as error:
            return INVALID_INPUT, str(error)
        if number is None:
            return self._create(index, mode, schema, transitions)
        return self._change(self.metrics[number - 1], mode, schema)

    def _create(
        self, index: int, mode: int, schema: MetricSchema, transitions: Transitions
    ) -> Refusal:
        if mode == UPDATE:
            return NOT_FOUND, f"there is no metric {schema.code!r} to update; create it first"
        if len(self.by_code) >= limits.METRICS_MAX:
            return INVALID_INPUT, f"there are {limits.METRICS_MAX} metrics, the most allowed"
        if len(self.metrics) >= limits.METRIC_NUMBERS_MAX:
            return (
                INVALID_INPUT,
                f"{limits.METRIC_NUMBERS_MAX} metrics were created here, the most one log can name",
            )
        metric = Metric(len(self.metrics) + 1, schema, transitions, index)
        self.metrics.append(metric)
        self.by_code[metric.code_bytes] = metric.number
        return _DONE

    def _change(self, metric: Metric, mode: int, schema: MetricSchema) -> Refusal:
        if mode == CREATE:
            # Creating the same again changes nothing: a program may do it at every start.
            if schema == metric.schema:
                return _DONE
            return ALREADY_EXISTS, f"there is already a metric {schema.code!r}, defined otherwise"
        try:
            check_change(metric.schema, schema)
            merged = _merged(metric.schema, schema)
            check_schema(merged)
        except InvalidInputError as error:
            return ALREADY_EXISTS, str(error)
        metric.define(merged)
        return _DONE

    def delete(self, index: int, code: bytes | memoryview) -> Refusal:
        """Free the code; the metric keeps its number and is never counted on again."""
        number = self.by_code.pop(bytes(code), None)
        if number is None:
            shown = bytes(code).decode("utf-8", "replace")
            return NOT_FOUND, f"there is no metric {shown!r}"
        metric = self.metrics[number - 1]
        assert not metric.deleted and index > metric.created_index
        metric.deleted_index = index
        return _DONE

    def find(self, code: str) -> Metric:
        """The live metric of that code; NotFoundError if there is none."""
        try:
            number = self.by_code.get(code.encode())
        except UnicodeEncodeError:
            number = None
        if number is None:
            raise NotFoundError(f"there is no metric {code!r}; create it first")
        return self.metrics[number - 1]

    def live(self, after: int = 0) -> list[Metric]:
        """The metrics that are not deleted, numbers above `after`, in order of creation."""
        return [metric for metric in self.metrics[after:] if not metric.deleted]

    def encode(self) -> bytes:
        """The whole catalog for a snapshot; equal catalogs give equal bytes."""
        parts = [len(self.metrics).to_bytes(4, "little")]
        for metric in self.metrics:
            schema = encode_schema(metric.schema, metric.transitions)
            parts.append(_METRIC.pack(metric.created_index, metric.deleted_index, len(schema)))
            parts.append(schema)
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Catalog:
        """The catalog that `encode` wrote; ValueError if the bytes are not one."""
        catalog = cls()
        reader = _Reader(data)
        for number in range(1, reader.integer(4) + 1):
            created, deleted, length = _METRIC.unpack(reader.take(_METRIC.size))
            schema, transitions = decode_schema(reader.take(length))
            if created < 1 or 0 < deleted <= created:
                raise InvalidInputError(f"metric {number} was created at {created}, deleted before")
            metric = Metric(number, schema, transitions, created)
            metric.deleted_index = deleted
            catalog.metrics.append(metric)
            if not deleted:
                catalog.by_code[metric.code_bytes] = number
        reader.check_end()
        catalog.check_invariants()
        return catalog

    def statistics(self) -> dict[str, int]:
        """Counts of live metrics, numbers given out and thresholds."""
        return {
            "metrics": len(self.by_code),
            "metric_numbers": len(self.metrics),
            "thresholds": sum(len(metric.thresholds) for metric in self.live()),
        }

    def check_invariants(self) -> None:
        """Every live metric is found by its code, and nothing else is."""
        live = self.live()
        if len(live) != len(self.by_code):
            raise ValueError(f"{len(live)} live metrics share {len(self.by_code)} codes")
        for position, metric in enumerate(self.metrics):
            assert metric.number == position + 1, "a number is its place"
        for metric in live:
            assert self.by_code[metric.code_bytes] == metric.number
