"""Kernel: reading an EVENTS body back, for listing, verifying and explaining.

`EventsBody` decodes any one event into an `EventRow` and finds the events of
an account, a metric and a time range without decoding the others. It writes
nothing and knows no state: whether an event was counted is not in the entry.
The layout is drawn in `decode.py`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import cython

from unimeter.engine.memory import Words


class EventRow(NamedTuple):
    """One event as it stands in the log; `refused` is 0 or the reason it was malformed."""

    account: int | str
    metric_code: str
    value: int
    timestamp_ns: int
    operation: int
    properties: dict[str, str]
    id: str | None
    refused: int
    timestamp_given: bool
    content_key: bool


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def pick(
    words: cython.ulonglong[::1],
    at: cython.Py_ssize_t,
    count: cython.Py_ssize_t,
    account: cython.ulonglong,
    kind: cython.ulonglong,
    wanted: cython.ulonglong[::1],
    start: cython.ulonglong,
    end: cython.ulonglong,
    out: cython.ulonglong[::1],
) -> cython.Py_ssize_t:
    """Numbers of the events that fit; kind 0 integer account, 1 string, 2 any."""
    i: cython.Py_ssize_t
    found: cython.Py_ssize_t = 0
    meta: cython.ulonglong
    metric: cython.Py_ssize_t
    for i in range(count):
        if words[at + 1] >= start and words[at + 1] < end and (kind == 2 or words[at] == account):
            meta = words[at + 3]
            metric = cython.cast(cython.Py_ssize_t, meta & 0xFFFF)
            if (meta >> 56) == 0 and (kind == 2 or ((meta >> 50) & 1) == kind) and wanted[metric]:
                out[found] = cython.cast(cython.ulonglong, i)
                found += 1
        at += 4
    return found


class EventsBody:
    """A view of one EVENTS body; keeps a reference to the bytes it was given."""

    def __init__(self, body: bytes | memoryview) -> None:
        if len(body) < 64 or len(body) % 8:
            raise ValueError(f"an EVENTS body of {len(body)} bytes")
        self._words = memoryview(body).cast("B").cast("Q")
        self._bytes = memoryview(body).cast("B")
        head = self._words
        if head[0] & 0xFFFFFFFF != 1:
            raise ValueError(f"EVENTS body of version {head[0] & 0xFFFFFFFF}, not 1")
        self.request_count: int = head[0] >> 32
        self.event_count: int = head[1] & 0xFFFFFFFF
        self._metrics: int = head[1] >> 32
        self._accounts: int = head[2] & 0xFFFFFFFF
        self._tags: int = head[2] >> 32
        self._ids: int = head[3] & 0xFFFFFFFF
        self.timestamp_ns: int = head[4]
        self.first_offset: int = head[5]
        self._sessions = 8 + self.request_count
        self._records = self._sessions + 3 * head[6]
        self._strings = self._records + 4 * self.event_count
        strings = self._metrics + self._accounts + self._tags + self._ids
        self._heap = 8 * (self._strings + strings)
        if self._heap + 8 * (head[3] >> 32) != len(body):
            raise ValueError("an EVENTS body whose tables do not add up to its length")

    def text(self, number: int) -> bytes:
        """String `number` of the body: metric codes, accounts, tag sets, ids in one row."""
        place = self._words[self._strings + number]
        start = self._heap + (place >> 32)
        return bytes(self._bytes[start : start + (place & 0xFFFFFFFF)])

    def metric_codes(self) -> list[str]:
        """The metric codes named in this entry."""
        return [self.text(i).decode() for i in range(self._metrics)]

    def timestamps(self) -> memoryview:
        """Every event's timestamp (ns)."""
        return self._words[self._records + 1 : self._strings : 4]

    def event(self, number: int) -> EventRow:
        """Event `number`, from 0."""
        assert 0 <= number < self.event_count, "event number out of range"
        at = self._records + 4 * number
        account, timestamp, value, meta = self._words[at : at + 4].tolist()
        metric, tags, ident = meta & 0xFFFF, (meta >> 16) & 0xFFFF, (meta >> 32) & 0xFFFF
        flags = (meta >> 50) & 0x3F
        base = self._metrics + self._accounts
        return EventRow(
            self.text(self._metrics + account).decode() if flags & 1 else account,
            self.text(metric).decode() if metric < self._metrics else "",
            value - (1 << 64) if value >> 63 else value,
            timestamp,
            (meta >> 48) & 3,
            unpack_tags(self.text(base + tags - 1)) if tags else {},
            self.text(base + self._tags + ident - 1).decode() if ident else None,
            meta >> 56,
            bool(flags & 2),
            bool(flags & 4),
        )

    def requests(self) -> list[tuple[int, int, int, int]]:
        """(session high, session low, sequence, events) of every request; zeros without session."""
        out = []
        at = self._sessions
        for i in range(self.request_count):
            word = self._words[8 + i]
            session = (0, 0, 0)
            if word >> 32 & 1:
                session = tuple(self._words[at : at + 3])
                at += 3
            out.append((*session, word & 0xFFFFFFFF))
        return out

    def select(
        self, account: int | str | None, metric_code: str | None, start_ns: int, end_ns: int
    ) -> list[int]:
        """Numbers of the well-formed events of an account, a metric and ``[start, end)``.

        None stands for any account or metric.
        """
        kind, key = 2, 0
        if isinstance(account, str):
            name = account.encode()
            found = [i for i in range(self._accounts) if self.text(self._metrics + i) == name]
            if not found:
                return []
            # A code or account can stand twice in one entry; see EntryBuilder.take.
            return sorted(n for i in found for n in self._pick(1, i, metric_code, start_ns, end_ns))
        if account is not None:
            kind, key = 0, account
        return self._pick(kind, key, metric_code, start_ns, end_ns)

    def _pick(
        self, kind: int, key: int, metric_code: str | None, start_ns: int, end_ns: int
    ) -> list[int]:
        code = None if metric_code is None else metric_code.encode()
        wanted = Words(self._metrics + 1)
        some = False
        for i in range(self._metrics):
            wanted.view[i] = code is None or self.text(i) == code
            some = some or bool(wanted.view[i])
        if not some:
            return []
        records = Words(4 * self.event_count + 4)
        records.view[: 4 * self.event_count] = self._words[self._records : self._strings]
        out = Words(self.event_count + 1)
        count = pick(
            records.view,
            0,
            self.event_count,
            key,
            kind,
            wanted.view,
            max(start_ns, 0),
            min(max(end_ns, 0), (1 << 63) - 1),
            out.view,
        )
        return list(out.view[:count])


def unpack_tags(data: bytes) -> dict[str, str]:
    """A tag set's bytes (pair count, then length-prefixed keys and values) as a dict."""
    tags: dict[str, str] = {}
    position = 1
    for _ in range(data[0]):
        key, position = _text(data, position)
        value, position = _text(data, position)
        tags[key] = value
    return tags


def _text(data: bytes, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("B", data, position)
    end = position + 1 + length
    return data[position + 1 : end].decode(), end
