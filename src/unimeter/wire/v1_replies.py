"""Every response and push of version 1, as bytes, both ways.

Owns what the published SDKs decode. Lists are bare rows without a count: the
payload's length tells. A refusal is its status byte and an empty payload; only a
redirect carries something, the address.

What v1 has no room for is left out rather than bent: alerts of string accounts,
and metrics whose aggregation v1 has no number for. A dimension value over 32 bytes
in a breakdown is refused, because a cut one could be taken for another.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from unimeter.errors import InvalidInputError
from unimeter.types import (
    PARTITION_COUNT,
    AggType,
    DimensionFilter,
    EventRecord,
    MetricSchema,
    OperationType,
    from_ns,
)
from unimeter.wire import v1_layout as layout
from unimeter.wire.codec import Buffer
from unimeter.wire.messages import (
    AlertPush,
    AlertPushReply,
    AlertsListReply,
    BreakdownReply,
    BreakdownRow,
    ClusterStatusReply,
    Done,
    ErrorCode,
    ErrorReply,
    EventsListReply,
    IngestReply,
    MetricListReply,
    PacketType,
    PartitionMapReply,
    PartitionRoute,
    PartitionStatus,
    ProtocolError,
    Push,
    Response,
    Status,
    UsageReply,
)
from unimeter.wire.v1_layout import CODE_BYTES, KEY_BYTES, expect_size, field, rows_of, text_of
from unimeter.wire.v1_requests import can_carry, encode_metric

PARTITION_MAP_BYTES: Final = PARTITION_COUNT * layout.ROUTE.size
_BREAKDOWN_ROW: Final = struct.Struct(f"<{8 + 8 * KEY_BYTES + layout.VALUE.size}s")
_CODE_OF_STATUS: Final = {
    Status.REDIRECT: ErrorCode.REDIRECT,
    Status.NOT_LEADER: ErrorCode.NOT_LEADER,
    Status.BACKPRESSURE: ErrorCode.BACKPRESSURE,
}
_REFUSED: Final = (Status.ERROR, Status.REDIRECT, Status.NOT_LEADER, Status.BACKPRESSURE)


def _encode_done(reply: Done | AlertPushReply) -> bytes:
    return b""


def _decode_done(payload: bytes) -> Done:
    expect_size(payload, 0, "the response")
    return Done()


def _decode_alert_push_enable(payload: bytes) -> AlertPushReply:
    expect_size(payload, 0, "the response")
    return AlertPushReply(0)


def _encode_ingest(reply: IngestReply) -> bytes:
    return layout.INGEST_REPLY.pack(reply.stored, reply.duplicates, reply.last_offset)


def _decode_ingest(payload: bytes) -> IngestReply:
    expect_size(payload, layout.INGEST_REPLY.size, "ingest reply")
    return IngestReply(*layout.INGEST_REPLY.unpack(payload))


def ingest_status(reply: IngestReply, has_unknown_metric: bool) -> Status:
    """The status byte of a counted batch, which in v1 also sums it up."""
    if has_unknown_metric:
        return Status.UNKNOWN_METRIC
    if reply.refused and not reply.stored and not reply.duplicates:
        return Status.ERROR
    if reply.duplicates and not reply.stored and not reply.refused:
        return Status.DUPLICATE
    return Status.OK


def _encode_partition_map(reply: PartitionMapReply) -> bytes:
    if len(reply.routes) != PARTITION_COUNT:
        raise InvalidInputError(f"{len(reply.routes)} routes; expected {PARTITION_COUNT}")
    parts = []
    for route in reply.routes:
        first, second, *_ = [*route.replicas, "", ""]
        names = (route.leader, first, second)
        parts.append(layout.ROUTE.pack(*(layout.address_field(name) for name in names)))
    return b"".join(parts)


def _decode_partition_map(payload: bytes) -> PartitionMapReply:
    expect_size(payload, PARTITION_MAP_BYTES, "partition map")
    routes = []
    for position in rows_of(payload, layout.ROUTE, "partition map"):
        names = [text_of(name, "address") for name in layout.ROUTE.unpack_from(payload, position)]
        routes.append(PartitionRoute(names[0], [name for name in names[1:] if name]))
    return PartitionMapReply(routes)


def _encode_metric_list(reply: MetricListReply) -> bytes:
    return b"".join(encode_metric(schema) for schema in reply.metrics if can_carry(schema))


def _decode_metric_list(payload: bytes) -> MetricListReply:
    """v1 tells how many dimensions a metric has, not which: they stay nameless."""
    metrics = []
    for position in rows_of(payload, layout.METRIC, "metric list"):
        code, agg_type, recurring, filter_count, field_name = layout.METRIC.unpack_from(
            payload, position
        )
        if agg_type >= len(AggType):
            raise ProtocolError(f"metric with aggregation {agg_type}")
        metrics.append(
            MetricSchema(
                code=text_of(code, "metric code"),
                agg_type=AggType(agg_type),
                recurring=bool(recurring),
                field_name=text_of(field_name, "field name"),
                filters=[DimensionFilter("") for _ in range(filter_count)],
            )
        )
    return MetricListReply(metrics)


def _encode_usage(reply: UsageReply) -> bytes:
    return layout.put_value(reply.value)


def _decode_usage(payload: bytes) -> UsageReply:
    expect_size(payload, layout.VALUE.size, "total")
    return UsageReply(layout.get_value(payload))


def _encode_events_list(reply: EventsListReply) -> bytes:
    return b"".join(
        layout.EVENT_RECORD.pack(
            event.offset,
            event.timestamp_ns,
            layout.integer_account(event.account_id),
            field(event.metric_code, CODE_BYTES, "metric code"),
            event.value & layout.U64_MASK,
            event.operation_type,
        )
        for event in reply.events
    )


def _decode_events_list(payload: bytes) -> EventsListReply:
    events = []
    for position in rows_of(payload, layout.EVENT_RECORD, "events list"):
        offset, timestamp_ns, account, code, value, operation = layout.EVENT_RECORD.unpack_from(
            payload, position
        )
        if operation >= len(OperationType):
            raise ProtocolError(f"event with operation {operation}")
        events.append(
            EventRecord(
                account_id=account,
                metric_code=text_of(code, "metric code"),
                value=layout.from_complement(value),
                operation_type=OperationType(operation),
                timestamp=from_ns(timestamp_ns),
                offset=offset,
                timestamp_ns=timestamp_ns,
            )
        )
    return EventsListReply(events)


def _encode_alerts_list(reply: AlertsListReply) -> bytes:
    return b"".join(
        layout.put_alert(alert) for alert in reply.alerts if isinstance(alert.account, int)
    )


def _decode_alerts_list(payload: bytes) -> AlertsListReply:
    return AlertsListReply(
        [
            layout.get_alert(payload, position)
            for position in rows_of(payload, layout.ALERT_RECORD, "alerts list")
        ]
    )


def _encode_breakdown(reply: BreakdownReply) -> bytes:
    return b"".join(_encode_breakdown_row(row) for row in reply.rows)


def _encode_breakdown_row(row: BreakdownRow) -> bytes:
    if len(row.pairs) > layout.BREAKDOWN_KEYS_MAX:
        raise InvalidInputError(f"{len(row.pairs)} keys; version 1 of the protocol carries 4")
    keys = b"".join(field(key, KEY_BYTES, "dimension key") for key, _ in row.pairs)
    values = b"".join(field(value, KEY_BYTES, "dimension value") for _, value in row.pairs)
    width = layout.BREAKDOWN_KEYS_MAX * KEY_BYTES
    head = layout.BREAKDOWN_HEAD.pack(len(row.pairs))
    return (
        head + keys.ljust(width, b"\0") + values.ljust(width, b"\0") + layout.put_value(row.value)
    )


def _decode_breakdown(payload: bytes) -> BreakdownReply:
    return BreakdownReply(
        [
            _decode_breakdown_row(payload, position)
            for position in rows_of(payload, _BREAKDOWN_ROW, "breakdown")
        ]
    )


def _decode_breakdown_row(payload: bytes, position: int) -> BreakdownRow:
    count = payload[position]
    if count > layout.BREAKDOWN_KEYS_MAX:
        raise ProtocolError(f"breakdown row with {count} keys; expected 4 at most")
    keys_at = position + layout.BREAKDOWN_HEAD.size
    values_at = keys_at + layout.BREAKDOWN_KEYS_MAX * KEY_BYTES
    pairs = [
        (_cut(payload, keys_at, i, "key"), _cut(payload, values_at, i, "value"))
        for i in range(count)
    ]
    total_at = values_at + layout.BREAKDOWN_KEYS_MAX * KEY_BYTES
    return BreakdownRow(pairs, layout.get_value(payload, total_at))


def _cut(payload: bytes, start: int, index: int, what: str) -> str:
    position = start + index * KEY_BYTES
    return text_of(payload[position : position + KEY_BYTES], what)


def _encode_cluster_status(reply: ClusterStatusReply) -> bytes:
    head = layout.NODE.pack(
        reply.node_id,
        reply.node_count,
        reply.log_offset,
        reply.segments,
        reply.aggregate_keys,
        reply.uptime_ns,
    )
    if len(reply.partitions) != PARTITION_COUNT:
        raise InvalidInputError(f"{len(reply.partitions)} partitions; expected {PARTITION_COUNT}")
    return head + b"".join(
        layout.NODE_PARTITION.pack(
            partition.term, partition.commit & 0xFFFF, partition.role, partition.leader
        )
        for partition in reply.partitions
    )


def _decode_cluster_status(payload: bytes) -> ClusterStatusReply:
    size = layout.NODE.size + PARTITION_COUNT * layout.NODE_PARTITION.size
    expect_size(payload, size, "cluster status")
    partitions = [
        PartitionStatus(*layout.NODE_PARTITION.unpack_from(payload, position))
        for position in range(layout.NODE.size, size, layout.NODE_PARTITION.size)
    ]
    node_id, node_count, log_offset, segments, keys, uptime_ns = layout.NODE.unpack_from(payload)
    return ClusterStatusReply(
        node_id, node_count, log_offset, segments, keys, uptime_ns, partitions
    )


_CODECS: Final[dict[int, tuple[Callable[[Any], bytes], Callable[[bytes], Response]]]] = {
    PacketType.INGEST_ASYNC: (_encode_ingest, _decode_ingest),
    PacketType.INGEST_SYNC: (_encode_ingest, _decode_ingest),
    PacketType.GET_PARTITION_MAP: (_encode_partition_map, _decode_partition_map),
    PacketType.METRIC_PUT: (_encode_done, _decode_done),
    PacketType.METRIC_DELETE: (_encode_done, _decode_done),
    PacketType.METRIC_LIST: (_encode_metric_list, _decode_metric_list),
    PacketType.USAGE_QUERY: (_encode_usage, _decode_usage),
    PacketType.USAGE_REALTIME: (_encode_usage, _decode_usage),
    PacketType.EVENTS_LIST: (_encode_events_list, _decode_events_list),
    PacketType.ALERTS_LIST: (_encode_alerts_list, _decode_alerts_list),
    PacketType.ALERT_PUSH_ENABLE: (_encode_done, _decode_alert_push_enable),
    PacketType.USAGE_QUERY_BREAKDOWN: (_encode_breakdown, _decode_breakdown),
    PacketType.CLUSTER_STATUS: (_encode_cluster_status, _decode_cluster_status),
}


def encode_response(packet_type: int, response: Response, position: int = 0) -> bytes:
    """The payload that answers a request of `packet_type`.

    `position` has no place in v1. Raises InvalidInputError for an answer that v1
    can't carry; the node then answers status 2.
    """
    if isinstance(response, ErrorReply):
        if response.code == ErrorCode.REDIRECT:
            return layout.address_field(response.text)
        return b""
    try:
        return _CODECS[packet_type][0](response)
    except struct.error as error:
        raise InvalidInputError(f"version 1 can't carry the answer: {error}") from None


def decode_response(packet_type: int, status: int, payload: Buffer) -> tuple[int, Response]:
    """(0, response) of what answers a request of `packet_type`: v1 tells no position."""
    data = bytes(payload)
    if status in _REFUSED:
        return 0, _decode_refusal(Status(status), data)
    entry = _CODECS.get(packet_type)
    if entry is None:
        raise ProtocolError(f"packet type {packet_type:#04x} has no response in version 1")
    return 0, entry[1](data)


def _decode_refusal(status: Status, data: bytes) -> ErrorReply:
    if status == Status.REDIRECT:
        expect_size(data, layout.ADDRESS_BYTES, "redirect")
        return ErrorReply(ErrorCode.REDIRECT, text_of(data, "address"))
    # A batch of which every event was refused carries its counts; others nothing.
    return ErrorReply(_CODE_OF_STATUS.get(status, ErrorCode.INTERNAL), "refused without a reason")


def can_push(push: Push) -> bool:
    """Whether v1 can carry `push`: an alert of a string account and a total it can't."""
    if isinstance(push, AlertPush):
        return isinstance(push.alert.account, int)
    return isinstance(push, PartitionMapReply)


def encode_push(push: Push, position: int = 0) -> tuple[int, bytes]:
    """(packet type, payload) of a message that the server starts; ask ``can_push`` first."""
    if isinstance(push, AlertPush):
        node = layout.PUSH_NODE.pack(push.node_id)
        return PacketType.ALERT_PUSH, layout.put_alert(push.alert) + node
    assert isinstance(push, PartitionMapReply), "version 1 has no streams of totals"
    return PacketType.PARTITION_MAP_UPDATE, _encode_partition_map(push)


def decode_push(packet_type: int, payload: Buffer) -> tuple[int, Push]:
    """(0, message) of something the server started."""
    data = bytes(payload)
    if packet_type == PacketType.PARTITION_MAP_UPDATE:
        return 0, _decode_partition_map(data)
    if packet_type != PacketType.ALERT_PUSH:
        raise ProtocolError(f"packet type {packet_type:#04x} is not a push of version 1")
    expect_size(data, layout.ALERT_RECORD.size + layout.PUSH_NODE.size, "alert push")
    node_id = layout.PUSH_NODE.unpack_from(data, layout.ALERT_RECORD.size)[0]
    return 0, AlertPush(layout.get_alert(data), node_id)
