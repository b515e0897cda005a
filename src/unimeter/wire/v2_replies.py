"""Every response and push of version 2, as bytes, both ways.

Owns one pair of functions per packet type, listed in ``_CODECS``. Each payload
begins with the position u64, the log index that the answer reflects; a response
whose status is not 0 continues with the error layout instead of its own:

    position u64 | code u16 | pad u16 | retry_after_ms u32 | text length u16 | text

A list has its count, then its cursor (length 0 = no further page), then its rows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from unimeter.errors import InvalidInputError
from unimeter.types import (
    PARTITION_COUNT,
    AccountTotal,
    Direction,
    EventRecord,
    Membership,
    OperationType,
    from_ns,
)
from unimeter.wire.codec import (
    I64,
    U16,
    U32,
    U64,
    Buffer,
    Reader,
    Writer,
    decode_text,
    join_i128,
    split_i128,
)
from unimeter.wire.messages import (
    AccountsReply,
    AlertPush,
    AlertPushReply,
    AlertRow,
    AlertsListReply,
    BreakdownReply,
    BreakdownRow,
    ClusterStatusReply,
    Done,
    ErrorCode,
    ErrorReply,
    EventsListReply,
    Feature,
    HelloReply,
    IngestReply,
    MembersReply,
    MetricListReply,
    NodeRole,
    NodeStatus,
    PacketType,
    PartitionMapReply,
    PartitionRoute,
    PartitionStatus,
    ProtocolError,
    Push,
    Response,
    SeriesReply,
    SeriesRow,
    Status,
    TotalPush,
    UsageReply,
    WatchReply,
)
from unimeter.wire.v2_administration import RESPONSES
from unimeter.wire.v2_ingest import decode_ingest_reply, encode_ingest_reply
from unimeter.wire.v2_requests import get_schema, known, put_schema
from unimeter.wire.v2_value import VALUE as _VALUE
from unimeter.wire.v2_value import get_value as _get_value
from unimeter.wire.v2_value import put_value as _put_value
from unimeter.wire.v2_watch import (
    get_total_push,
    get_watch_reply,
    put_total_push,
    put_watch_reply,
)

_ERROR: Final = struct.Struct("<HHIH")
_HELLO: Final = struct.Struct("<BxHI16sIIIHHHxx")
_RANGE: Final = struct.Struct("<qq")
_EVENT: Final = struct.Struct("<QqqB")
_ALERT: Final = struct.Struct("<QQQqqqB")
_NODE: Final = struct.Struct("<HHIQQQ")
_NODE_RUN: Final = struct.Struct("<HIQBB")
_CLUSTER: Final = struct.Struct("<16sHH")
_NODE_RECORD: Final = struct.Struct("<HBBIQQQQQQQQQ16s")

_TEXT_BYTES_MAX: Final = 65_535
_NAMELESS: Final = 0  # a partition without a leader: its index in the table of addresses


# --- rows -----------------------------------------------------------------------------


def _put_event(writer: Writer, event: EventRecord) -> None:
    writer.pack(
        _EVENT, "event", event.offset, event.timestamp_ns, event.value, event.operation_type
    )
    writer.account(event.account_id)
    writer.text8(event.metric_code, "metric code")
    writer.text8(event.id or "", "event id")
    writer.u8(len(event.properties), "number of properties")
    for key, text in event.properties.items():
        writer.text8(key, "property key")
        writer.text8(text, "property value")


def _get_event(reader: Reader) -> EventRecord:
    offset, timestamp_ns, value, operation = reader.unpack(_EVENT, "event")
    account = reader.account()
    code = reader.text8("metric code")
    identity = reader.text8("event id") or None
    pairs = [
        (reader.text8("property key"), reader.text8("property value"))
        for _ in range(reader.u8("number of properties"))
    ]
    return EventRecord(
        account_id=account,
        metric_code=code,
        value=value,
        operation_type=known(operation, OperationType, "operation"),
        timestamp=from_ns(timestamp_ns),
        offset=offset,
        properties=dict(pairs),
        id=identity,
        timestamp_ns=timestamp_ns,
    )


def _put_alert(writer: Writer, alert: AlertRow) -> None:
    low, high = split_i128(alert.value, "value at the crossing")
    writer.pack(
        _ALERT,
        "alert",
        alert.position,
        alert.offset,
        low,
        high,
        alert.timestamp_ns,
        alert.period_start_ns,
        alert.direction,
    )
    writer.account(alert.account)
    writer.text8(alert.metric_code, "metric code")
    writer.text8(alert.threshold_code, "threshold code")


def _get_alert(reader: Reader) -> AlertRow:
    position, offset, low, high, timestamp_ns, period_start_ns, direction = reader.unpack(
        _ALERT, "alert"
    )
    return AlertRow(
        account=reader.account(),
        metric_code=reader.text8("metric code"),
        threshold_code=reader.text8("threshold code"),
        offset=offset,
        value=join_i128(low, high),
        timestamp_ns=timestamp_ns,
        position=position,
        direction=known(direction, Direction, "direction"),
        period_start_ns=period_start_ns,
    )


# --- one pair per response ----------------------------------------------------------------


def _put_done(writer: Writer, reply: Done) -> None:
    """Nothing after the position."""


def _put_ingest(writer: Writer, reply: IngestReply) -> None:
    writer.raw(encode_ingest_reply(reply))


def _put_hello(writer: Writer, reply: HelloReply) -> None:
    writer.pack(
        _HELLO,
        "hello",
        reply.version,
        reply.node_id,
        reply.features,
        reply.cluster_id,
        reply.frame_bytes_max,
        reply.events_per_batch_max,
        reply.page_items_max,
        reply.session_window,
        reply.key_window_days,
        reply.session_keep_seconds,
    )
    writer.text8(reply.server, "server name")


def _get_hello(reader: Reader) -> HelloReply:
    fields = reader.unpack(_HELLO, "hello")
    return HelloReply(
        version=fields[0],
        node_id=fields[1],
        features=Feature(fields[2]),
        cluster_id=fields[3],
        frame_bytes_max=fields[4],
        events_per_batch_max=fields[5],
        page_items_max=fields[6],
        session_window=fields[7],
        key_window_days=fields[8],
        session_keep_seconds=fields[9],
        server=reader.text8("server name"),
    )


def _put_partition_map(writer: Writer, reply: PartitionMapReply) -> None:
    """Addresses once, then runs of partitions that live at the same nodes."""
    addresses: dict[str, int] = {}
    runs: list[tuple[int, list[int]]] = []
    for route in reply.routes:
        names = [route.leader, *route.replicas]
        nodes = [
            addresses.setdefault(name, len(addresses) + 1) if name else _NAMELESS for name in names
        ]
        if runs and runs[-1][1] == nodes:
            runs[-1] = (runs[-1][0] + 1, nodes)
        else:
            runs.append((1, nodes))
    writer.u16(len(addresses), "number of addresses")
    for address in addresses:
        writer.text8(address, "address")
    writer.u16(len(runs), "number of runs")
    for length, nodes in runs:
        writer.u16(length, "run length")
        writer.u8(len(nodes), "number of nodes")
        for node in nodes:
            writer.u16(node, "address index")


def _get_partition_map(reader: Reader) -> PartitionMapReply:
    addresses = ["", *(reader.text8("address") for _ in range(reader.count(U16, "addresses", 1)))]
    routes: list[PartitionRoute] = []
    known: dict[bytes, list[str]] = {}  # runs differ in few ways: their order of nodes
    for _ in range(reader.count(U16, "runs", 5)):
        length = reader.u16("run length")
        indexes = reader.take(2 * reader.u8("number of nodes"), "address indexes")
        nodes = known.get(indexes)
        if nodes is None:
            nodes = known[indexes] = _addresses_at(addresses, indexes)
        if not nodes or length == 0 or len(routes) + length > PARTITION_COUNT:
            raise ProtocolError(f"partition run of {length} partitions and {len(nodes)} nodes")
        for _ in range(length):
            routes.append(PartitionRoute(nodes[0], nodes[1:]))
    if len(routes) != PARTITION_COUNT:
        raise ProtocolError(f"map of {len(routes)} partitions; expected {PARTITION_COUNT}")
    return PartitionMapReply(routes)


def _addresses_at(addresses: list[str], indexes: bytes) -> list[str]:
    found = []
    for (index,) in U16.iter_unpack(indexes):
        if index >= len(addresses):
            raise ProtocolError(f"address {index} of a table of {len(addresses) - 1}")
        found.append(addresses[index])
    return found


def _put_metric_list(writer: Writer, reply: MetricListReply) -> None:
    writer.u32(len(reply.metrics), "number of metrics")
    writer.blob8(reply.cursor, "cursor")
    for schema in reply.metrics:
        put_schema(writer, schema)


def _get_metric_list(reader: Reader) -> MetricListReply:
    count = reader.count(U32, "metrics", 1)
    cursor = reader.blob8("cursor")
    return MetricListReply([get_schema(reader) for _ in range(count)], cursor)


def _put_usage(writer: Writer, reply: UsageReply) -> None:
    writer.pack(_RANGE, "time range", reply.start_ns, reply.end_ns)
    _put_value(writer, reply.value)


def _get_usage(reader: Reader) -> UsageReply:
    start_ns, end_ns = reader.unpack(_RANGE, "time range")
    return UsageReply(_get_value(reader), start_ns, end_ns)


def _put_events_list(writer: Writer, reply: EventsListReply) -> None:
    writer.u32(len(reply.events), "number of events")
    writer.blob8(reply.cursor, "cursor")
    for event in reply.events:
        _put_event(writer, event)


def _get_events_list(reader: Reader) -> EventsListReply:
    count = reader.count(U32, "events", _EVENT.size)
    cursor = reader.blob8("cursor")
    return EventsListReply([_get_event(reader) for _ in range(count)], cursor)


def _put_alerts_list(writer: Writer, reply: AlertsListReply) -> None:
    writer.u32(len(reply.alerts), "number of alerts")
    writer.u8(int(reply.more), "more")
    for alert in reply.alerts:
        _put_alert(writer, alert)


def _get_alerts_list(reader: Reader) -> AlertsListReply:
    count = reader.count(U32, "alerts", _ALERT.size)
    more = reader.flag("more")
    return AlertsListReply([_get_alert(reader) for _ in range(count)], more)


def _put_alert_push_enable(writer: Writer, reply: AlertPushReply) -> None:
    writer.pack(U64, "after", reply.after)


def _get_alert_push_enable(reader: Reader) -> AlertPushReply:
    return AlertPushReply(reader.unpack(U64, "after")[0])


def _put_alert_push(writer: Writer, push: AlertPush) -> None:
    writer.u16(push.node_id, "node id")
    _put_alert(writer, push.alert)


def _get_alert_push(reader: Reader) -> AlertPush:
    node_id = reader.u16("node id")
    return AlertPush(_get_alert(reader), node_id)


def _put_breakdown(writer: Writer, reply: BreakdownReply) -> None:
    """The keys once, then values and total per row."""
    keys = [key for key, _ in reply.rows[0].pairs] if reply.rows else []
    writer.u32(len(reply.rows), "number of rows")
    writer.u8(len(keys), "number of keys")
    for key in keys:
        writer.text8(key, "key")
    for row in reply.rows:
        assert [key for key, _ in row.pairs] == keys, "every row has the keys asked for"
        for _, text in row.pairs:
            writer.text8(text, "value")
        _put_value(writer, row.value)


def _get_breakdown(reader: Reader) -> BreakdownReply:
    count = reader.count(U32, "rows", _VALUE.size)
    keys = [reader.text8("key") for _ in range(reader.u8("number of keys"))]
    return BreakdownReply([_get_breakdown_row(reader, keys) for _ in range(count)])


def _get_breakdown_row(reader: Reader, keys: list[str]) -> BreakdownRow:
    pairs = [(key, reader.text8("value")) for key in keys]
    return BreakdownRow(pairs, _get_value(reader))


def _put_accounts(writer: Writer, reply: AccountsReply) -> None:
    writer.u32(len(reply.accounts), "number of accounts")
    writer.blob8(reply.cursor, "cursor")
    for row in reply.accounts:
        writer.account(row.account_id)
        _put_value(writer, row.value)


def _get_accounts(reader: Reader) -> AccountsReply:
    count = reader.count(U32, "accounts", _VALUE.size)
    cursor = reader.blob8("cursor")
    rows = [AccountTotal(reader.account(), _get_value(reader)) for _ in range(count)]
    return AccountsReply(rows, cursor)


def _put_series(writer: Writer, reply: SeriesReply) -> None:
    writer.u32(len(reply.rows), "number of windows")
    for row in reply.rows:
        writer.pack(_RANGE, "window", row.start_ns, row.end_ns)
        _put_value(writer, row.value)


def _get_series(reader: Reader) -> SeriesReply:
    count = reader.count(U32, "windows", _RANGE.size + _VALUE.size)
    return SeriesReply([_get_series_row(reader) for _ in range(count)])


def _get_series_row(reader: Reader) -> SeriesRow:
    start_ns, end_ns = reader.unpack(_RANGE, "window")
    return SeriesRow(start_ns, end_ns, _get_value(reader))


def _put_members(writer: Writer, reply: MembersReply) -> None:
    writer.u32(len(reply.members), "number of members")
    writer.blob8(reply.cursor, "cursor")
    for member in reply.members:
        writer.pack(I64, "member", member)


def _get_members(reader: Reader) -> MembersReply:
    count = reader.count(U32, "members", I64.size)
    cursor = reader.blob8("cursor")
    return MembersReply([reader.unpack(I64, "member")[0] for _ in range(count)], cursor)


def _put_cluster_status(writer: Writer, reply: ClusterStatusReply) -> None:
    writer.pack(
        _NODE,
        "node status",
        reply.node_id,
        reply.node_count,
        reply.segments,
        reply.log_offset,
        reply.aggregate_keys,
        reply.uptime_ns,
    )
    runs: list[tuple[int, PartitionStatus]] = []
    for status in reply.partitions:
        if runs and runs[-1][1] == status:
            runs[-1] = (runs[-1][0] + 1, status)
        else:
            runs.append((1, status))
    writer.u16(len(runs), "number of partition runs")
    for length, run in runs:
        writer.pack(_NODE_RUN, "partition run", length, run.term, run.commit, run.role, run.leader)
    writer.u16(len(reply.statistics), "number of statistics")
    for name, number in reply.statistics.items():
        writer.text8(name, "statistic")
        writer.pack(I64, name, number)
    writer.pack(_CLUSTER, "cluster", reply.cluster_id, reply.leader, len(reply.nodes))
    for node in reply.nodes:
        record = Writer()
        _put_node(record, node)
        writer.u16(len(record.payload()), "record length")
        writer.raw(record.payload())


def _put_node(writer: Writer, node: NodeStatus) -> None:
    writer.pack(
        _NODE_RECORD,
        "node",
        node.node_id,
        node.role,
        node.membership,
        node.heard_ms,
        node.term,
        node.last_index,
        node.commit,
        node.applied,
        node.match,
        node.lag,
        node.disk_free_bytes,
        node.disk_used_bytes,
        node.hash_index,
        node.state_hash,
    )
    writer.text8(node.client_address, "client address")
    writer.text8(node.peer_address, "peer address")
    writer.text8(node.version, "version of its software")


def _get_node(reader: Reader) -> NodeStatus:
    """One record, and whatever a newer node may have written behind the fields known here."""
    length = reader.u16("record length")
    after = reader.remaining - length
    fields = reader.unpack(_NODE_RECORD, "node")
    node = NodeStatus(
        node_id=fields[0],
        role=known(fields[1], NodeRole, "role"),
        membership=known(fields[2], Membership, "membership"),
        heard_ms=fields[3],
        term=fields[4],
        last_index=fields[5],
        commit=fields[6],
        applied=fields[7],
        match=fields[8],
        lag=fields[9],
        disk_free_bytes=fields[10],
        disk_used_bytes=fields[11],
        hash_index=fields[12],
        state_hash=fields[13],
        client_address=reader.text8("client address"),
        peer_address=reader.text8("peer address"),
        version=reader.text8("version of its software"),
    )
    if after < 0 or reader.remaining < after:
        raise ProtocolError(f"node record of {length} bytes is shorter than what it holds")
    reader.take(reader.remaining - after, "later fields")
    return node


def _get_cluster_status(reader: Reader) -> ClusterStatusReply:
    node_id, node_count, segments, log_offset, keys, uptime_ns = reader.unpack(_NODE, "node status")
    partitions: list[PartitionStatus] = []
    for _ in range(reader.count(U16, "partition runs", _NODE_RUN.size)):
        length, *fields = reader.unpack(_NODE_RUN, "partition run")
        if len(partitions) + length > PARTITION_COUNT:
            raise ProtocolError(f"more than {PARTITION_COUNT} partitions")
        partitions.extend(PartitionStatus(*fields) for _ in range(length))
    statistics = {}
    for _ in range(reader.count(U16, "statistics", 1 + I64.size)):
        name = reader.text8("statistic")
        statistics[name] = reader.unpack(I64, name)[0]
    cluster_id, leader, count = reader.unpack(_CLUSTER, "cluster")
    nodes = [_get_node(reader) for _ in range(count)]
    return ClusterStatusReply(
        node_id,
        node_count,
        log_offset,
        segments,
        keys,
        uptime_ns,
        partitions,
        statistics,
        cluster_id,
        leader,
        nodes,
    )


def _get_done(reader: Reader) -> Done:
    return Done()


_CODECS: Final[dict[int, tuple[type, Callable[[Writer, Any], None], Callable[[Reader], Any]]]] = {
    PacketType.INGEST_ASYNC: (IngestReply, _put_ingest, decode_ingest_reply),
    PacketType.INGEST_SYNC: (IngestReply, _put_ingest, decode_ingest_reply),
    PacketType.GET_PARTITION_MAP: (PartitionMapReply, _put_partition_map, _get_partition_map),
    PacketType.HELLO: (HelloReply, _put_hello, _get_hello),
    PacketType.METRIC_PUT: (Done, _put_done, _get_done),
    PacketType.METRIC_DELETE: (Done, _put_done, _get_done),
    PacketType.METRIC_LIST: (MetricListReply, _put_metric_list, _get_metric_list),
    PacketType.USAGE_QUERY: (UsageReply, _put_usage, _get_usage),
    PacketType.USAGE_REALTIME: (UsageReply, _put_usage, _get_usage),
    PacketType.EVENTS_LIST: (EventsListReply, _put_events_list, _get_events_list),
    PacketType.ALERTS_LIST: (AlertsListReply, _put_alerts_list, _get_alerts_list),
    PacketType.ALERT_PUSH_ENABLE: (
        AlertPushReply,
        _put_alert_push_enable,
        _get_alert_push_enable,
    ),
    PacketType.USAGE_QUERY_BREAKDOWN: (BreakdownReply, _put_breakdown, _get_breakdown),
    PacketType.ACCOUNTS_LIST: (AccountsReply, _put_accounts, _get_accounts),
    PacketType.USAGE_SERIES: (SeriesReply, _put_series, _get_series),
    PacketType.MEMBERS_LIST: (MembersReply, _put_members, _get_members),
    PacketType.WATCH: (WatchReply, put_watch_reply, get_watch_reply),
    PacketType.CLUSTER_STATUS: (ClusterStatusReply, _put_cluster_status, _get_cluster_status),
    PacketType.TRANSFER_LEADER: (Done, _put_done, _get_done),
    **RESPONSES,
}

_PUSH_CODECS: Final[
    dict[int, tuple[type, Callable[[Writer, Any], None], Callable[[Reader], Push]]]
] = {
    PacketType.ALERT_PUSH: (AlertPush, _put_alert_push, _get_alert_push),
    PacketType.TOTAL_PUSH: (TotalPush, put_total_push, get_total_push),
    PacketType.PARTITION_MAP_UPDATE: (PartitionMapReply, _put_partition_map, _get_partition_map),
}


def encode_response(packet_type: int, response: Response, position: int) -> bytes:
    """The payload that answers a request of `packet_type`; errors have their own layout."""
    writer = Writer()
    writer.pack(U64, "position", position)
    if isinstance(response, ErrorReply):
        _put_error(writer, response)
        return writer.payload()
    reply_class, put, _ = _CODECS[packet_type]
    assert isinstance(response, reply_class), f"{type(response)} answers {packet_type:#x}"
    put(writer, response)
    return writer.payload()


def decode_response(packet_type: int, status: int, payload: Buffer) -> tuple[int, Response]:
    """(position, response) of what answers a request of `packet_type`."""
    entry = _CODECS.get(packet_type)
    if entry is None:
        raise ProtocolError(f"packet type {packet_type:#04x} has no response in version 2")
    reader = Reader(payload)
    position = reader.unpack(U64, "position")[0]
    response = _get_error(reader) if status != Status.OK else entry[2](reader)
    reader.finish()
    return position, response


def encode_push(push: Push, position: int) -> tuple[int, bytes]:
    """(packet type, payload) of a message that the server starts."""
    for packet_type, (push_class, put, _) in _PUSH_CODECS.items():
        if isinstance(push, push_class):
            writer = Writer()
            writer.pack(U64, "position", position)
            put(writer, push)
            return packet_type, writer.payload()
    raise InvalidInputError(f"{type(push).__name__} is not something a server pushes")


def decode_push(packet_type: int, payload: Buffer) -> tuple[int, Push]:
    """(position, message) of something the server started."""
    entry = _PUSH_CODECS.get(packet_type)
    if entry is None:
        raise ProtocolError(f"packet type {packet_type:#04x} is not a push of version 2")
    reader = Reader(payload)
    position = reader.unpack(U64, "position")[0]
    push = entry[2](reader)
    reader.finish()
    return position, push


def _put_error(writer: Writer, reply: ErrorReply) -> None:
    text = reply.text.encode("utf-8", "replace")[:_TEXT_BYTES_MAX]
    # A cut in the middle of a character would make the reason unreadable.
    text = text.decode("utf-8", "ignore").encode("utf-8")
    writer.pack(_ERROR, "error", reply.code, 0, reply.retry_after_ms, len(text))
    writer.raw(text)


def _get_error(reader: Reader) -> ErrorReply:
    code, _, retry_after_ms, length = reader.unpack(_ERROR, "error")
    text = decode_text(reader.take(length, "error text"), "error text")
    try:
        return ErrorReply(ErrorCode(code), text, retry_after_ms)
    except ValueError:
        # A newer node may know more codes; its text still tells the user.
        return ErrorReply(ErrorCode.INTERNAL, text or f"error code {code}", retry_after_ms)
