"""Every request of version 2 but INGEST, as bytes, both ways.

Owns one pair of functions per packet type, listed in ``_CODECS``; those of keys, webhooks
and the trail are `v2_administration`'s. A read begins with the two fields all reads share
(`v2_read`).

Refuses what contradicts itself (MALFORMED) and numbers that name nothing, such as
aggregation 9 (INVALID_INPUT). Whether a metric exists or a cycle day makes sense is
the engine's to say.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar

from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
)
from unimeter.wire.codec import I64, U16, U64, Buffer, Reader, Writer
from unimeter.wire.messages import (
    Accounts,
    AlertPushEnable,
    AlertsList,
    Breakdown,
    ClusterStatus,
    ErrorCode,
    EventsList,
    Feature,
    Hello,
    Ingest,
    Members,
    MetricDelete,
    MetricList,
    MetricPut,
    PacketType,
    PartitionMap,
    ProtocolError,
    PutMode,
    Request,
    Series,
    TransferLeader,
    UsageQuery,
    UsageRealtime,
    Watch,
    Window,
)
from unimeter.wire.v2_administration import REQUESTS
from unimeter.wire.v2_ingest import decode_ingest, encode_ingest_request
from unimeter.wire.v2_read import get_read, put_read
from unimeter.wire.v2_watch import get_watch, put_watch

_RANGE: Final = struct.Struct("<qq")
_HELLO: Final = struct.Struct("<BBxxI")
_SCHEMA: Final = struct.Struct("<BBBBBxq")
_PAGE: Final = struct.Struct("<I")

_HAS_AFTER: Final = 1

_Number = TypeVar("_Number", bound=enum.IntEnum)


def known(number: int, names: type[_Number], what: str) -> _Number:
    """`number` as a member of `names`; a number that names nothing is refused."""
    try:
        return names(number)
    except ValueError:
        choices = ", ".join(f"{name.name} {int(name)}" for name in names)
        raise ProtocolError(
            f"{what} is {number}; expected one of {choices}", ErrorCode.INVALID_INPUT
        ) from None


# --- fields that several requests share -----------------------------------------


def _put_range(writer: Writer, start_ns: int, end_ns: int) -> None:
    writer.pack(_RANGE, "time range", start_ns, end_ns)


def _get_range(reader: Reader) -> tuple[int, int]:
    start_ns, end_ns = reader.unpack(_RANGE, "time range")
    return start_ns, end_ns


def _put_page(writer: Writer, cursor: bytes, limit: int) -> None:
    writer.pack(_PAGE, "limit", limit)
    writer.blob8(cursor, "cursor")


def _get_page(reader: Reader) -> dict[str, Any]:
    limit = reader.u32("limit")
    return {"limit": limit, "cursor": reader.blob8("cursor")}


def _put_filters(writer: Writer, filters: dict[str, list[str]]) -> None:
    writer.u8(len(filters), "number of filters")
    for key, values in filters.items():
        writer.text8(key, "filter key")
        writer.u16(len(values), "number of filter values")
        for value in values:
            writer.text8(value, "filter value")


def _get_filters(reader: Reader) -> dict[str, list[str]]:
    filters: dict[str, list[str]] = {}
    for _ in range(reader.u8("number of filters")):
        key = reader.text8("filter key")
        if key in filters:
            raise ProtocolError(f"filter {key!r} is given twice", ErrorCode.INVALID_INPUT)
        count = reader.count(U16, "filter values", 1)
        filters[key] = [reader.text8("filter value") for _ in range(count)]
    return filters


def _put_optional_code(writer: Writer, code: str | None) -> None:
    """An empty text means every metric: a metric's code is never empty."""
    writer.text8(code or "", "metric code")


def _get_optional_code(reader: Reader) -> str | None:
    return reader.text8("metric code") or None


# --- metrics ----------------------------------------------------------------------


def put_schema(writer: Writer, schema: MetricSchema) -> None:
    """Append a metric's definition. Also the row of METRIC_LIST."""
    writer.text8(schema.code, "metric code")
    writer.pack(
        _SCHEMA,
        "metric definition",
        schema.agg_type,
        schema.recurring,
        schema.period_type,
        schema.billing_cycle_day,
        schema.resolution,
        _period_ns(schema.period),
    )
    writer.text8(schema.field_name, "field name")
    writer.text8(schema.zone, "zone")
    writer.u8(len(schema.filters), "number of dimensions")
    for dimension in schema.filters:
        writer.text8(dimension.key, "dimension key")
        writer.u16(len(dimension.values), "number of dimension values")
        for value in dimension.values:
            writer.text8(value, "dimension value")
    writer.u8(len(schema.thresholds), "number of thresholds")
    for threshold in schema.thresholds:
        writer.text8(threshold.code, "threshold code")
        writer.pack(I64, "threshold value", threshold.value)
        writer.u8(int(threshold.recurring), "threshold recurring")
        writer.u8(threshold.direction, "threshold direction")


def get_schema(reader: Reader) -> MetricSchema:
    """Read a metric's definition."""
    code = reader.text8("metric code")
    agg_type, recurring, period_type, cycle_day, resolution, period_ns = reader.unpack(
        _SCHEMA, "metric definition"
    )
    if recurring > 1:
        raise ProtocolError(f"recurring is {recurring}; expected 0 or 1")
    return MetricSchema(
        code=code,
        agg_type=known(agg_type, AggType, "aggregation"),
        recurring=recurring == 1,
        field_name=reader.text8("field name"),
        period_type=known(period_type, PeriodType, "period type"),
        billing_cycle_day=cycle_day,
        period=_period_of(period_ns),
        zone=reader.text8("zone"),
        resolution=known(resolution, Resolution, "resolution"),
        filters=[_get_dimension(reader) for _ in range(reader.u8("number of dimensions"))],
        thresholds=[_get_threshold(reader) for _ in range(reader.u8("number of thresholds"))],
    )


def _get_dimension(reader: Reader) -> DimensionFilter:
    key = reader.text8("dimension key")
    count = reader.count(U16, "dimension values", 1)
    return DimensionFilter(key, [reader.text8("dimension value") for _ in range(count)])


def _get_threshold(reader: Reader) -> AlertThreshold:
    return AlertThreshold(
        code=reader.text8("threshold code"),
        value=reader.unpack(I64, "threshold value")[0],
        recurring=reader.flag("threshold recurring"),
        direction=known(reader.u8("threshold direction"), Direction, "threshold direction"),
    )


def _period_ns(period: timedelta | None) -> int:
    """0 stands for "not given". A period of no length is for the catalog to refuse, so
    it travels as -1 and is not mistaken for the default."""
    if period is None:
        return 0
    return period // timedelta(microseconds=1) * 1000 or -1


def _period_of(period_ns: int) -> timedelta | None:
    if period_ns == 0:
        return None
    if period_ns > 0 and period_ns % 1000:
        raise ProtocolError(
            f"period of {period_ns} ns is not a whole number of microseconds",
            ErrorCode.INVALID_INPUT,
        )
    return timedelta(microseconds=period_ns // 1000)


# --- one pair per packet type -------------------------------------------------------


def _put_nothing(writer: Writer, request: Any) -> None:
    """An empty payload."""


def _put_hello(writer: Writer, request: Hello) -> None:
    writer.pack(_HELLO, "hello", request.version_min, request.version_max, request.features)
    writer.text8(request.client, "client name")
    writer.u16(len(request.token), "token length")
    writer.raw(request.token)


def _get_hello(reader: Reader) -> Hello:
    version_min, version_max, features = reader.unpack(_HELLO, "hello")
    client = reader.text8("client name")
    token = reader.take(reader.u16("token length"), "token")
    return Hello(version_min, version_max, Feature(features), client, token)


def _put_metric_put(writer: Writer, request: MetricPut) -> None:
    writer.u8(request.mode, "mode")
    put_schema(writer, request.schema)


def _get_metric_put(reader: Reader) -> MetricPut:
    mode = known(reader.u8("mode"), PutMode, "mode")
    return MetricPut(get_schema(reader), mode)


def _put_metric_delete(writer: Writer, request: MetricDelete) -> None:
    writer.text8(request.code, "metric code")


def _get_metric_delete(reader: Reader) -> MetricDelete:
    return MetricDelete(reader.text8("metric code"))


def _put_metric_list(writer: Writer, request: MetricList) -> None:
    put_read(writer, request)
    _put_page(writer, request.cursor, request.limit)


def _get_metric_list(reader: Reader) -> MetricList:
    return MetricList(**get_read(reader), **_get_page(reader))


def _put_usage_query(writer: Writer, request: UsageQuery) -> None:
    put_read(writer, request)
    writer.account(request.account)
    writer.text8(request.metric_code, "metric code")
    _put_range(writer, request.start_ns, request.end_ns)
    _put_filters(writer, request.filters)


def _get_usage_query(reader: Reader) -> UsageQuery:
    read = get_read(reader)
    account = reader.account()
    code = reader.text8("metric code")
    start_ns, end_ns = _get_range(reader)
    return UsageQuery(account, code, start_ns, end_ns, _get_filters(reader), **read)


def _put_usage_realtime(writer: Writer, request: UsageRealtime) -> None:
    put_read(writer, request)
    writer.account(request.account)
    writer.text8(request.metric_code, "metric code")


def _get_usage_realtime(reader: Reader) -> UsageRealtime:
    read = get_read(reader)
    return UsageRealtime(reader.account(), reader.text8("metric code"), **read)


def _put_events_list(writer: Writer, request: EventsList) -> None:
    put_read(writer, request)
    writer.account(request.account)
    _put_optional_code(writer, request.metric_code)
    _put_range(writer, request.since_ns, request.until_ns)
    _put_page(writer, request.cursor, request.limit)


def _get_events_list(reader: Reader) -> EventsList:
    read = get_read(reader)
    account = reader.account()
    code = _get_optional_code(reader)
    since_ns, until_ns = _get_range(reader)
    return EventsList(account, code, since_ns, until_ns, **_get_page(reader), **read)


def _put_alerts_list(writer: Writer, request: AlertsList) -> None:
    put_read(writer, request)
    writer.account(request.account)
    _put_optional_code(writer, request.metric_code)
    writer.pack(U64, "after", request.after)
    writer.pack(U64, "since offset", request.since_offset)
    writer.u32(request.limit, "limit")


def _get_alerts_list(reader: Reader) -> AlertsList:
    read = get_read(reader)
    return AlertsList(
        account=reader.account_or_none(),
        metric_code=_get_optional_code(reader),
        after=reader.unpack(U64, "after")[0],
        since_offset=reader.unpack(U64, "since offset")[0],
        limit=reader.u32("limit"),
        **read,
    )


def _put_alert_push_enable(writer: Writer, request: AlertPushEnable) -> None:
    writer.u8(_HAS_AFTER * (request.after is not None), "flags")
    writer.pack(U64, "after", request.after or 0)
    writer.u16(len(request.accounts), "number of accounts")
    for account in request.accounts:
        writer.account(account)
    writer.u16(len(request.metrics), "number of metrics")
    for code in request.metrics:
        writer.text8(code, "metric code")


def _get_alert_push_enable(reader: Reader) -> AlertPushEnable:
    has_after = reader.flag("flags")
    after = reader.unpack(U64, "after")[0]
    account_count = reader.count(U16, "accounts", 2)
    accounts = [reader.account() for _ in range(account_count)]
    metric_count = reader.count(U16, "metrics", 1)
    metrics = [reader.text8("metric code") for _ in range(metric_count)]
    return AlertPushEnable(after if has_after else None, accounts, metrics)


def _put_breakdown(writer: Writer, request: Breakdown) -> None:
    put_read(writer, request)
    writer.account(request.account)
    writer.text8(request.metric_code, "metric code")
    _put_range(writer, request.start_ns, request.end_ns)
    writer.u8(len(request.keys), "number of keys")
    for key in request.keys:
        writer.text8(key, "key")
    _put_filters(writer, request.filters)


def _get_breakdown(reader: Reader) -> Breakdown:
    read = get_read(reader)
    account = reader.account()
    code = reader.text8("metric code")
    start_ns, end_ns = _get_range(reader)
    keys = [reader.text8("key") for _ in range(reader.u8("number of keys"))]
    return Breakdown(account, code, start_ns, end_ns, keys, _get_filters(reader), **read)


def _put_accounts(writer: Writer, request: Accounts) -> None:
    put_read(writer, request)
    writer.text8(request.metric_code, "metric code")
    _put_range(writer, request.start_ns, request.end_ns)
    _put_page(writer, request.cursor, request.limit)


def _get_accounts(reader: Reader) -> Accounts:
    read = get_read(reader)
    code = reader.text8("metric code")
    start_ns, end_ns = _get_range(reader)
    return Accounts(code, start_ns, end_ns, **_get_page(reader), **read)


def _put_series(writer: Writer, request: Series) -> None:
    put_read(writer, request)
    writer.account(request.account)
    writer.text8(request.metric_code, "metric code")
    _put_range(writer, request.start_ns, request.end_ns)
    writer.u8(request.window, "window")
    writer.text8(request.zone, "zone")
    _put_filters(writer, request.filters)


def _get_series(reader: Reader) -> Series:
    read = get_read(reader)
    account = reader.account()
    code = reader.text8("metric code")
    start_ns, end_ns = _get_range(reader)
    window = known(reader.u8("window"), Window, "window")
    zone = reader.text8("zone")
    return Series(account, code, start_ns, end_ns, window, zone, _get_filters(reader), **read)


def _put_members(writer: Writer, request: Members) -> None:
    put_read(writer, request)
    writer.account(request.account)
    writer.text8(request.metric_code, "metric code")
    writer.pack(I64, "instant", request.at_ns)
    _put_page(writer, request.cursor, request.limit)


def _get_members(reader: Reader) -> Members:
    read = get_read(reader)
    account = reader.account()
    code = reader.text8("metric code")
    at_ns = reader.unpack(I64, "instant")[0]
    return Members(account, code, at_ns, **_get_page(reader), **read)


def _put_transfer_leader(writer: Writer, request: TransferLeader) -> None:
    writer.u8(request.node_id, "node id")


def _get_transfer_leader(reader: Reader) -> TransferLeader:
    return TransferLeader(reader.u8("node id"))


_CODECS: Final[
    dict[int, tuple[type, Callable[[Writer, Any], None], Callable[[Reader], Request]]]
] = {
    PacketType.GET_PARTITION_MAP: (PartitionMap, _put_nothing, lambda reader: PartitionMap()),
    PacketType.HELLO: (Hello, _put_hello, _get_hello),
    PacketType.METRIC_PUT: (MetricPut, _put_metric_put, _get_metric_put),
    PacketType.METRIC_DELETE: (MetricDelete, _put_metric_delete, _get_metric_delete),
    PacketType.METRIC_LIST: (MetricList, _put_metric_list, _get_metric_list),
    PacketType.USAGE_QUERY: (UsageQuery, _put_usage_query, _get_usage_query),
    PacketType.USAGE_REALTIME: (UsageRealtime, _put_usage_realtime, _get_usage_realtime),
    PacketType.EVENTS_LIST: (EventsList, _put_events_list, _get_events_list),
    PacketType.ALERTS_LIST: (AlertsList, _put_alerts_list, _get_alerts_list),
    PacketType.ALERT_PUSH_ENABLE: (
        AlertPushEnable,
        _put_alert_push_enable,
        _get_alert_push_enable,
    ),
    PacketType.USAGE_QUERY_BREAKDOWN: (Breakdown, _put_breakdown, _get_breakdown),
    PacketType.ACCOUNTS_LIST: (Accounts, _put_accounts, _get_accounts),
    PacketType.USAGE_SERIES: (Series, _put_series, _get_series),
    PacketType.MEMBERS_LIST: (Members, _put_members, _get_members),
    PacketType.WATCH: (Watch, put_watch, get_watch),
    PacketType.CLUSTER_STATUS: (ClusterStatus, _put_nothing, lambda reader: ClusterStatus()),
    PacketType.TRANSFER_LEADER: (TransferLeader, _put_transfer_leader, _get_transfer_leader),
    **REQUESTS,
}

PACKET_TYPE_OF: Final[dict[type, PacketType]] = {
    entry[0]: PacketType(number) for number, entry in _CODECS.items()
}


def encode_request(request: Request) -> tuple[int, bytes]:
    """(packet type, payload) of `request`."""
    if isinstance(request, Ingest):
        kind = PacketType.INGEST_SYNC if request.is_sync else PacketType.INGEST_ASYNC
        return kind, encode_ingest_request(request)
    kind = PACKET_TYPE_OF[type(request)]
    writer = Writer()
    _CODECS[kind][1](writer, request)
    return kind, writer.payload()


def decode_request(packet_type: int, payload: Buffer) -> Request:
    """The request that `payload` holds; ProtocolError if it does not hold one."""
    if packet_type in (PacketType.INGEST_ASYNC, PacketType.INGEST_SYNC):
        return decode_ingest(payload, packet_type == PacketType.INGEST_SYNC)
    entry = _CODECS.get(packet_type)
    if entry is None:
        raise ProtocolError(
            f"packet type {packet_type:#04x} is not a request of version 2",
            ErrorCode.UNSUPPORTED,
        )
    reader = Reader(payload)
    request = entry[2](reader)
    reader.finish()
    return request
