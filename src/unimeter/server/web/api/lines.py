"""The lines of a body that is read as it comes, numbered from 1.

Owns the bound of a line: a body without line ends is not a file of events, and must not be read
into memory. A longer line is refused with its number. What is held is one line and what one
read brought.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from unimeter import limits
from unimeter.server.web.problems import Fault, Problem

BOM = b"\xef\xbb\xbf"


class Lines:
    """Lines of a stream of pieces, in groups as they become whole."""

    def __init__(
        self, pieces: AsyncIterator[bytes], most: int = limits.HTTP_LINE_BYTES_MAX
    ) -> None:
        self._pieces, self._most = pieces, most
        self.number = 0  # of the last line that was given out

    async def groups(self) -> AsyncIterator[list[bytes]]:
        """Whole lines without their ends; all that one read of the body completed."""
        rest = b""
        async for piece in self._pieces:
            if b"\n" not in piece:
                rest += piece
                if len(rest) > self._most:
                    raise self.too_long(self.number + 1)
                continue
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            yield self._given(lines)
            if len(rest) > self._most:
                raise self.too_long(self.number + 1)
        if rest:
            yield self._given([rest])

    def _given(self, lines: list[bytes]) -> list[bytes]:
        if self.number == 0:
            lines[0] = lines[0].removeprefix(BOM)
        self.number += len(lines)
        return lines

    def too_long(self, number: int) -> Problem:
        """The problem with a line over the bound."""
        text = f"line {number} has over {self._most} bytes; one event has a few hundred"
        fault = Fault(f"line {number}", f"has over {self._most} bytes", "one event a line")
        return Problem(413, "too-large", text, [fault], headers={"Retry-After": "0"})
