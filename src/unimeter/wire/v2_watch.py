"""Streams of changed totals and alerts in version 2: WATCH, its answer, and TOTAL_PUSH.

    WATCH       flags u8 | after u64 | entry u64 | interval_ms u32
                accounts u16, each | metrics u16, each text8
                flags: 1 alerts, 2 totals, 4 after is given, 8 entry is given too
    response    position u64 | after u64 | entry u64
    TOTAL_PUSH  position u64 | after u64 | entry u64 | kind u8 |
                kind 0, a total: account | metric text8 | aggregation u8 | start i64 | end i64 |
                total as in USAGE_QUERY's response
                kind 1, overflow; 2, place: nothing more

Alerts come as ALERT_PUSH. (after, entry) is the place that a stream can be resumed from once
it was read up to that push; an alert sets `after` to its own position.
"""

from __future__ import annotations

import struct
from typing import Final

from unimeter.types import AggType, AggValue
from unimeter.wire.codec import U16, Reader, Writer
from unimeter.wire.messages import (
    ErrorCode,
    ProtocolError,
    TotalPush,
    TotalPushKind,
    Watch,
    WatchReply,
)
from unimeter.wire.v2_value import get_value, put_value

_WATCH: Final = struct.Struct("<BQQI")
_PLACE: Final = struct.Struct("<QQ")
_PUSH: Final = struct.Struct("<QQB")
_RANGE: Final = struct.Struct("<Bqq")
_ALERTS, _TOTALS, _AFTER, _ENTRY = 1, 2, 4, 8
_NAMES_MAX: Final = 65_535


def put_watch(writer: Writer, request: Watch) -> None:
    """Write a request."""
    flags = _ALERTS * request.alerts | _TOTALS * request.totals
    flags |= _AFTER * (request.after is not None) | _ENTRY * (request.entry is not None)
    after, entry = request.after or 0, request.entry or 0
    writer.pack(_WATCH, "watch", flags, after, entry, request.interval_ms)
    writer.u16(len(request.accounts), "number of accounts")
    for account in request.accounts:
        writer.account(account)
    writer.u16(len(request.metrics), "number of metrics")
    for code in request.metrics:
        writer.text8(code, "metric code")


def get_watch(reader: Reader) -> Watch:
    """Read one."""
    flags, after, entry, interval_ms = reader.unpack(_WATCH, "watch")
    if flags & ~15 or (flags & _ENTRY and not flags & _AFTER):
        raise ProtocolError(f"flags {flags:#x} of a watch contradict themselves")
    if not flags & (_ALERTS | _TOTALS):
        raise ProtocolError("a watch of neither alerts nor totals", ErrorCode.INVALID_INPUT)
    accounts = [reader.account() for _ in range(reader.count(U16, "accounts", 2))]
    metrics = [reader.text8("metric code") for _ in range(reader.count(U16, "metrics", 1))]
    return Watch(
        accounts,
        metrics,
        alerts=bool(flags & _ALERTS),
        totals=bool(flags & _TOTALS),
        after=after if flags & _AFTER else None,
        entry=entry if flags & _ENTRY else None,
        interval_ms=interval_ms,
    )


def put_watch_reply(writer: Writer, reply: WatchReply) -> None:
    """Write an answer."""
    writer.pack(_PLACE, "place", reply.after, reply.entry)


def get_watch_reply(reader: Reader) -> WatchReply:
    """Read one."""
    return WatchReply(*reader.unpack(_PLACE, "place"))


def put_total_push(writer: Writer, push: TotalPush) -> None:
    """Write a push."""
    writer.pack(_PUSH, "push", push.after, push.entry, push.kind)
    if push.kind == TotalPushKind.TOTAL:
        writer.raw(total_bytes(push))


def total_bytes(push: TotalPush) -> bytes:
    """What is the same for all who get this total."""
    writer = Writer()
    writer.account(push.account)
    writer.text8(push.metric_code, "metric code")
    writer.pack(_RANGE, "range of a total", push.agg_type, push.start_ns, push.end_ns)
    put_value(writer, push.value)
    return writer.payload()


def total_push_payload(position: int, after: int, entry: int, total: bytes) -> bytes:
    """The payload of a push of a total whose own bytes were made before."""
    return _PUSH_HEAD.pack(position, after, entry, TotalPushKind.TOTAL) + total


_PUSH_HEAD: Final = struct.Struct("<QQQB")


def get_total_push(reader: Reader) -> TotalPush:
    """Read a push."""
    after, entry, number = reader.unpack(_PUSH, "push")
    try:
        kind = TotalPushKind(number)
    except ValueError:
        raise ProtocolError(f"push of totals of kind {number}") from None
    if kind != TotalPushKind.TOTAL:
        return TotalPush(kind, after, entry)
    account, code = reader.account(), reader.text8("metric code")
    agg, start_ns, end_ns = reader.unpack(_RANGE, "range of a total")
    value: AggValue = get_value(reader)
    try:
        agg_type = AggType(agg)
    except ValueError:
        raise ProtocolError(f"aggregation {agg}", ErrorCode.INVALID_INPUT) from None
    return TotalPush(kind, after, entry, account, code, agg_type, start_ns, end_ns, value)
