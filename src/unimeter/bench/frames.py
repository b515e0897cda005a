"""v1 frames made before the clock starts, kept unique while it runs.

A `Tape` is one buffer of many ingest frames, back to back. Taking frames from
it costs no Python work per event: each (account, metric) pair is on the tape
at most once, so an event is unique if its timestamp differs from lap to lap,
and timestamps are written by one strided copy per take.

    tape   | frame 0 | frame 1 | ... | frame n-1 |          one lap
                | 16 header | count, properties | event 96 | event 96 | ...
    stamps | s0 s1 s2 ........................... | + laps   the event at place i
                                                            gets stamps[i + lap]

Within a lap all timestamps differ, and place i sees each of its timestamps
once. A taken frame is overwritten one lap later; a caller that could not send
it all must copy the rest.

The alternative, encoding each frame when it is sent, costs 30 times the
server's own work per event and would measure the generator.
"""

from __future__ import annotations

import random
import struct
from array import array
from dataclasses import dataclass
from typing import Final

from unimeter.types import AggType

MAGIC: Final = 0xC0FFEE01
REQUEST_HEADER: Final = struct.Struct("<IBBHII")
RESPONSE_HEADER: Final = struct.Struct("<B3xII")
INGEST_COUNTS: Final = struct.Struct("<II")
EVENT: Final = struct.Struct("<64sQqQBB6x")
METRIC_BASE: Final = struct.Struct("<64sBBBx64s")
QUERY: Final = struct.Struct("<Qqq64sB7x")
AGGREGATE: Final = struct.Struct("<QQQQQqQ")

PARTITION_ANY: Final = 0xFFFF
TYPE_INGEST_SYNC: Final = 0x01
TYPE_METRIC_PUT: Final = 0x20
TYPE_USAGE_QUERY: Final = 0x30

INGEST_HEAD_BYTES: Final = REQUEST_HEADER.size + INGEST_COUNTS.size
INGEST_REPLY_BYTES: Final = RESPONSE_HEADER.size + 16
QUERY_REPLY_BYTES: Final = RESPONSE_HEADER.size + AGGREGATE.size
STAMP_WORD: Final = (INGEST_HEAD_BYTES + 64 + 8) // 8  # of a frame's first event
EVENT_WORDS: Final = EVENT.size // 8


@dataclass(frozen=True)
class BenchMetric:
    """One of the metrics under load; the five differ in aggregation."""

    code: str
    agg_type: AggType


METRICS: Final = (
    BenchMetric("api_calls", AggType.COUNT),
    BenchMetric("tokens", AggType.SUM),
    BenchMetric("bytes_out", AggType.SUM),
    BenchMetric("peak_memory", AggType.MAX),
    BenchMetric("disk_used", AggType.LATEST),
)


def encode_frame(packet_type: int, request_id: int, payload: bytes) -> bytes:
    """One v1 request frame."""
    head = REQUEST_HEADER.pack(MAGIC, 1, packet_type, PARTITION_ANY, len(payload), request_id)
    return head + payload


def encode_metric_put(metric: BenchMetric, request_id: int = 1) -> bytes:
    """A METRIC_PUT frame of the short form: no filters, thresholds or period."""
    base = METRIC_BASE.pack(metric.code.encode(), int(metric.agg_type), 0, 0, b"")
    return encode_frame(TYPE_METRIC_PUT, request_id, base)


def encode_query(account: int, code: str, start_ns: int, end_ns: int, request_id: int) -> bytes:
    """A USAGE_QUERY frame without filters."""
    payload = QUERY.pack(account, start_ns, end_ns, code.encode(), 0)
    return encode_frame(TYPE_USAGE_QUERY, request_id, payload)


def encode_ingest(events: list[tuple[int, str, int, int]], request_id: int) -> bytes:
    """An INGEST_SYNC frame of (account, code, timestamp_ns, value) without properties."""
    body = b"".join(
        EVENT.pack(code.encode(), account, stamp, value, 0, 0)
        for account, code, stamp, value in events
    )
    return encode_frame(TYPE_INGEST_SYNC, request_id, INGEST_COUNTS.pack(len(events), 0) + body)


def decode_query(reply: bytes | memoryview) -> tuple[int, int]:
    """(sum, count) of one whole USAGE_QUERY response."""
    low, high, count, *_ = AGGREGATE.unpack_from(reply, RESPONSE_HEADER.size)
    return low | high << 64, count


def shuffled_pairs(accounts: int, metrics: int, seed: int = 1) -> list[tuple[int, int]]:
    """Every (account, metric number) once, in an order no cache can guess."""
    pairs = [(account, metric) for account in range(1, accounts + 1) for metric in range(metrics)]
    random.Random(seed).shuffle(pairs)
    return pairs


class Tape:
    """Preencoded ingest frames, each event unique from lap to lap."""

    def __init__(
        self,
        pairs: list[tuple[int, int]],
        batch: int,
        first_ns: int,
        step_ns: int = 1_000,
        laps_max: int = 100_000,
    ) -> None:
        """Encode `pairs` in frames of `batch`; a first_ns of 0 sends no timestamps."""
        usable = len(pairs) // batch * batch
        assert usable > 0, "a tape needs at least one whole frame"
        self.batch = batch
        self.frame_bytes = INGEST_HEAD_BYTES + EVENT.size * batch
        self.frames = usable // batch
        self.pairs = pairs[:usable]
        self.first_ns = first_ns
        self.last_ns = first_ns + (usable + laps_max) * step_ns if first_ns else 0
        self._buffer = bytearray(self._encode())
        self._view = memoryview(self._buffer)
        self._words = self._view.cast("q")
        self._stamps = memoryview(self._stamp_array(usable + laps_max, step_ns))
        self._frame_words = self.frame_bytes // 8
        self._laps_max = laps_max
        self._place = 0
        self._lap = 0

    def _encode(self) -> bytes:
        return b"".join(
            encode_ingest(
                [
                    (account, METRICS[metric].code, 0, 1 + place % 1000)
                    for place, (account, metric) in enumerate(
                        self.pairs[start : start + self.batch], start
                    )
                ],
                request_id=1 + start // self.batch,
            )
            for start in range(0, len(self.pairs), self.batch)
        )

    def _stamp_array(self, count: int, step_ns: int) -> array[int]:
        if not self.first_ns:
            return array("q", bytes(8 * count))
        return array("q", range(self.first_ns, self.first_ns + count * step_ns, step_ns))

    def take(self, frames: int) -> tuple[memoryview, int]:
        """Up to `frames` whole frames and how many they are; valid for one lap."""
        place = self._place
        count = min(frames, self.frames - place)
        event = place * self.batch + self._lap
        first = place * self._frame_words
        if self.batch == 1:
            last, step, number = first + count * self._frame_words, self._frame_words, count
            self._words[first + STAMP_WORD : last : step] = self._stamps[event : event + number]
        else:
            for _ in range(count):
                stamps = self._stamps[event : event + self.batch]
                last = first + self._frame_words
                self._words[first + STAMP_WORD : last : EVENT_WORDS] = stamps
                first, event = last, event + self.batch
        taken = self._view[place * self.frame_bytes : (place + count) * self.frame_bytes]
        self._advance(count)
        return taken, count

    def _advance(self, count: int) -> None:
        self._place += count
        if self._place == self.frames:
            self._place = 0
            self._lap += 1
            assert self._lap < self._laps_max, "the tape ran out of timestamps"

    @property
    def events_taken(self) -> int:
        """Events handed out so far."""
        return (self._lap * self.frames + self._place) * self.batch

    def expected_counts(self, metric: int) -> dict[int, int]:
        """Events handed out so far for each account of metric number `metric`."""
        ahead = self._place * self.batch
        return {
            account: self._lap + (place < ahead)
            for place, (account, number) in enumerate(self.pairs)
            if number == metric
        }
