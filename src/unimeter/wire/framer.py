"""Where one message ends and the next begins, sans-I/O.

Owns the two frame headers and the client's reassembly of a byte stream. Both
versions share them; only the version byte differs.

    request   magic u32 | version u8 | type u8 | partition u16 | length u32 | request id u32
    response  status u8 | version u8 | pad u16 | request id u32 | length u32

v1 calls the response's second byte padding and writes 0; v2 writes 2. A message
that the server starts itself has request id 0 and its packet type in the first
byte.

The server needs no request framer: the decode kernel walks ingest frames itself
and hands over the rest at a header, which ``parse_request_header`` reads.
``ResponseFramer`` is the client's: give it what the socket gave
(``receive_data``), take whole messages (``next_frame``) until it says None,
which means "not yet" and is no error. After a ProtocolError a stream has no
next message, so the framer repeats the error and the connection must go.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from unimeter import limits
from unimeter.wire.codec import U32, Buffer
from unimeter.wire.messages import ProtocolError, Status

MAGIC: Final = 0xC0FFEE01
VERSION_1: Final = 1
VERSION_2: Final = 2
PARTITION_NONE: Final = 0xFFFF  # v1: not given, the server routes by account
REQUEST_HEADER_BYTES: Final = 16
RESPONSE_HEADER_BYTES: Final = 12
RESPONSE_BYTES_MAX: Final = limits.CONNECTION_OUT_BYTES_MAX

_REQUEST_HEADER: Final = struct.Struct("<IBBHII")
_RESPONSE_HEADER: Final = struct.Struct("<BBxxII")
_REQUEST_ID_AT: Final = 12
_RESPONSE_ID_AT: Final = 4
_COMPACT_BYTES: Final = 64 * 1024  # read bytes are dropped from the buffer in such steps


class RequestHeader(NamedTuple):
    """A request's header; `length` is the payload's."""

    version: int
    packet_type: int
    partition: int
    length: int
    request_id: int


class ResponseFrame(NamedTuple):
    """A whole response, or a push where `request_id` is 0 and `status` its packet type."""

    version: int
    status: int
    request_id: int
    payload: bytes

    @property
    def is_push(self) -> bool:
        """Whether the server started this message itself."""
        return self.request_id == 0


def parse_request_header(data: Buffer, position: int = 0) -> RequestHeader | None:
    """The header at `position`; None while fewer than 16 bytes are there.

    Raises ProtocolError for a wrong magic, after which nothing can be read.
    """
    if len(data) - position < REQUEST_HEADER_BYTES:
        return None
    magic, version, packet_type, partition, length, request_id = _REQUEST_HEADER.unpack_from(
        data, position
    )
    if magic != MAGIC:
        raise ProtocolError(f"frame starts with {magic:#010x}; expected {MAGIC:#010x}")
    return RequestHeader(version, packet_type, partition, length, request_id)


def request_frame(version: int, packet_type: int, request_id: int, payload: Buffer) -> bytes:
    """A whole request, ready to write. Request ids are not 0: that means a push."""
    assert 0 < request_id < 2**32
    partition = PARTITION_NONE if version == VERSION_1 else 0
    header = _REQUEST_HEADER.pack(MAGIC, version, packet_type, partition, len(payload), request_id)
    return header + payload


def response_frame(version: int, status: int, request_id: int, payload: Buffer = b"") -> bytes:
    """A whole response, ready to write."""
    shown = VERSION_2 if version == VERSION_2 else 0
    return _RESPONSE_HEADER.pack(status, shown, request_id, len(payload)) + payload


def push_frame(version: int, packet_type: int, payload: Buffer) -> bytes:
    """A whole message that the server starts itself."""
    return response_frame(version, packet_type, 0, payload)


def request_with_id(frame: Buffer, request_id: int) -> bytes:
    """A whole request under another request id, for whoever forwards it."""
    return _with_id(frame, _REQUEST_ID_AT, request_id)


def response_with_id(frame: Buffer, request_id: int) -> bytes:
    """A whole response under another request id, for whoever hands it back."""
    return _with_id(frame, _RESPONSE_ID_AT, request_id)


def _with_id(frame: Buffer, position: int, request_id: int) -> bytes:
    assert 0 < request_id < 2**32
    view = memoryview(frame)
    return b"".join((view[:position], U32.pack(request_id), view[position + U32.size :]))


class ResponseFramer:
    """Bytes of one connection, in; whole responses, out."""

    def __init__(self, response_bytes_max: int = RESPONSE_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._response_bytes_max = response_bytes_max
        self._error: ProtocolError | None = None

    def receive_data(self, data: Buffer) -> None:
        """Take what the socket gave."""
        self._buffer += data

    def next_frame(self) -> ResponseFrame | None:
        """The next whole response; None when more bytes are needed."""
        if self._error is not None:
            raise self._error
        available = len(self._buffer) - self._position
        if available < RESPONSE_HEADER_BYTES:
            self._compact()
            return None
        status, version, request_id, length = _RESPONSE_HEADER.unpack_from(
            self._buffer, self._position
        )
        self._check(status, version, request_id, length)
        if available < RESPONSE_HEADER_BYTES + length:
            self._compact()
            return None
        start = self._position + RESPONSE_HEADER_BYTES
        self._position = start + length
        payload = bytes(memoryview(self._buffer)[start : start + length])
        return ResponseFrame(version or VERSION_1, status, request_id, payload)

    @property
    def buffered(self) -> int:
        """Bytes received that are not part of a returned frame."""
        return len(self._buffer) - self._position

    def _compact(self) -> None:
        """Drop what was read: at once when that is all, else in large steps."""
        if self._position == len(self._buffer) or self._position >= _COMPACT_BYTES:
            del self._buffer[: self._position]
            self._position = 0

    def _check(self, status: int, version: int, request_id: int, length: int) -> None:
        """Refuse a header that no server writes: we would wait for its bytes for ever."""
        if version not in (0, VERSION_2):
            self._fail(f"response of version {version}; expected 0 (v1) or 2")
        if request_id != 0 and status > Status.BACKPRESSURE:
            self._fail(f"response with status {status}; expected 0 to {int(Status.BACKPRESSURE)}")
        if length > self._response_bytes_max:
            self._fail(f"response of {length} bytes; the most is {self._response_bytes_max}")

    def _fail(self, message: str) -> None:
        self._error = ProtocolError(message)
        raise self._error
