"""Where received bytes lie until they are a whole frame.

Owns the memory between the sockets and the decode kernel. asyncio and uvloop
call ``get_buffer`` and ``buffer_updated`` of one connection one after the other,
so **one** read buffer serves all connections, and ten thousand idle ones hold
nothing:

    shared   | held part of this connection | what the socket gives now ....   |
             └─ put back before each read ──┘

A connection owns bytes only while it has part of a frame: a small part as plain
bytes, put back in front of the next read; a large one in a buffer that doubles
as bytes arrive. The length a frame declares reserves nothing; a header that
says 16 MiB and is followed by silence costs its 16 bytes.

All held bytes together are bounded by CONNECTION_BUFFERS_BYTES_MAX. `hold`
returns None when the bound is reached; the caller then refuses that frame and
drains it.

Rejected: a buffer for each connection (64 KiB x 10,000 connections) and the
plain asyncio Protocol, which allocates 256 KiB for every read.
"""

from __future__ import annotations

from unimeter import limits

SHARED_BYTES = 512 * 1024  # ten batches of 500 v1 events in one read
SMALL_BYTES = 64 * 1024  # a held part up to this is copied back for each read


class Held:
    """Part of one large frame, in a buffer that grows as bytes arrive."""

    __slots__ = ("filled", "view")

    def __init__(self, capacity: int, data: memoryview) -> None:
        self.view = memoryview(bytearray(capacity))
        self.filled = len(data)
        self.view[: self.filled] = data


class ReadBuffers:
    """The shared read buffer, and a count of what connections hold beside it."""

    def __init__(self, held_bytes_max: int = limits.CONNECTION_BUFFERS_BYTES_MAX) -> None:
        self.shared = memoryview(bytearray(SHARED_BYTES))
        self.held_bytes = 0
        self.held_bytes_max = held_bytes_max

    def hold(self, data: memoryview, frame_bytes: int) -> bytes | Held | None:
        """Keep `data`, the start of a frame of `frame_bytes`; None at the bound."""
        size = len(data)
        capacity = size if size < SMALL_BYTES else max(size, min(2 * size, frame_bytes))
        if self.held_bytes + capacity > self.held_bytes_max:
            return None
        self.held_bytes += capacity
        return bytes(data) if size < SMALL_BYTES else Held(capacity, data)

    def release(self, held: bytes | Held) -> None:
        """Give back what `hold` counted."""
        self.held_bytes -= len(held) if isinstance(held, bytes) else len(held.view)
        assert self.held_bytes >= 0, "held bytes are released once"
