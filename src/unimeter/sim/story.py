"""Everything that happens in one run: hashed always, kept as readable events on request.

Owns the *trace hash*, by which two runs of one seed are compared: every message, crash,
commit and reply goes in, with its time. A run that differs anywhere differs in the hash.

    story.tell("commit", "n2", index, kind, events)

Refuses words that could differ between two processes: only integers, texts and bytes, and
never an address, a path of the host or the order of a set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

Word = int | str | bytes


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened."""

    time_ns: int  # since the world began
    kind: str
    who: str  # n1 to n5: a node; c1, c2, ...: a client; world
    words: tuple[Word, ...]

    def __str__(self) -> str:
        words = " ".join(
            word.hex() if isinstance(word, bytes) else str(word) for word in self.words
        )
        return f"{self.time_ns / 1e9:12.6f}  {self.who:<5}  {self.kind:<8}  {words}"


class Story:
    """The story of one run."""

    def __init__(self, keep: bool = False, clock: Callable[[], int] = lambda: 0) -> None:
        """With `keep` every happening is kept, in order; without, only their hash."""
        self.clock = clock
        self.count = 0
        self.happenings: list[Happening] = []
        self._keep = keep
        self._hash = hashlib.blake2b(digest_size=16)

    def tell(self, kind: str, who: str, *words: Word) -> None:
        """Something happened now."""
        now = self.clock()
        self.count += 1
        self._hash.update(repr((now, kind, who, words)).encode())
        if self._keep:
            self.happenings.append(Happening(now, kind, who, words))

    def digest(self) -> str:
        """The hash of all that was told so far, 32 hexadecimal digits."""
        return self._hash.hexdigest()
