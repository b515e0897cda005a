"""Kernel: what became of an entry, as the replies of its requests.

`render` walks the requests of one applied entry with the routes that the
builder kept (connection slot, request id, protocol version) and writes each
reply; neighbours of one connection become one piece, ready for one write.
Version 1 replies are written here without any Python work per request; version
2 replies carry outcome runs and are packed one by one.

    v1  status u8, 0 0 0, request u32, length u32 = 16, stored u32, duplicates u32, offset u64
    v2  status u8, 2, 0 0, request u32, length u32, then docs/reference/wire-v2.md
"""

from __future__ import annotations

import struct

import cython

from unimeter.engine.applied import Applied, reply_of
from unimeter.engine.memory import Words
from unimeter.engine.sessions import (
    SEQUENCE_TOO_OLD,
    SESSION_EXPIRED,
    SESSIONS_FULL,
    Reply,
)

_V2_HEAD = struct.Struct("<BBHII")
_V2_BODY = struct.Struct("<QQIIIHH")
_ERROR = struct.Struct("<QHHIH")
_ERRORS = {
    SESSION_EXPIRED: "the session is not known here any more; open a new one",
    SESSIONS_FULL: "as many sessions as are remembered are in use; wait, or reuse one",
    SEQUENCE_TOO_OLD: "the sequence number is older than the session's window",
}
_LOW32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def v1_replies(
    results: cython.ulonglong[::1],
    routes: cython.ulonglong[::1],
    count: cython.Py_ssize_t,
    offset: cython.ulonglong,
    out: cython.uint[::1],
) -> cython.Py_ssize_t:
    """Write `count` replies of 7 words each; tell how many requests are not version 1."""
    r: cython.Py_ssize_t
    at: cython.Py_ssize_t = 0
    others: cython.Py_ssize_t = 0
    stored: cython.ulonglong
    duplicates: cython.ulonglong
    refused: cython.ulonglong
    last: cython.ulonglong
    status: cython.uint
    for r in range(count):
        if (routes[3 * r + 1] >> 32) != 1:
            others += 1
        stored = results[4 * r] & _LOW32
        duplicates = results[4 * r] >> 32
        refused = results[4 * r + 1] & _LOW32
        last = offset + (results[4 * r + 2] & _LOW32) + (results[4 * r + 2] >> 32) - 1
        status = 0
        if results[4 * r + 1] >> 32:
            status = 3
        elif stored == 0 and refused == 0 and duplicates:
            status = 1
        elif stored == 0 and duplicates == 0 and refused:
            status = 2
        out[at] = status
        out[at + 1] = cython.cast(cython.uint, routes[3 * r + 2])
        out[at + 2] = 16
        out[at + 3] = cython.cast(cython.uint, stored)
        out[at + 4] = cython.cast(cython.uint, duplicates)
        out[at + 5] = cython.cast(cython.uint, last & _LOW32)
        out[at + 6] = cython.cast(cython.uint, last >> 32)
        at += 7
    return others


def render(applied: Applied, routes: bytes) -> list[tuple[int, bytes]]:
    """The replies of an entry just applied, as (slot, bytes) in the requests' order."""
    count: int = len(routes) // 24
    assert len(applied.results) == 4 * count, "routes of another entry"
    route_words = memoryview(bytearray(routes)).cast("Q")
    out = Words(4 * count + 1).view.cast("B").cast("I")
    others: int = v1_replies(applied.results, route_words, count, applied.first_offset, out)
    data = bytes(out.cast("B")[: 28 * count])
    pieces: list[tuple[int, bytes]] = []
    if others == 0:
        first: int = 0
        slot: int = route_words[1] & 0xFFFFFFFF
        for r in range(1, count):
            other: int = route_words[3 * r + 1] & 0xFFFFFFFF
            if other != slot:
                pieces.append((slot, data[28 * first : 28 * r]))
                first, slot = r, other
        pieces.append((slot, data[28 * first :]))
        return pieces
    for r in range(count):
        slot = route_words[3 * r + 1] & 0xFFFFFFFF
        if route_words[3 * r + 1] >> 32 == 1:
            piece = data[28 * r : 28 * r + 28]
        else:
            piece = _v2_reply(applied, r, route_words[3 * r + 2])
        if pieces and pieces[-1][0] == slot:
            pieces[-1] = (slot, pieces[-1][1] + piece)
        else:
            pieces.append((slot, piece))
    return pieces


def _v2_reply(applied: Applied, request: int, request_id: int) -> bytes:
    reply = applied.repeated.get(request)
    flags = 1
    if isinstance(reply, int):
        return _v2_error(applied.index, reply, request_id)
    if reply is None:
        reply, flags = reply_of(applied, request), 0
    return pack_v2(reply, flags, request_id)


def pack_v2(reply: Reply, flags: int, request_id: int) -> bytes:
    """One v2 ingest reply; `flags` 1 says it is remembered from an earlier send."""
    if not reply.complete:
        flags |= 2
    runs = struct.pack(f"<{len(reply.runs)}I", *reply.runs)
    body = _V2_BODY.pack(*reply[:5], len(reply.runs), flags) + runs
    return _V2_HEAD.pack(0, 2, 0, request_id, len(body)) + body


def _v2_error(position: int, code: int, request_id: int) -> bytes:
    text = _ERRORS[code].encode()
    status, wait_ms = (6, 5000) if code == SESSIONS_FULL else (2, 0)
    body = _ERROR.pack(position, code, 0, wait_ms, len(text)) + text
    return _V2_HEAD.pack(status, 2, 0, request_id, len(body)) + body
