"""OTLP requests in JSON, in the shape that protobuf's messages have.

Owns the fields of the published messages (opentelemetry-proto 1.x) that are counted or
identify what is counted; what else a request says is passed over, as the protocol wants of
receivers. Names are those of the protobuf classes, `WhichOneof` and `HasField` among them, so that
`otlp_items` walks either without knowing which it has.

64-bit integers may be digits in a string, enumerations their number or their name, fractions
are decimals (`amounts.exact_json`).
"""

from __future__ import annotations

from typing import Any

import msgspec


class Message(msgspec.Struct, rename="camel"):
    """What both kinds of message can be asked."""

    def HasField(self, name: str) -> bool:
        """Whether a field was sent."""
        return getattr(self, name) is not None

    def WhichOneof(self, name: str) -> str | None:
        """Which of the fields of a choice was sent."""
        for one in ONE_OF[name]:
            if getattr(self, one, None) is not None:
                return one
        return None


ONE_OF = {
    "value": (
        "string_value",
        "bool_value",
        "int_value",
        "double_value",
        "array_value",
        "kvlist_value",
        "bytes_value",
        "as_int",
        "as_double",
    ),
    "data": ("gauge", "sum", "histogram", "exponential_histogram", "summary"),
}


class AnyValue(Message, rename="camel"):
    """A value of an attribute, or a log's body."""

    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: Any = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None
    bytes_value: str | None = None


class ArrayValue(Message, rename="camel"):
    """Several values."""

    values: list[AnyValue] = []


class KeyValue(Message, rename="camel"):
    """One attribute."""

    key: str = ""
    value: AnyValue | None = None


class KeyValueList(Message, rename="camel"):
    """Several attributes."""

    values: list[KeyValue] = []


class Resource(Message, rename="camel"):
    """What sends."""

    attributes: list[KeyValue] = []


class Scope(Message, rename="camel"):
    """Which library of it."""

    name: str = ""
    version: str = ""
    attributes: list[KeyValue] = []


class Point(Message, rename="camel"):
    """One number at one time: of a sum or a gauge."""

    attributes: list[KeyValue] = []
    start_time_unix_nano: int | str = 0
    time_unix_nano: int | str = 0
    as_int: int | str | None = None
    as_double: Any = None
    flags: int = 0


class HistogramPoint(Message, rename="camel"):
    """A distribution at one time; the buckets are not counted."""

    attributes: list[KeyValue] = []
    start_time_unix_nano: int | str = 0
    time_unix_nano: int | str = 0
    count: int | str = 0
    sum: Any = None
    min: Any = None
    max: Any = None
    flags: int = 0


class Points(Message, rename="camel"):
    """The numbers of a sum or a gauge."""

    data_points: list[Point] = []
    aggregation_temporality: int | str = 0
    is_monotonic: bool = False


class HistogramPoints(Message, rename="camel"):
    """The distributions of a histogram of either kind."""

    data_points: list[HistogramPoint] = []
    aggregation_temporality: int | str = 0


class Metric(Message, rename="camel"):
    """One instrument and what it gathered."""

    name: str = ""
    unit: str = ""
    gauge: Points | None = None
    sum: Points | None = None
    histogram: HistogramPoints | None = None
    exponential_histogram: HistogramPoints | None = None
    summary: HistogramPoints | None = None


class ScopeMetrics(Message, rename="camel"):
    """The instruments of a library."""

    scope: Scope | None = None
    metrics: list[Metric] = []


class ResourceMetrics(Message, rename="camel"):
    """The instruments of a sender."""

    resource: Resource | None = None
    scope_metrics: list[ScopeMetrics] = []


class MetricsRequest(Message, rename="camel"):
    """The body of ``/v1/metrics``."""

    resource_metrics: list[ResourceMetrics] = []


class LogRecord(Message, rename="camel"):
    """One thing that happened."""

    time_unix_nano: int | str = 0
    observed_time_unix_nano: int | str = 0
    severity_text: str = ""
    body: AnyValue | None = None
    attributes: list[KeyValue] = []
    trace_id: str = ""
    span_id: str = ""
    event_name: str = ""


class ScopeLogs(Message, rename="camel"):
    """The records of a library."""

    scope: Scope | None = None
    log_records: list[LogRecord] = []


class ResourceLogs(Message, rename="camel"):
    """The records of a sender."""

    resource: Resource | None = None
    scope_logs: list[ScopeLogs] = []


class LogsRequest(Message, rename="camel"):
    """The body of ``/v1/logs``."""

    resource_logs: list[ResourceLogs] = []
