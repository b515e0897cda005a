"""The kinds of log entry. Everything that changes state is one entry.

    NOOP            nothing: begins a leader's term, says "the time of the entry before"
    GENESIS         cluster id (16 bytes), hash key (16 bytes); the first entry of every log
    EVENTS          one turn's batches, written by `decode.EntryBuilder`
    METRIC_PUT      mode u8, schema (`catalog.encode_schema`)
    METRIC_DELETE   the code, UTF-8

Numbers are for ever: a new meaning gets a new number. That NOOP is 0 makes no blank
log an entry: what an entry is, its header's magic says.
"""

from __future__ import annotations

from typing import Final

NOOP: Final = 0
GENESIS: Final = 1
EVENTS: Final = 2
METRIC_PUT: Final = 3
METRIC_DELETE: Final = 4
ADMIN: Final = 5
ON_BEHALF: Final = 6

NAMES: Final = {
    NOOP: "noop",
    GENESIS: "genesis",
    EVENTS: "events",
    METRIC_PUT: "metric",
    METRIC_DELETE: "delete",
}


def genesis_body(cluster_id: bytes, hash_key: bytes) -> bytes:
    """The body of the first entry. `hash_key` must come from a secret random source."""
    assert len(cluster_id) == 16 and len(hash_key) == 16
    return cluster_id + hash_key


def next_offset_of(body: bytes | memoryview) -> int:
    """The offset of the first event after this EVENTS entry: its own first one and its count."""
    return int.from_bytes(body[40:48], "little") + int.from_bytes(body[8:12], "little")
