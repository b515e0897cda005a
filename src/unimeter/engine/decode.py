"""Kernel: ingest frames in, one log entry out.

`EntryBuilder` takes the frames of one turn of the loop, of either protocol
version and from any number of connections, and writes their events as 32-byte
records into one open entry. Strings are stored once per entry, so an entry
explains itself: no state, no catalog and no earlier entry is needed to read it.

    frame v1  count, events x 96, properties x 96   \\
    frame v2  tables, columns                        } -> records + strings -> seal()
    frame v2  ...                                   /

Only what a frame says by itself is judged here (see `Outcome` 10-19). What
depends on the state, such as whether the metric exists, is decided when the
entry is applied, in log order, on every replica. A frame that contradicts
itself is refused whole and leaves nothing behind; an event that is wrong is
kept with its reason, because the log also says what was refused.

Body layout, in 64-bit little-endian words (docs/internals/formats.md):

    0   version 1 | requests << 32          4  timestamp, ns
    1   events | metric codes << 32         5  offset of the first event
    2   accounts | tag sets << 32           6  requests with a session
    3   ids | heap words << 32              7  0
    8   requests: events | flags << 32      flag 1 = has a session
        sessions: high, low, sequence       for those that have one, in order
        records:  account, timestamp, value, meta
        strings:  length | heap offset << 32    metric codes, accounts, tag sets, ids
        heap

    meta = metric 16 | tag set + 1 16 | id + 1 16 | operation 2 | flags 6 | reason 8
    flags: 1 string account, 2 timestamp given by the client, 4 content key
"""

from __future__ import annotations

import cython
from cython.cimports.unimeter.engine.hashing import spread

from unimeter.engine.memory import Words
from unimeter.limits import (
    ENTRY_BYTES_TARGET,
    ENTRY_EVENTS_MAX,
    EVENTS_PER_BATCH_MAX,
    FRAME_BYTES_MAX,
    PROPERTIES_PER_EVENT_MAX,
    TIMESTAMP_NS_MAX,
    TIMESTAMP_NS_MIN,
)

FEED_MORE = 0
FEED_OTHER = 1
FEED_BAD_MAGIC = 2
FEED_TOO_LARGE = 3
FEED_FULL = 4
FEED_MALFORMED = 5

_MALFORMED = cython.declare(cython.int, FEED_MALFORMED)
_MAGIC = cython.declare(cython.ulonglong, 0xC0FFEE01)
_FRAME_MAX = cython.declare(cython.Py_ssize_t, FRAME_BYTES_MAX)
_BATCH_MAX = cython.declare(cython.Py_ssize_t, EVENTS_PER_BATCH_MAX)
_BYTES_TARGET = cython.declare(cython.Py_ssize_t, ENTRY_BYTES_TARGET)
_EVENTS_MAX = cython.declare(cython.Py_ssize_t, ENTRY_EVENTS_MAX)
_PAIRS_MAX = cython.declare(cython.Py_ssize_t, PROPERTIES_PER_EVENT_MAX)
_TS_MIN = cython.declare(cython.ulonglong, TIMESTAMP_NS_MIN)
_TS_MAX = cython.declare(cython.ulonglong, TIMESTAMP_NS_MAX)
_LOW32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_TABLE_MASK = cython.declare(cython.Py_ssize_t, 0x3FFFF)
_BAD = cython.declare(cython.Py_ssize_t, 0x100000)  # in a frame's map: 0x100000 + outcome

HEADER_WORDS = 8
# Kinds of strings: 0 metric code, 1 account, 2 tag set, 3 id; in this order in the body.


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def load16(data: cython.uchar[::1], p: cython.Py_ssize_t) -> cython.Py_ssize_t:
    return data[p] | (cython.cast(cython.Py_ssize_t, data[p + 1]) << 8)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def load32(data: cython.uchar[::1], p: cython.Py_ssize_t) -> cython.ulonglong:
    return (
        cython.cast(cython.ulonglong, data[p])
        | (cython.cast(cython.ulonglong, data[p + 1]) << 8)
        | (cython.cast(cython.ulonglong, data[p + 2]) << 16)
        | (cython.cast(cython.ulonglong, data[p + 3]) << 24)
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def load64(data: cython.uchar[::1], p: cython.Py_ssize_t) -> cython.ulonglong:
    # Written out so that the C compiler sees one 8-byte load.
    return (
        cython.cast(cython.ulonglong, data[p])
        | (cython.cast(cython.ulonglong, data[p + 1]) << 8)
        | (cython.cast(cython.ulonglong, data[p + 2]) << 16)
        | (cython.cast(cython.ulonglong, data[p + 3]) << 24)
        | (cython.cast(cython.ulonglong, data[p + 4]) << 32)
        | (cython.cast(cython.ulonglong, data[p + 5]) << 40)
        | (cython.cast(cython.ulonglong, data[p + 6]) << 48)
        | (cython.cast(cython.ulonglong, data[p + 7]) << 56)
    )


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def is_text(
    data: cython.uchar[::1], start: cython.Py_ssize_t, length: cython.Py_ssize_t
) -> cython.bint:
    """Whether the bytes are UTF-8 (RFC 3629, shortest forms, no surrogates) without NUL."""
    i: cython.Py_ssize_t = 0
    more: cython.Py_ssize_t
    j: cython.Py_ssize_t
    b: cython.int
    second: cython.int
    while i < length:
        b = data[start + i]
        if b < 0x80:
            if b == 0:
                return False
            i += 1
            continue
        if 0xC2 <= b <= 0xDF:
            more = 1
        elif 0xE0 <= b <= 0xEF:
            more = 2
        elif 0xF0 <= b <= 0xF4:
            more = 3
        else:
            return False
        if i + more >= length:
            return False
        second = data[start + i + 1]
        if b == 0xE0 and second < 0xA0:
            return False
        if b == 0xED and second > 0x9F:
            return False
        if b == 0xF0 and second < 0x90:
            return False
        if b == 0xF4 and second > 0x8F:
            return False
        for j in range(more):
            if (data[start + i + 1 + j] & 0xC0) != 0x80:
                return False
        i += more + 1
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def hash_text(
    data: cython.uchar[::1],
    start: cython.Py_ssize_t,
    length: cython.Py_ssize_t,
    kind: cython.ulonglong,
) -> cython.ulonglong:
    """A fast hash for the entry's own string table, which lives for one turn."""
    h: cython.ulonglong = (kind << 32) | cython.cast(cython.ulonglong, length)
    w: cython.ulonglong
    i: cython.Py_ssize_t = 0
    while i + 8 <= length:
        h = spread(h, load64(data, start + i))
        i += 8
    w = 0
    while i < length:
        w = (w << 8) | data[start + i]
        i += 1
    return spread(h, w)


class Sealed:
    """One finished entry: `body` for the log, `routes` to send the replies by."""

    __slots__ = ("body", "events", "requests", "routes")

    def __init__(self, body: bytes, events: int, requests: int, routes: bytes) -> None:
        self.body = body
        self.events = events
        self.requests = requests
        self.routes = routes


@cython.final
@cython.cclass
class EntryBuilder:
    """The open entry. Fed with frames, sealed once per turn; see the module's head."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.stop = FEED_MORE
        self.stop_request = 0
        self.stop_length = 0
        self.stop_version = 0
        self.stop_type = 0
        self.epoch = 1
        self.table = Words(0x40000).view
        self.heap_words = Words(1 << 15)
        self.heap = self.heap_words.view.cast("B")
        self.record_words = Words(1 << 16)
        self.records = self.record_words.view
        self.request_words = Words(1 << 12)
        self.requests = self.request_words.view
        self.session_words = Words(1 << 10)
        self.sessions = self.session_words.view
        self.string_words = Words(4 << 16)
        self.strings = self.string_words.view
        self.map_words = Words(3 << 16)
        self.map = self.map_words.view
        self._empty()

    def _empty(self) -> None:
        self.events = 0
        self.request_count = 0
        self.session_count = 0
        self.metric_count = 0
        self.account_count = 0
        self.tags_count = 0
        self.id_count = 0
        self.heap_used = 0
        self.size = 0

    # --- frames ------------------------------------------------------------------
    def feed(
        self,
        data: cython.uchar[::1],
        start: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        slot: cython.ulonglong,
    ) -> int:
        """Take complete ingest frames from data[start:end]; return how far it came.

        `stop` then says why it stopped (FEED_*), `stop_request`, `stop_length`,
        `stop_version` and `stop_type` describe the frame concerned.
        """
        p: cython.Py_ssize_t = start
        length: cython.Py_ssize_t
        count: cython.ulonglong
        code: cython.int
        self.stop = FEED_MORE
        while end - p >= 16:
            if load32(data, p) != _MAGIC:
                self.stop = FEED_BAD_MAGIC
                return p
            length = cython.cast(cython.Py_ssize_t, load32(data, p + 8))
            self.stop_version = data[p + 4]
            self.stop_type = data[p + 5]
            self.stop_request = load32(data, p + 12)
            self.stop_length = length
            if length > _FRAME_MAX:
                self.stop = FEED_TOO_LARGE
                return p
            if self.stop_type > 1 or (self.stop_version != 1 and self.stop_version != 2):
                self.stop = FEED_OTHER
                return p
            if self.stop_version == 1:
                count = load32(data, p + 16) if end - p >= 20 and length >= 4 else 0
            else:
                count = load32(data, p + 40) if end - p >= 44 and length >= 28 else 0
            if count > _BATCH_MAX:
                self.stop = FEED_TOO_LARGE
                return p
            if end - p < 16 + length:
                return p
            if self.size >= _BYTES_TARGET or self.events >= _EVENTS_MAX:
                self.stop = FEED_FULL
                return p
            code = self.take(data, p + 16, length, slot)
            p += 16 + length
            if code:
                self.stop = code
                return p
        return p

    def feed_payload(self, version: int, request_id: int, payload: bytes, slot: int) -> int:
        """Take one ingest payload that came without a frame; return FEED_MORE when taken."""
        data = bytearray(payload)
        if len(data) > FRAME_BYTES_MAX:
            return FEED_TOO_LARGE
        at = 0 if version == 1 else 24
        if int.from_bytes(data[at : at + 4], "little") > EVENTS_PER_BATCH_MAX:
            return FEED_TOO_LARGE
        if self.size >= ENTRY_BYTES_TARGET or self.events >= ENTRY_EVENTS_MAX:
            return FEED_FULL
        self.stop_version = version
        self.stop_request = request_id
        return self.take(memoryview(data or bytearray(1)), 0, len(data), slot)

    def take(
        self,
        data: cython.uchar[::1],
        p: cython.Py_ssize_t,
        length: cython.Py_ssize_t,
        slot: cython.ulonglong,
    ) -> cython.int:
        """Take one payload; 0, or FEED_MALFORMED with nothing taken."""
        code: cython.int
        n: cython.Py_ssize_t
        before: cython.Py_ssize_t = self.events
        heap: cython.Py_ssize_t = self.heap_used
        metrics: cython.Py_ssize_t = self.metric_count
        accounts: cython.Py_ssize_t = self.account_count
        tags: cython.Py_ssize_t = self.tags_count
        ids: cython.Py_ssize_t = self.id_count
        sessions: cython.Py_ssize_t = self.session_count
        self.make_room(length)
        if length > 4096:
            # The sync thread gets its turn while a large frame is decoded.
            with cython.nogil:
                if self.stop_version == 1:
                    code = self.take_v1(data, p, length)
                else:
                    code = self.take_v2(data, p, length)
        elif self.stop_version == 1:
            code = self.take_v1(data, p, length)
        else:
            code = self.take_v2(data, p, length)
        if code:
            # Forget its strings too: a new epoch empties the lookup table.
            self.events = before
            self.heap_used = heap
            self.metric_count = metrics
            self.account_count = accounts
            self.tags_count = tags
            self.id_count = ids
            self.session_count = sessions
            self.epoch += 1
            return code
        n = self.events - before
        self.requests[3 * self.request_count] = cython.cast(cython.ulonglong, n) | (
            cython.cast(cython.ulonglong, self.session_count - sessions) << 32
        )
        self.requests[3 * self.request_count + 1] = slot | (
            cython.cast(cython.ulonglong, self.stop_version) << 32
        )
        self.requests[3 * self.request_count + 2] = self.stop_request
        self.request_count += 1
        self.size = (
            64
            + 32 * self.events
            + 8 * self.request_count
            + 24 * self.session_count
            + 8 * (self.metric_count + self.account_count + self.tags_count + self.id_count)
            + self.heap_used
        )
        return 0

    @cython.cfunc
    def make_room(self, length: cython.Py_ssize_t) -> object:
        """No string, record or request of a payload of `length` bytes can overflow after this."""
        # A v1 property of 96 bytes can become 98, an event's tag set has a byte more.
        if self.heap_used + length + length // 16 + 128 > self.heap.shape[0]:
            self.heap = None
            self.heap_words.grow((self.heap_used + length) // 8 * 5 // 4 + 1024)
            self.heap = self.heap_words.view.cast("B")
        if (self.events + _BATCH_MAX) * 4 > self.records.shape[0]:
            self.records = None
            self.record_words.grow((self.events + 2 * _BATCH_MAX) * 4)
            self.records = self.record_words.view
        if 3 * self.request_count + 3 > self.requests.shape[0]:
            self.requests = None
            self.request_words.grow(6 * self.request_count)
            self.requests = self.request_words.view
        if 3 * self.session_count + 3 > self.sessions.shape[0]:
            self.sessions = None
            self.session_words.grow(6 * self.session_count)
            self.sessions = self.session_words.view
        return None

    # --- the entry's strings -------------------------------------------------------
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def string(
        self,
        kind: cython.Py_ssize_t,
        data: cython.uchar[::1],
        start: cython.Py_ssize_t,
        length: cython.Py_ssize_t,
    ) -> cython.Py_ssize_t:
        """The entry's number of a metric code or account, from 0; -1 if it is not text."""
        h: cython.ulonglong = hash_text(data, start, length, kind)
        at: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, h >> 46)
        word: cython.ulonglong = self.table[at]
        number: cython.Py_ssize_t
        place: cython.ulonglong
        i: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        while (word >> 32) == self.epoch:
            number = cython.cast(cython.Py_ssize_t, word & 0xFFFF)
            if ((word >> 16) & 3) == kind:
                place = self.strings[(kind << 16) + number]
                if cython.cast(cython.Py_ssize_t, place & _LOW32) == length:
                    offset = cython.cast(cython.Py_ssize_t, place >> 32)
                    i = 0
                    while i < length and self.heap[offset + i] == data[start + i]:
                        i += 1
                    if i == length:
                        return number
            at = (at + 1) & _TABLE_MASK
            word = self.table[at]
        if not is_text(data, start, length):
            return -1
        for i in range(length):
            self.heap[self.heap_used + i] = data[start + i]
        number = self.metric_count if kind == 0 else self.account_count
        self.strings[(kind << 16) + number] = cython.cast(
            cython.ulonglong, (self.heap_used << 32) | length
        )
        if kind == 0:
            self.metric_count += 1
        else:
            self.account_count += 1
        self.heap_used += length
        self.table[at] = (
            (self.epoch << 32)
            | cython.cast(cython.ulonglong, kind << 16)
            | cython.cast(cython.ulonglong, number)
        )
        return number

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def tag_set(self, length: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The entry's number of the tag set written at the heap's end, from 0; -1 if bad."""
        start: cython.Py_ssize_t = self.heap_used
        h: cython.ulonglong = hash_text(self.heap, start, length, 2)
        at: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, h >> 46)
        word: cython.ulonglong = self.table[at]
        number: cython.Py_ssize_t
        place: cython.ulonglong
        i: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        while (word >> 32) == self.epoch:
            number = cython.cast(cython.Py_ssize_t, word & 0xFFFF)
            if ((word >> 16) & 3) == 2:
                place = self.strings[(2 << 16) + number]
                if cython.cast(cython.Py_ssize_t, place & _LOW32) == length:
                    offset = cython.cast(cython.Py_ssize_t, place >> 32)
                    i = 0
                    while i < length and self.heap[offset + i] == self.heap[start + i]:
                        i += 1
                    if i == length:
                        return number
            at = (at + 1) & _TABLE_MASK
            word = self.table[at]
        if not self.is_tag_set(start, length):
            return -1
        number = self.tags_count
        self.strings[(2 << 16) + number] = cython.cast(cython.ulonglong, (start << 32) | length)
        self.tags_count += 1
        self.heap_used += length
        self.table[at] = (self.epoch << 32) | 0x20000 | cython.cast(cython.ulonglong, number)
        return number

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def is_tag_set(self, start: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.bint:
        """Whether every key is text of 1-32 bytes and new, every value text of up to 64."""
        p: cython.Py_ssize_t = start + 1
        q: cython.Py_ssize_t
        key: cython.Py_ssize_t
        value: cython.Py_ssize_t
        i: cython.Py_ssize_t
        pairs: cython.Py_ssize_t = self.heap[start]
        n: cython.Py_ssize_t
        m: cython.Py_ssize_t
        for n in range(pairs):
            key = self.heap[p]
            value = self.heap[p + 1 + key]
            if key == 0 or key > 32 or value > 64:
                return False
            if not is_text(self.heap, p + 1, key):
                return False
            if not is_text(self.heap, p + 2 + key, value):
                return False
            q = start + 1
            for m in range(n):
                if self.heap[q] == key:
                    i = 0
                    while i < key and self.heap[q + 1 + i] == self.heap[p + 1 + i]:
                        i += 1
                    if i == key:
                        return False
                q += 2 + self.heap[q] + self.heap[q + 1 + self.heap[q]]
            p += 2 + key + value
        return p == start + length

    # --- version 1 -------------------------------------------------------------------
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def take_v1(
        self, data: cython.uchar[::1], p: cython.Py_ssize_t, length: cython.Py_ssize_t
    ) -> cython.int:
        n: cython.Py_ssize_t
        pairs: cython.Py_ssize_t
        i: cython.Py_ssize_t
        at: cython.Py_ssize_t
        prop: cython.Py_ssize_t
        out: cython.Py_ssize_t
        size: cython.Py_ssize_t
        metric: cython.Py_ssize_t
        tags: cython.Py_ssize_t
        reason: cython.ulonglong
        flags: cython.ulonglong
        ts: cython.ulonglong
        value: cython.ulonglong
        op: cython.ulonglong
        count: cython.Py_ssize_t
        if length < 8:
            return _MALFORMED
        n = cython.cast(cython.Py_ssize_t, load32(data, p))
        pairs = cython.cast(cython.Py_ssize_t, load32(data, p + 4))
        if length != 8 + 96 * n + 96 * pairs:
            return _MALFORMED
        count = 0
        for i in range(n):
            count += data[p + 8 + 96 * i + 89]
        if count != pairs:
            return _MALFORMED
        at = p + 8
        prop = at + 96 * n
        out = 4 * self.events
        for i in range(n):
            reason = 0
            flags = 0
            tags = 0
            size = 0
            while size < 64 and data[at + size] != 0:
                size += 1
            metric = self.string(0, data, at, size) if size else -1
            if metric < 0:
                metric = 0xFFFF
                reason = 10
            ts = load64(data, at + 72)
            value = load64(data, at + 80)
            op = data[at + 88]
            count = data[at + 89]
            if ts == 0:
                ts = self.now_ns
            else:
                flags = 6
                if (ts < _TS_MIN or ts >= _TS_MAX) and reason == 0:
                    reason = 12
            if (value >> 63) and reason == 0:
                reason = 13
            if op > 2:
                op = 3
                if reason == 0:
                    reason = 14
            if count:
                if count > _PAIRS_MAX:
                    if reason == 0:
                        reason = 15
                else:
                    tags = self.v1_tags(data, prop, count) + 1
                    if tags == 0 and reason == 0:
                        reason = 16
                prop += 96 * count
            self.records[out] = load64(data, at + 64)
            self.records[out + 1] = ts
            self.records[out + 2] = value
            self.records[out + 3] = (
                cython.cast(cython.ulonglong, metric)
                | (cython.cast(cython.ulonglong, tags) << 16)
                | (op << 48)
                | (flags << 50)
                | (reason << 56)
            )
            out += 4
            at += 96
        self.events += n
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def v1_tags(
        self, data: cython.uchar[::1], p: cython.Py_ssize_t, count: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """Write NUL-padded properties as a tag set at the heap's end; its number or -1."""
        w: cython.Py_ssize_t = self.heap_used
        mark: cython.Py_ssize_t
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        self.heap[w] = cython.cast(cython.uchar, count)
        w += 1
        for i in range(count):
            mark = w
            w += 1
            j = 0
            while j < 32 and data[p + j] != 0:
                self.heap[w] = data[p + j]
                w += 1
                j += 1
            self.heap[mark] = cython.cast(cython.uchar, j)
            mark = w
            w += 1
            j = 0
            while j < 64 and data[p + 32 + j] != 0:
                self.heap[w] = data[p + 32 + j]
                w += 1
                j += 1
            self.heap[mark] = cython.cast(cython.uchar, j)
            p += 96
        return self.tag_set(w - self.heap_used)

    # --- version 2 -------------------------------------------------------------------
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def skip_strings(
        self,
        data: cython.uchar[::1],
        p: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        count: cython.Py_ssize_t,
    ) -> cython.Py_ssize_t:
        """The position after `count` length-prefixed strings, or -1 if they overrun."""
        i: cython.Py_ssize_t
        for i in range(count):
            if p >= end:
                return -1
            p += 1 + data[p]
            if p > end:
                return -1
        return p

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def take_v2(
        self, data: cython.uchar[::1], p: cython.Py_ssize_t, length: cython.Py_ssize_t
    ) -> cython.int:
        end: cython.Py_ssize_t = p + length
        n: cython.Py_ssize_t
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        q: cython.Py_ssize_t
        size: cython.Py_ssize_t
        number: cython.Py_ssize_t
        metrics: cython.Py_ssize_t
        accounts: cython.Py_ssize_t
        tags: cython.Py_ssize_t
        columns: cython.Py_ssize_t
        tables: cython.Py_ssize_t
        at_value: cython.Py_ssize_t
        at_ts: cython.Py_ssize_t
        at_metric: cython.Py_ssize_t
        at_tags: cython.Py_ssize_t
        at_op: cython.Py_ssize_t
        at_kind: cython.Py_ssize_t
        at_size: cython.Py_ssize_t
        at_id: cython.Py_ssize_t
        k: cython.Py_ssize_t
        out: cython.Py_ssize_t
        account: cython.ulonglong
        ts: cython.ulonglong
        default: cython.ulonglong
        reason: cython.ulonglong
        flags: cython.ulonglong
        op: cython.ulonglong
        ident: cython.ulonglong
        tagged: cython.ulonglong
        metric: cython.ulonglong
        if length < 40:
            return _MALFORMED
        n = cython.cast(cython.Py_ssize_t, load32(data, p + 24))
        metrics = load16(data, p + 32)
        accounts = load16(data, p + 34)
        tags = load16(data, p + 36)
        columns = load16(data, p + 38)
        if load32(data, p + 28) > 1 or columns > 31:
            return _MALFORMED
        if metrics > n or accounts > n or tags > n:
            return _MALFORMED
        # First pass: find every table and column, and check that they fit exactly.
        tables = p + 40
        default = self.now_ns
        if load32(data, p + 28):
            if length < 48:
                return _MALFORMED
            default = load64(data, p + 40)
            tables = p + 48
        q = self.skip_strings(data, tables, end, metrics + accounts)
        if q < 0:
            return _MALFORMED
        for i in range(tags):
            if q >= end:
                return _MALFORMED
            q = self.skip_strings(data, q + 1, end, 2 * data[q])
            if q < 0:
                return _MALFORMED
        at_value = q + 8 * n
        at_ts = at_value + 8 * n
        at_metric = at_ts + (8 * n if columns & 1 else 0)
        at_tags = at_metric + 2 * n
        at_op = at_tags + (2 * n if columns & 2 else 0)
        at_kind = at_op + (n if columns & 4 else 0)
        at_size = at_kind + (n if columns & 16 else 0)
        at_id = at_size + (n if columns & 8 else 0)
        if at_id > end:
            return _MALFORMED
        size = 0
        for i in range(n):
            if load16(data, at_metric + 2 * i) >= metrics:
                return _MALFORMED
            if columns & 2 and load16(data, at_tags + 2 * i) > tags:
                return _MALFORMED
            if columns & 16:
                if data[at_kind + i] > 1:
                    return _MALFORMED
                if data[at_kind + i] == 1 and load64(data, q + 8 * i) >= accounts:
                    return _MALFORMED
            if columns & 8:
                size += data[at_size + i]
        if at_id + size != end:
            return _MALFORMED
        # Second pass: the tables' strings become the entry's strings.
        j = tables
        for i in range(metrics + accounts):
            size = data[j]
            number = -1
            if size and size <= 64:
                number = self.string(0 if i < metrics else 1, data, j + 1, size)
            if number < 0:
                number = _BAD + (10 if i < metrics else 11)
            if i < metrics:
                self.map[i] = cython.cast(cython.ulonglong, number)
            else:
                self.map[0x10000 + i - metrics] = cython.cast(cython.ulonglong, number)
            j += 1 + size
        for i in range(tags):
            number = j
            size = data[j]
            j = self.skip_strings(data, j + 1, end, 2 * size)
            if size > _PAIRS_MAX:
                self.map[0x20000 + i] = cython.cast(cython.ulonglong, _BAD + 15)
                continue
            size = j - number
            for k in range(size):
                self.heap[self.heap_used + k] = data[number + k]
            number = self.tag_set(size)
            if number < 0:
                number = _BAD + 16
            self.map[0x20000 + i] = cython.cast(cython.ulonglong, number)
        # Third pass: one record an event.
        out = 4 * self.events
        for i in range(n):
            reason = 0
            flags = 0
            ident = 0
            tagged = 0
            metric = self.map[load16(data, at_metric + 2 * i)]
            if metric >= cython.cast(cython.ulonglong, _BAD):
                reason = metric & 0xFF
                metric = 0xFFFF
            account = load64(data, q + 8 * i)
            if columns & 16 and data[at_kind + i] == 1:
                flags = 1
                account = self.map[0x10000 + cython.cast(cython.Py_ssize_t, account)]
                if account >= cython.cast(cython.ulonglong, _BAD):
                    if reason == 0:
                        reason = account & 0xFF
                    account = 0
                    flags = 0
            ts = load64(data, at_ts + 8 * i) if columns & 1 else 0
            if ts == 0:
                ts = default
            else:
                flags |= 2
            if (ts < _TS_MIN or ts >= _TS_MAX) and reason == 0:
                reason = 12
            op = data[at_op + i] if columns & 4 else 0
            if op > 2:
                op = 3
                if reason == 0:
                    reason = 14
            if columns & 2:
                number = load16(data, at_tags + 2 * i)
                if number:
                    tagged = self.map[0x20000 + number - 1]
                    if tagged >= cython.cast(cython.ulonglong, _BAD):
                        if reason == 0:
                            reason = tagged & 0xFF
                        tagged = 0
                    else:
                        tagged += 1
            if columns & 8 and data[at_size + i]:
                size = data[at_size + i]
                if size > 64 or not is_text(data, at_id, size):
                    if reason == 0:
                        reason = 17
                else:
                    for j in range(size):
                        self.heap[self.heap_used + j] = data[at_id + j]
                    self.strings[(3 << 16) + self.id_count] = cython.cast(
                        cython.ulonglong, (self.heap_used << 32) | size
                    )
                    self.heap_used += size
                    self.id_count += 1
                    ident = cython.cast(cython.ulonglong, self.id_count)
                at_id += size
            self.records[out] = account
            self.records[out + 1] = ts
            self.records[out + 2] = load64(data, at_value + 8 * i)
            self.records[out + 3] = (
                metric
                | (tagged << 16)
                | (ident << 32)
                | (op << 48)
                | (flags << 50)
                | (reason << 56)
            )
            out += 4
        if load64(data, p) | load64(data, p + 8):
            for i in range(3):
                self.sessions[3 * self.session_count + i] = load64(data, p + 8 * i)
            self.session_count += 1
        self.events += n
        return 0

    # --- the finished entry ------------------------------------------------------------
    def seal(self, timestamp_ns: int, first_offset: int) -> Sealed | None:
        """Finish the open entry, or None when nothing was fed; the builder is empty after."""
        if self.request_count == 0:
            return None
        heap_words = (self.heap_used + 7) // 8
        for i in range(self.heap_used, 8 * heap_words):
            self.heap[i] = 0
        head = (
            1 | int(self.request_count) << 32,
            self.events | int(self.metric_count) << 32,
            self.account_count | int(self.tags_count) << 32,
            self.id_count | heap_words << 32,
            timestamp_ns,
            first_offset,
            self.session_count,
            0,
        )
        requests = memoryview(bytearray(self.request_words.view[: 3 * self.request_count])).cast(
            "Q"
        )
        strings = self.string_words.view
        body = b"".join(
            (
                *(w.to_bytes(8, "little") for w in head),
                bytes(requests[::3]) if self.request_count > 1 else bytes(requests[:1]),
                self.session_words.view[: 3 * self.session_count],
                self.record_words.view[: 4 * self.events],
                strings[: self.metric_count],
                strings[1 << 16 : (1 << 16) + self.account_count],
                strings[2 << 16 : (2 << 16) + self.tags_count],
                strings[3 << 16 : (3 << 16) + self.id_count],
                self.heap_words.view[:heap_words],
            )
        )
        sealed = Sealed(body, self.events, self.request_count, bytes(requests))
        self._empty()
        self.epoch += 1
        return sealed
