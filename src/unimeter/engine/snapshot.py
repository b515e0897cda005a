"""State to bytes and back. The same state gives the same bytes on every replica.

    "UMSTATE3", applied, timestamp, next offset,
    events, stored, duplicates, refused,
    cluster id (2 words), hash key (2 words),
    catalog: length, bytes, zero pad     sessions: length, bytes, zero pad
    administration: length, JSON, zero pad
    the counter's tables, raw (`Counter.dump`)

Everything is in whole little-endian words. The tables are written as they lie
in memory, free slots and all: their layout follows from the log alone, so it
is the same everywhere, and writing is a copy. Sorting ten million keys first
was the alternative; it would take seconds of the one core that ingest needs.

No checksums here: storage adds them, chunk by chunk.
"""

from __future__ import annotations

import sys

from unimeter.engine.memory import Words

MAGIC = int.from_bytes(b"UMSTATE3", "little")

assert sys.byteorder == "little", "the stored formats are little-endian, like every tested host"


def words(*values: int) -> bytes:
    """Integers as words."""
    return b"".join(value.to_bytes(8, "little") for value in values)


def padded(data: bytes) -> bytes:
    """Bytes behind their length, filled up to a whole word."""
    return words(len(data)) + data + bytes(-len(data) % 8)


class Source:
    """Reads a snapshot from front to end; ValueError where it is not one."""

    def __init__(self, data: memoryview | bytes) -> None:
        view = memoryview(data).cast("B")
        if len(view) % 8:
            raise ValueError(f"a snapshot of {len(view)} bytes is not made of words")
        self._words = view.cast("Q")
        self._at = 0

    def _take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self._words) - self._at:
            raise ValueError(f"a snapshot ends where {count} words should follow")
        taken = self._words[self._at : self._at + count]
        self._at += count
        return taken

    def words(self, count: int) -> list[int]:
        """The next `count` words."""
        return list(self._take(count))

    def data(self) -> bytes:
        """Bytes that `padded` wrote."""
        (length,) = self._take(1)
        return bytes(self._take((length + 7) // 8).cast("B")[:length])

    def array(self, count: int, least: int = 0) -> Words:
        """The next `count` words as an array of at least `least`."""
        taken = self._take(count)
        array = Words(max(count, least))
        array.view[:count] = taken
        return array

    def check_end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._words):
            raise ValueError(f"{len(self._words) - self._at} words follow a snapshot's end")
