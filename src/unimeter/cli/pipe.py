"""Standard input, read so that a slow pipe is not kept waiting.

A buffered stream can't tell whether a whole line is there without blocking. A
`Pipe` can: `ready` waits a moment for more, so a run sends what it has while
the program at the other end is silent.
"""

from __future__ import annotations

import os
import select
from typing import Protocol

READ_BYTES = 256 * 1024


class Readable(Protocol):
    """What rows are read from, forward only: a file or a pipe."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        ...

    def readline(self, size: int = -1, /) -> bytes:
        """One line, or `size` bytes of it; empty at the end."""
        ...


class Pipe:
    """Lines from a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._ended = False

    def ready(self, seconds: float) -> bool:
        """Whether reading on will not wait for long: a line, the end, or bytes are there."""
        if self._ended or b"\n" in self._buffer:
            return True
        found, _, _ = select.select([self._descriptor], [], [], seconds)
        return bool(found)

    def peek(self) -> bytes:
        """What comes next, without taking it."""
        if not self._buffer:
            self._fill()
        return bytes(self._buffer[:64])

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        if not self._buffer:
            self._fill()
        return self._cut(len(self._buffer) if size < 0 else size)

    def readline(self, size: int = -1, /) -> bytes:
        """One line, or `size` bytes of it; empty at the end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if self._ended or 0 <= size <= searched:
                return self._cut(searched if size < 0 else size)
            self._fill()
        return self._cut(end + 1 if size < 0 else min(end + 1, size))

    def _fill(self) -> None:
        if not self._ended:
            part = os.read(self._descriptor, READ_BYTES)
            self._buffer += part
            self._ended = not part

    def _cut(self, size: int) -> bytes:
        part = bytes(self._buffer[:size])
        del self._buffer[:size]
        return part
