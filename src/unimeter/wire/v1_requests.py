"""Every request of version 1, as bytes, both ways.

Owns what the published SDKs send. v1 is frozen, so this file changes only to
be more exact. Reading is strict on lengths, with one freedom that the published
clients use: METRIC_PUT may end before its thresholds or before its period.

INGEST is written by the load generator and read by tests and tools; the node's
decode kernel reads it on its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from unimeter.errors import InvalidInputError
from unimeter.types import AggType, AlertThreshold, DimensionFilter, MetricSchema, PeriodType
from unimeter.wire import v1_layout as layout
from unimeter.wire.codec import Buffer, Reader
from unimeter.wire.messages import (
    AlertPushEnable,
    AlertsList,
    Breakdown,
    ClusterStatus,
    ErrorCode,
    EventsList,
    Ingest,
    IngestRow,
    MetricDelete,
    MetricList,
    MetricPut,
    PacketType,
    PartitionMap,
    ProtocolError,
    Request,
    UsageQuery,
    UsageRealtime,
)
from unimeter.wire.v1_layout import CODE_BYTES, KEY_BYTES, VALUE_BYTES, field, text_of

_AGGREGATIONS: Final = 5  # COUNT to COUNT_UNIQUE
_PERIODS: Final = 4  # FIXED to WEEK
_TIMESTAMP_WORD: Final = (CODE_BYTES + 8) // 8  # of an event, behind its metric and account

# --- ingest -----------------------------------------------------------------------------


def encode_ingest(rows: Sequence[IngestRow]) -> bytes:
    """Head, all events, then all properties in the events' order."""
    events = bytearray()
    properties = bytearray()
    for row in rows:
        events += _encode_event(row)
        for key, text in row.properties:
            properties += field(key, KEY_BYTES, "property key")
            properties += field(text, VALUE_BYTES, "property value")
    count = len(properties) // layout.PROPERTY.size
    return layout.INGEST_HEAD.pack(len(rows), count) + events + properties


def _encode_event(row: IngestRow) -> bytes:
    if row.id is not None:
        raise InvalidInputError("version 1 of the protocol carries no event id; use version 2")
    try:
        return layout.EVENT.pack(
            field(row.metric_code, CODE_BYTES, "metric code"),
            layout.integer_account(row.account),
            row.timestamp_ns,
            row.value,
            row.operation,
            len(row.properties),
        )
    except struct.error as error:
        raise InvalidInputError(f"version 1 of the protocol can't carry {row}: {error}") from None


def decode_ingest(payload: Buffer, is_sync: bool = True) -> Ingest:
    """The batch that `payload` holds: its counts and its length must agree."""
    data = bytes(payload)
    if len(data) < layout.INGEST_HEAD.size:
        raise ProtocolError(f"ingest of {len(data)} bytes; its head has 8")
    event_count, property_count = layout.INGEST_HEAD.unpack_from(data)
    properties_at = layout.INGEST_HEAD.size + event_count * layout.EVENT.size
    end = properties_at + property_count * layout.PROPERTY.size
    if end != len(data):
        raise ProtocolError(
            f"{event_count} events and {property_count} properties take {end} bytes; "
            f"the payload has {len(data)}"
        )
    rows = []
    for position in range(layout.INGEST_HEAD.size, properties_at, layout.EVENT.size):
        code, account, timestamp_ns, value, operation, own = layout.EVENT.unpack_from(
            data, position
        )
        if properties_at + own * layout.PROPERTY.size > end:
            raise ProtocolError(f"the events hold more properties than the {property_count} sent")
        pairs = tuple(_property(data, properties_at + i * layout.PROPERTY.size) for i in range(own))
        properties_at += own * layout.PROPERTY.size
        rows.append(
            IngestRow(account, text_of(code, "metric code"), value, timestamp_ns, operation, pairs)
        )
    if properties_at != end:
        raise ProtocolError(f"{property_count} properties sent, and the events hold fewer")
    return Ingest(rows, is_sync=is_sync)


def has_all_timestamps(payload: Buffer) -> bool:
    """Whether every event of a batch carries a time of its own.

    Then its content tells a resend from a new batch. Reads one column and no event;
    counts that don't fit the payload are False.
    """
    if len(payload) < layout.INGEST_HEAD.size:
        return False
    event_count, _ = layout.INGEST_HEAD.unpack_from(payload)
    end = layout.INGEST_HEAD.size + event_count * layout.EVENT.size
    if end > len(payload):
        return False
    words = memoryview(payload)[layout.INGEST_HEAD.size : end].cast("B").cast("Q")
    return all(words[_TIMESTAMP_WORD :: layout.EVENT.size // 8])


def _property(data: bytes, position: int) -> tuple[str, str]:
    key, text = layout.PROPERTY.unpack_from(data, position)
    return text_of(key, "property key"), text_of(text, "property value")


# --- metrics ----------------------------------------------------------------------------


def encode_metric(schema: MetricSchema) -> bytes:
    """The 132 bytes of a metric: METRIC_PUT's base and METRIC_LIST's row."""
    return layout.METRIC.pack(
        field(schema.code, CODE_BYTES, "metric code"),
        schema.agg_type,
        schema.recurring,
        len(schema.filters),
        field(schema.field_name, VALUE_BYTES, "field name"),
    )


def can_carry(schema: MetricSchema) -> bool:
    """Whether v1 has a number for the metric's aggregation. A client that meets
    another number fails on the whole list, so such metrics are left out of it."""
    return schema.agg_type < _AGGREGATIONS


def _encode_metric_put(request: MetricPut) -> bytes:
    schema = request.schema
    if schema.agg_type >= _AGGREGATIONS or schema.period_type >= _PERIODS:
        raise InvalidInputError(
            f"version 1 of the protocol has no {schema.agg_type.name} by {schema.period_type.name}"
        )
    if schema.period is not None or schema.zone != "UTC":
        raise InvalidInputError("version 1 of the protocol carries neither period nor zone")
    parts = [encode_metric(schema)]
    parts += [_encode_filter(each.key, each.values) for each in schema.filters]
    parts.append(layout.COUNT.pack(len(schema.thresholds)))
    parts += [_encode_threshold(each) for each in schema.thresholds]
    parts.append(layout.PERIOD.pack(schema.period_type, schema.billing_cycle_day))
    return b"".join(parts)


def _encode_filter(key: str, values: Sequence[str]) -> bytes:
    if len(values) > layout.FILTER_VALUES_MAX:
        raise InvalidInputError(
            f"{len(values)} values for {key!r}; version 1 of the protocol carries "
            f"{layout.FILTER_VALUES_MAX}"
        )
    packed = b"".join(field(value, KEY_BYTES, "dimension value") for value in values)
    return layout.FILTER.pack(field(key, KEY_BYTES, "dimension key"), len(values), packed)


def _encode_threshold(threshold: AlertThreshold) -> bytes:
    try:
        return layout.THRESHOLD.pack(
            field(threshold.code, KEY_BYTES, "threshold code"),
            threshold.value,
            threshold.recurring,
        )
    except struct.error:
        raise InvalidInputError(
            f"threshold {threshold.value} is negative; version 1 of the protocol is unsigned"
        ) from None


def _decode_metric_put(reader: Reader) -> MetricPut:
    code, agg_type, recurring, filter_count, field_name = reader.unpack(layout.METRIC, "metric")
    schema = MetricSchema(
        code=text_of(code, "metric code"),
        agg_type=_aggregation(agg_type),
        recurring=_flag(recurring, "recurring"),
        field_name=text_of(field_name, "field name"),
    )
    for _ in range(filter_count):
        key, values = _decode_filter(reader)
        schema.filters.append(DimensionFilter(key, values))
    if reader.remaining:
        for _ in range(reader.unpack(layout.COUNT, "threshold count")[0]):
            schema.thresholds.append(_decode_threshold(reader))
    if reader.remaining:
        period_type, cycle_day = reader.unpack(layout.PERIOD, "period")
        schema.period_type = _period(period_type)
        # 0 is what clients write that know no cycle day.
        schema.billing_cycle_day = cycle_day or 1
    return MetricPut(schema)


def _decode_filter(reader: Reader) -> tuple[str, list[str]]:
    key, count, packed = reader.unpack(layout.FILTER, "filter")
    if count > layout.FILTER_VALUES_MAX:
        # The published client writes the true count and drops the values beyond the eighth.
        raise ProtocolError(
            f"{count} values in a filter that carries {layout.FILTER_VALUES_MAX}",
            ErrorCode.INVALID_INPUT,
        )
    values = [
        text_of(packed[i * KEY_BYTES : (i + 1) * KEY_BYTES], "filter value") for i in range(count)
    ]
    return text_of(key, "filter key"), values


def _decode_threshold(reader: Reader) -> AlertThreshold:
    code, value, recurring = reader.unpack(layout.THRESHOLD, "threshold")
    return AlertThreshold(
        code=text_of(code, "threshold code"),
        value=layout.signed(value, "threshold"),
        recurring=_flag(recurring, "threshold recurring"),
    )


def _flag(number: int, what: str) -> bool:
    if number > 1:
        raise ProtocolError(f"{what} is {number}; expected 0 or 1")
    return number == 1


def _aggregation(number: int) -> AggType:
    if number >= _AGGREGATIONS:
        raise ProtocolError(
            f"aggregation {number}; version 1 has COUNT 0, SUM 1, MAX 2, LATEST 3, COUNT_UNIQUE 4",
            ErrorCode.INVALID_INPUT,
        )
    return AggType(number)


def _period(number: int) -> PeriodType:
    if number >= _PERIODS:
        raise ProtocolError(
            f"period type {number}; version 1 has FIXED 0, CALENDAR 1, DAY 2, WEEK 3",
            ErrorCode.INVALID_INPUT,
        )
    return PeriodType(number)


def _encode_metric_delete(request: MetricDelete) -> bytes:
    return field(request.code, CODE_BYTES, "metric code")


def _decode_metric_delete(reader: Reader) -> MetricDelete:
    return MetricDelete(_code(reader))


def _code(reader: Reader) -> str:
    return text_of(reader.unpack(layout.CODE, "metric code")[0], "metric code")


# --- queries ----------------------------------------------------------------------------


def _encode_usage_query(request: UsageQuery) -> bytes:
    head = layout.QUERY.pack(
        layout.integer_account(request.account),
        request.start_ns,
        request.end_ns,
        field(request.metric_code, CODE_BYTES, "metric code"),
        len(request.filters),
    )
    return head + b"".join(_encode_query_filter(*each) for each in request.filters.items())


def _encode_query_filter(key: str, values: Sequence[str]) -> bytes:
    if len(values) != 1:
        raise InvalidInputError(
            f"{len(values)} values for {key!r}; version 1 of the protocol uses the first only"
        )
    return _encode_filter(key, values)


def _decode_usage_query(reader: Reader) -> UsageQuery:
    account, start_ns, end_ns, code, count = reader.unpack(layout.QUERY, "query")
    filters: dict[str, list[str]] = {}
    for _ in range(count):
        key, values = _decode_filter(reader)
        if not values or key in filters:
            raise ProtocolError(
                f"filter {key!r} has no value or is given twice", ErrorCode.INVALID_INPUT
            )
        filters[key] = values[:1]
    return UsageQuery(account, text_of(code, "metric code"), start_ns, end_ns, filters)


def _encode_usage_realtime(request: UsageRealtime) -> bytes:
    account = layout.integer_account(request.account)
    return layout.REALTIME.pack(account, field(request.metric_code, CODE_BYTES, "metric code"))


def _decode_usage_realtime(reader: Reader) -> UsageRealtime:
    account, code = reader.unpack(layout.REALTIME, "realtime query")
    return UsageRealtime(account, text_of(code, "metric code"))


def _encode_breakdown(request: Breakdown) -> bytes:
    if request.filters or not 1 <= len(request.keys) <= layout.BREAKDOWN_KEYS_MAX:
        raise InvalidInputError("a breakdown of version 1 has 1 to 4 keys and no filters")
    head = layout.QUERY.pack(
        layout.integer_account(request.account),
        request.start_ns,
        request.end_ns,
        field(request.metric_code, CODE_BYTES, "metric code"),
        len(request.keys),
    )
    return head + b"".join(field(key, KEY_BYTES, "key") for key in request.keys)


def _decode_breakdown(reader: Reader) -> Breakdown:
    account, start_ns, end_ns, code, count = reader.unpack(layout.QUERY, "breakdown")
    if not 1 <= count <= layout.BREAKDOWN_KEYS_MAX:
        raise ProtocolError(f"{count} keys to break down by; version 1 has 1 to 4")
    keys = [text_of(reader.unpack(layout.KEY, "key")[0], "key") for _ in range(count)]
    return Breakdown(account, text_of(code, "metric code"), start_ns, end_ns, keys)


def _encode_events_list(request: EventsList) -> bytes:
    account = layout.integer_account(request.account)
    return layout.EVENTS_LIST.pack(account, request.since_ns, request.until_ns)


def _decode_events_list(reader: Reader) -> EventsList:
    account, since_ns, until_ns = reader.unpack(layout.EVENTS_LIST, "events list")
    return EventsList(account, None, since_ns, until_ns)


def _encode_alerts_list(request: AlertsList) -> bytes:
    account = 0 if request.account is None else layout.integer_account(request.account)
    return layout.ALERTS_LIST.pack(account, request.since_offset)


def _decode_alerts_list(reader: Reader) -> AlertsList:
    account, since_offset = reader.unpack(layout.ALERTS_LIST, "alerts list")
    return AlertsList(account=account or None, since_offset=since_offset)


def _encode_nothing(request: Request) -> bytes:
    return b""


_CODECS: Final[dict[int, tuple[type, Callable[[Any], bytes], Callable[[Reader], Request]]]] = {
    PacketType.GET_PARTITION_MAP: (PartitionMap, _encode_nothing, lambda reader: PartitionMap()),
    PacketType.METRIC_PUT: (MetricPut, _encode_metric_put, _decode_metric_put),
    PacketType.METRIC_DELETE: (MetricDelete, _encode_metric_delete, _decode_metric_delete),
    PacketType.METRIC_LIST: (MetricList, _encode_nothing, lambda reader: MetricList()),
    PacketType.USAGE_QUERY: (UsageQuery, _encode_usage_query, _decode_usage_query),
    PacketType.USAGE_REALTIME: (UsageRealtime, _encode_usage_realtime, _decode_usage_realtime),
    PacketType.EVENTS_LIST: (EventsList, _encode_events_list, _decode_events_list),
    PacketType.ALERTS_LIST: (AlertsList, _encode_alerts_list, _decode_alerts_list),
    PacketType.ALERT_PUSH_ENABLE: (
        AlertPushEnable,
        _encode_nothing,
        lambda reader: AlertPushEnable(),
    ),
    PacketType.USAGE_QUERY_BREAKDOWN: (Breakdown, _encode_breakdown, _decode_breakdown),
    PacketType.CLUSTER_STATUS: (ClusterStatus, _encode_nothing, lambda reader: ClusterStatus()),
}

_PACKET_TYPE_OF: Final[dict[type, PacketType]] = {
    entry[0]: PacketType(number) for number, entry in _CODECS.items()
}


def encode_request(request: Request) -> tuple[int, bytes]:
    """(packet type, payload) of `request`; InvalidInputError for what v1 can't carry."""
    if isinstance(request, Ingest):
        kind = PacketType.INGEST_SYNC if request.is_sync else PacketType.INGEST_ASYNC
        return kind, encode_ingest(request.rows)
    known_kind = _PACKET_TYPE_OF.get(type(request))
    if known_kind is None:
        raise InvalidInputError(f"version 1 of the protocol has no {type(request).__name__}")
    try:
        return known_kind, _CODECS[known_kind][1](request)
    except struct.error as error:
        raise InvalidInputError(f"version 1 can't carry {request}: {error}") from None


def decode_request(packet_type: int, payload: Buffer) -> Request:
    """The request that `payload` holds; ProtocolError if it does not hold one."""
    if packet_type in (PacketType.INGEST_ASYNC, PacketType.INGEST_SYNC):
        return decode_ingest(payload, packet_type == PacketType.INGEST_SYNC)
    entry = _CODECS.get(packet_type)
    if entry is None:
        raise ProtocolError(
            f"packet type {packet_type:#04x} is not a request of version 1",
            ErrorCode.UNSUPPORTED,
        )
    reader = Reader(payload)
    request = entry[2](reader)
    reader.finish()
    return request
