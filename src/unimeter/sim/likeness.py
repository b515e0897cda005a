"""Bodies that the engine can't tell apart: 18 bits are kept of each, on purpose.

Owns the one answer for which the independent meter has to know how the engine does it. An id that
comes again with another body is a conflict, unless the 18 bits of both bodies are equal,
once in 262,144 times: then it is called a duplicate (docs/internals/status.md). Neither is
counted, so no total hangs on it; but an outcome does, and the simulator compares every one.

    body = spread(value, operation), with the tag set's hash, with the timestamp if one was given

Written from docs/internals/formats.md and `engine.count`'s words; the keyed hash is the engine's
own (SipHash-2-4-128, which has test vectors of its authors).
"""

from __future__ import annotations

from typing import Any, Final

from unimeter.engine.hashing import Hasher

BITS: Final = 18
_ONES: Final = 2**64 - 1
_GOLD: Final = 0x9E3779B97F4A7C15
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


class Likeness:
    """Which bodies look alike under one log's hash key."""

    def __init__(self, hash_key: bytes) -> None:
        self._hasher: Any = Hasher(hash_key)

    def are_alike(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        """Whether the engine takes these two bodies for one."""
        return self.bits(*one) == self.bits(*other)

    def bits(
        self,
        value: int,
        operation: int,
        properties: tuple[tuple[str, str], ...],
        timestamp_ns: int | None,
    ) -> int:
        """What is kept of a body."""
        low = high = 0
        if properties:
            digest = self._hasher.digest(tag_set(properties))
            low, high = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        found = spread(value & _ONES, operation)
        found = spread(found ^ low, high)
        if timestamp_ns is not None:
            found = spread(found, timestamp_ns)
        return found & (2**BITS - 1)


def tag_set(properties: tuple[tuple[str, str], ...]) -> bytes:
    """A tag set as it stands in an entry (docs/internals/entries.md)."""
    texts = [text.encode() for pair in properties for text in pair]
    return bytes([len(properties)]) + b"".join(bytes([len(text)]) + text for text in texts)


def spread(one: int, other: int) -> int:
    """Two words mixed into one: the finaliser of splitmix64."""
    word = one ^ (other * _GOLD & _ONES)
    for shift, factor in _MIX:
        word = (word ^ word >> shift) * factor & _ONES
    return word ^ word >> 31
