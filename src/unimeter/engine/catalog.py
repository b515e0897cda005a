"""The catalog: which metrics there are, and how one may change.

Owns the numbers of metrics, their life from creation to deletion, and their part
of a snapshot. The rules of a definition are in `schema_rules`, its bytes in
`schema_bytes`. It refuses to know totals: the kernel reads a `Metric` and keeps
those elsewhere.

A metric gets the next number when it is created and keeps it; a number is
never used again. Deleting a metric frees its code only, so a metric created
later under that code has another number and starts at zero, and the alerts
of the old one can still name it.

    create ──> live ──put (compatible)──> live ──delete──> deleted, code free
                 └──put (anything else)──> refused: field, old, new

Putting an equal definition again is fine and changes nothing; that includes
the zone's rules, which stay those of the first put, because totals are
already kept in its buckets.

A snapshot holds every metric in the order of numbers: created index u64, deleted
index u64 (0: live), length u32, definition (`schema_bytes`).

Rejected: dropping deleted metrics, as their numbers would have to be remembered
anyway.
"""

from __future__ import annotations

import struct
from typing import Final

from unimeter import limits
from unimeter.engine.schema_bytes import Reader
from unimeter.engine.schema_bytes import decode_schema as decode_schema
from unimeter.engine.schema_bytes import encode_schema as encode_schema
from unimeter.engine.schema_rules import check_change, merged, schema_period_ns
from unimeter.engine.schema_rules import check_schema as check_schema
from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.periods import (
    Calendar,
    Transitions,
    bucket_calendar,
    make_calendar,
    zone_transitions,
)
from unimeter.types import MetricSchema

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
_METRIC: Final = struct.Struct("<QQI")  # created index, deleted index, schema bytes


def put_body(schema: MetricSchema, mode: int = PUT) -> bytes:
    """The body of a METRIC_PUT entry, checked; for the node that proposes it.

    Asks this host's time zone database for the zone, the only time anybody does.
    """
    if mode not in (PUT, CREATE, UPDATE):
        raise InvalidInputError(f"mode {mode!r} is not 0 (put), 1 (create) or 2 (update)")
    check_schema(schema)
    return bytes([mode]) + encode_schema(schema, zone_transitions(schema.zone))


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
            schema.period_type, schema.billing_cycle_day, schema_period_ns(schema), transitions
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
            combined = merged(metric.schema, schema)
            check_schema(combined)
        except InvalidInputError as error:
            return ALREADY_EXISTS, str(error)
        metric.define(combined)
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
        reader = Reader(data)
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
