"""A metric's definition as bytes, as they stand in the log and in snapshots.

A schema's bytes, little-endian; a text is a length (u8) and UTF-8:

    version u8 = 1 | aggregation u8 | recurring u8 | period u8 | cycle day u8
    | resolution u8 | period_ns i64 (0: not FIXED) | code | field name | zone
    | transitions u16, each: from i64 s, offset i32 s
    | dimensions u8, each: key, values u16, each a text
    | thresholds u8, each: code, value i64, recurring u8, direction u8

One definition has one byte string, and bytes that break a rule are refused: they
come from the log, so a replica must be able to say no instead of falling over.
Whatever `decode_schema` takes, `encode_schema` gives back.

Rejected: JSON, where two encoders may give two byte strings for one schema.
"""

from __future__ import annotations

import struct
from datetime import timedelta
from typing import Final

from unimeter.engine.schema_rules import check_enum, check_schema, schema_period_ns
from unimeter.errors import InvalidInputError
from unimeter.periods import (
    FIXED_PERIOD_NS_DEFAULT,
    UTC_TRANSITIONS,
    Transitions,
    check_transitions,
)
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
)

_VERSION: Final = 1
_HEAD: Final = struct.Struct("<BBBBBBq")
_TRANSITION: Final = struct.Struct("<qi")
_THRESHOLD: Final = struct.Struct("<qBB")
_NS_PER_US: Final = 1_000


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
        schema_period_ns(schema),
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


class Reader:
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


def _decode_dimension(reader: Reader) -> DimensionFilter:
    key = reader.text()
    return DimensionFilter(key, [reader.text() for _ in range(reader.integer(2))])


def _decode_threshold(reader: Reader) -> AlertThreshold:
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
    reader = Reader(data)
    version, agg, recurring, kind, day, resolution, period_ns = _HEAD.unpack(
        reader.take(_HEAD.size)
    )
    if version != _VERSION or recurring not in (0, 1):
        raise InvalidInputError(f"definition of version {version} is not known here")
    kind = check_enum(kind, PeriodType, "period_type")
    code, field_name, zone = reader.text(), reader.text(), reader.text()
    transitions = tuple(
        _TRANSITION.unpack(reader.take(_TRANSITION.size)) for _ in range(reader.integer(2))
    )
    schema = MetricSchema(
        code=code,
        agg_type=check_enum(agg, AggType, "agg_type"),
        recurring=bool(recurring),
        field_name=field_name,
        period_type=kind,
        billing_cycle_day=day,
        filters=[_decode_dimension(reader) for _ in range(reader.integer(1))],
        thresholds=[_decode_threshold(reader) for _ in range(reader.integer(1))],
        period=_decode_period(period_ns, kind),
        zone=zone,
        resolution=check_enum(resolution, Resolution, "resolution"),
    )
    reader.check_end()
    check_schema(schema)
    check_transitions(transitions)
    if zone == "UTC" and transitions != UTC_TRANSITIONS:
        raise InvalidInputError("UTC has no transitions")
    return schema, transitions
