"""Frames between nodes, sans-I/O: where one ends and the next begins, and what kinds there are.

    length u32 | kind u8 | flags u8 | check u16 | crc u32 | payload
    └──────── check is over these ─┘              └─ crc is over this

Owns the header that everything between two nodes of a cluster wears, from the first
byte of the handshake on, and the reassembly of a byte stream. Refuses to know what a
payload means (`peer_handshake`, `peer_snapshot`, `server.peer_codec`).

The header has a check of its own: a flipped bit in the length would otherwise make us
wait for bytes that never come, on a connection that looks alive because its heartbeats
go on arriving. Either checksum being wrong ends the connection; everything that was
lost with it is sent again by the layers above.

`PeerFramer` owns the memory that the socket writes into, so that a frame is copied once,
by whoever keeps a part of it: ask it where to write (`get_buffer`), tell it how much came
(`received`), take frames (`next_frame`) until it says None, which means "not yet". The
payload it gives is a view into that memory and is good until the next `get_buffer`.
A length up to the bound reserves memory at once: only a peer that proved to know the
secret gets a bound above a few KiB (`admit`).

Rejected: one checksum over header and payload, because it can be checked only after
having believed the length; and a stream of varint-framed messages, because a fixed
header is one `unpack` in Python.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from unimeter import limits
from unimeter.wire.codec import Buffer
from unimeter.wire.messages import ProtocolError

PEER_VERSION: Final = 1  # of everything on this page; the handshake agrees on one
HEADER_BYTES: Final = 12
BUFFER_BYTES: Final = 64 * 1024  # of a link that carries only small messages
BUFFER_KEPT_BYTES: Final = 2 * 1024 * 1024  # one message of entries; more is given back
READ_BYTES_MIN: Final = 4096  # less room than this at the end: move what is held to the front

_HEADER: Final = struct.Struct("<IBBHI")
_CHECKED: Final = struct.Struct("<IBB")
_CHECKED_BYTES: Final = _CHECKED.size

assert _HEADER.size == HEADER_BYTES


class FrameKind(IntEnum):
    """What a frame carries. Numbers are never used again for something else."""

    OPEN = 1  # handshake: versions and a nonce
    HELLO = 2  # handshake: who I am, and the proof that I know the secret
    WELCOME = 3  # handshake: the dialler accepts what the other said
    REFUSED = 4  # handshake: a sentence why not, with the proof
    PING = 5
    PONG = 6  # on the connection that the PING came on
    RAFT = 8
    FORWARD = 9
    FORWARD_REPLY = 10
    STATUS = 11
    HASH = 12
    FETCH = 16
    FETCHED = 17  # on the connection that the FETCH came on
    SNAPSHOT_OFFER = 24
    SNAPSHOT_RESUME = 25
    SNAPSHOT_CHUNK = 26
    SNAPSHOT_VERDICT = 27


# Reading a member of an enumeration by its class costs a call in Python 3.11.
OPEN: Final = FrameKind.OPEN
HELLO: Final = FrameKind.HELLO
WELCOME: Final = FrameKind.WELCOME
REFUSED: Final = FrameKind.REFUSED
PING: Final = FrameKind.PING
PONG: Final = FrameKind.PONG
RAFT: Final = FrameKind.RAFT
FORWARD: Final = FrameKind.FORWARD
FORWARD_REPLY: Final = FrameKind.FORWARD_REPLY
STATUS: Final = FrameKind.STATUS
HASH: Final = FrameKind.HASH
FETCH: Final = FrameKind.FETCH
FETCHED: Final = FrameKind.FETCHED
SNAPSHOT_OFFER: Final = FrameKind.SNAPSHOT_OFFER
SNAPSHOT_RESUME: Final = FrameKind.SNAPSHOT_RESUME
SNAPSHOT_CHUNK: Final = FrameKind.SNAPSHOT_CHUNK
SNAPSHOT_VERDICT: Final = FrameKind.SNAPSHOT_VERDICT

HANDSHAKE_KINDS: Final = frozenset({OPEN, HELLO, WELCOME, REFUSED})
OPAQUE_KINDS: Final = frozenset({FORWARD, FORWARD_REPLY, STATUS, HASH})
SNAPSHOT_KINDS: Final = frozenset(
    {SNAPSHOT_OFFER, SNAPSHOT_RESUME, SNAPSHOT_CHUNK, SNAPSHOT_VERDICT}
)
# What the node that was dialled sends back on the same connection; all else goes on its own.
ANSWER_KINDS: Final = frozenset({PONG, FETCHED, REFUSED})


class Fault(IntEnum):
    """Why a connection between nodes was closed, for counting; `name.lower()` is the word."""

    MAGIC = 0  # does not speak this protocol at all
    VERSION = 1  # speaks only versions that this node does not
    HEADER = 2  # the header's check is wrong
    OVERSIZE = 3
    CRC = 4
    KIND = 5  # unknown, or not allowed here
    MALFORMED = 6  # a payload that contradicts itself
    PROOF = 7  # does not know the secret
    TIMEOUT = 8  # the handshake took too long
    SILENT = 9  # nothing heard for too long
    CROWD = 10  # too many connections that have not proved themselves


class PeerProtocolError(ProtocolError):
    """Bytes of a peer that break this protocol. `fault` is the reason to count."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def check_of(length: int, kind: int, flags: int) -> int:
    """The check of a header; that of zeros is not zero."""
    return zlib.crc32(_CHECKED.pack(length, kind, flags)) & 0xFFFF


def frame_header(kind: int, length: int, crc: int) -> bytes:
    """The 12 bytes before a payload of `length` bytes with checksum `crc`."""
    assert length + HEADER_BYTES <= limits.PEER_FRAME_BYTES_MAX, f"a frame of {length} bytes"
    return _HEADER.pack(length, kind, 0, check_of(length, kind, 0), crc)


def frame_of(kind: int, payload: Buffer = b"") -> bytes:
    """A whole frame in one piece: for small payloads."""
    return frame_header(kind, len(payload), zlib.crc32(payload)) + payload


def frame_buffers(kind: int, buffers: Sequence[Buffer]) -> list[Buffer]:
    """A whole frame as buffers to write one after the other; none of them is copied.

    They must not change until they are written. Each is one-dimensional, of bytes.
    """
    length = crc = 0
    for buffer in buffers:
        length += len(buffer)
        crc = zlib.crc32(buffer, crc)
    return [frame_header(kind, length, crc), *buffers]


class PeerFramer:
    """Bytes of one connection, in; whole frames, out."""

    __slots__ = ("_buffer", "_end", "_error", "_needed", "_start", "_view", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.frame_bytes_max = frame_bytes_max  # header and payload
        self._buffer = bytearray(buffer_bytes)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # what is held
        self._needed = 0  # bytes of the frame at _start, once known to be incomplete
        self._error: PeerProtocolError | None = None

    @property
    def buffered(self) -> int:
        """Bytes held that are not part of a returned frame."""
        return self._end - self._start

    @property
    def capacity(self) -> int:
        """Bytes of memory this connection owns."""
        return len(self._buffer)

    def get_buffer(self) -> memoryview:
        """Where to write what comes next; at least one byte."""
        size, start, end = len(self._buffer), self._start, self._end
        if start == end:
            self._start = self._end = 0
            if size > BUFFER_KEPT_BYTES:
                self._move_to(BUFFER_BYTES)
        elif self._needed > size:
            self._move_to(max(self._needed, min(2 * size, BUFFER_KEPT_BYTES)))
        elif start + self._needed > size or size - end < READ_BYTES_MIN:
            if start:
                have = end - start
                self._view[:have] = self._view[start:end]
                self._start, self._end = 0, have
            elif end == size:
                self._move_to(2 * size)
        return self._view[self._end :]

    def admit(self, frame_bytes_max: int = limits.PEER_FRAME_BYTES_MAX) -> None:
        """The peer has proved itself: believe lengths up to this, in a buffer of usual size."""
        self.frame_bytes_max = frame_bytes_max
        if len(self._buffer) < BUFFER_BYTES:
            self._move_to(BUFFER_BYTES)

    def received(self, size: int) -> None:
        """`size` bytes were written where `get_buffer` said."""
        assert 0 <= size <= len(self._buffer) - self._end
        self._end += size

    def receive_data(self, data: Buffer) -> None:
        """Take bytes that lie elsewhere: for tests and for blocking sockets."""
        rest = memoryview(data)
        while rest:
            space = self.get_buffer()
            size = min(len(space), len(rest))
            space[:size] = rest[:size]
            self.received(size)
            rest = rest[size:]

    def next_frame(self) -> tuple[int, memoryview] | None:
        """(kind, payload) of the next whole frame; None when more bytes are needed.

        After a PeerProtocolError the stream has no next frame: it is raised again.
        """
        if self._error is not None:
            raise self._error
        start, end = self._start, self._end
        if end - start < HEADER_BYTES:
            self._needed = HEADER_BYTES
            return None
        length, kind, flags, check, crc = _HEADER.unpack_from(self._buffer, start)
        body = start + HEADER_BYTES
        if zlib.crc32(self._view[start : start + _CHECKED_BYTES]) & 0xFFFF != check:
            self._fail(Fault.HEADER, "a frame's header does not match its check")
        if flags:
            self._fail(Fault.KIND, f"a frame with flags {flags:#04x}; this version knows none")
        stop = body + length
        if stop - start > self.frame_bytes_max:
            self._fail(
                Fault.OVERSIZE, f"a frame of {length} bytes; the most is {self.frame_bytes_max}"
            )
        if stop > end:
            self._needed = stop - start
            return None
        payload = self._view[body:stop]
        if zlib.crc32(payload) != crc:
            self._fail(Fault.CRC, f"a frame of {length} bytes does not match its checksum")
        self._start, self._needed = stop, 0
        return kind, payload

    def _move_to(self, size: int) -> None:
        """Go on in memory of another size; views given out keep the old one."""
        have = self._end - self._start
        held = self._view[self._start : self._end]
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._view[:have] = held
        self._start, self._end = 0, have

    def _fail(self, fault: Fault, message: str) -> None:
        self._error = PeerProtocolError(fault, message)
        raise self._error
