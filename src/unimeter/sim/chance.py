"""The simulator's only source of randomness: one integer in, the same draws for ever.

Owns a generator of our own (SplitMix64: Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014), so that a seed means the same run on any
release of Python. `fork` gives an independent generator by name: a fault that draws more
than before does not shift the draws of the others, and a failing seed still fails while
its cause is looked for.

Refuses to be used for secrets.
"""

from __future__ import annotations

import zlib
from collections.abc import MutableSequence, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")

_MASK: Final = 2**64 - 1
_STEP: Final = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, odd


class Chance:
    """A stream of draws."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        """Begin a stream; any integer will do."""
        self._state = _mixed(seed & _MASK)

    def fork(self, name: str) -> Chance:
        """Another stream, set by this one's state and the name; this one is not moved."""
        return Chance(self._state ^ (zlib.crc32(name.encode()) * 0x100000001B3))

    def bits64(self) -> int:
        """64 bits."""
        self._state = (self._state + _STEP) & _MASK
        return _mixed(self._state)

    def below(self, count: int) -> int:
        """A number from 0 to count - 1."""
        assert 0 < count < 2**63
        return self.bits64() * count >> 64

    def between(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return low + self.below(high - low + 1)

    def real(self) -> float:
        """A number from 0 up to 1."""
        return (self.bits64() >> 11) / 2**53

    def hit(self, probability: float) -> bool:
        """True that often. 0 and 1 draw as well, so that a rate can be changed alone."""
        return self.real() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]

    def sample(self, choices: Sequence[T], count: int) -> list[T]:
        """So many of them, each place once, in a drawn order."""
        left = list(choices)
        assert count <= len(left)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Put them into a drawn order, in place."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def weighted(self, weights: dict[str, float]) -> str:
        """One of the names, each as often as its weight says."""
        place = self.real() * sum(weights.values())
        for name, weight in weights.items():
            place -= weight
            if place < 0:
                return name
        return next(reversed(weights))

    def bytes(self, count: int) -> bytes:
        """So many bytes."""
        words = (self.bits64().to_bytes(8, "little") for _ in range((count + 7) // 8))
        return b"".join(words)[:count]


def _mixed(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
