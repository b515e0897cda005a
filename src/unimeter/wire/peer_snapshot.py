"""The four messages that bring a snapshot file to another node.

    sender                              receiver
      OFFER    transfer, size, what ──>
                                    <── RESUME   START, offset: send from here
      CHUNK    offset, crc, bytes   ──>
      CHUNK ...                     <── RESUME   PROGRESS, offset: all before is written
                                    <── RESUME   AGAIN, offset, reason: go back to here
                                    <── RESUME   BUSY: checking or syncing, be patient
                                    <── VERDICT  ok, or the reason

Owns their bytes. `transfer` is a number that the sender makes up for each attempt, so that
what is late from an earlier one is recognised. A chunk's checksum also covers its transfer
and its offset: bytes that are whole and in the wrong place do not pass. How the file
is checked as a whole is in its own format.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import Final, NamedTuple

from unimeter.wire.codec import Buffer
from unimeter.wire.peer import (
    SNAPSHOT_CHUNK,
    SNAPSHOT_OFFER,
    SNAPSHOT_RESUME,
    SNAPSHOT_VERDICT,
    Fault,
    PeerProtocolError,
    frame_buffers,
    frame_of,
)

TEXT_BYTES_MAX: Final = 1024
_OFFER: Final = struct.Struct("<QQ")
_RESUME: Final = struct.Struct("<QQB")
_CHUNK: Final = struct.Struct("<QQI")
_PLACE: Final = struct.Struct("<QQ")
_VERDICT: Final = struct.Struct("<QB")


class Step(IntEnum):
    """What a RESUME says."""

    START = 0
    PROGRESS = 1
    AGAIN = 2
    BUSY = 3


class Offer(NamedTuple):
    """A file of `size` bytes may come; `message` is the RAFT payload that announces it."""

    transfer: int
    size: int
    message: memoryview


class Resume(NamedTuple):
    """How far the receiver is, and what the sender should do."""

    transfer: int
    offset: int
    step: Step
    reason: str = ""


class Chunk(NamedTuple):
    """Bytes of the file."""

    transfer: int
    offset: int
    crc: int
    data: memoryview

    @property
    def is_intact(self) -> bool:
        """Whether the bytes match their checksum and belong here."""
        return self.crc == chunk_crc(self.transfer, self.offset, self.data)


class Verdict(NamedTuple):
    """How it ended; `reason` is empty when the whole file is here and durable."""

    transfer: int
    reason: str


def chunk_crc(transfer: int, offset: int, data: Buffer) -> int:
    """The checksum of a chunk."""
    return zlib.crc32(data, zlib.crc32(_PLACE.pack(transfer, offset)))


def offer_frame(transfer: int, size: int, message: list[Buffer]) -> list[Buffer]:
    """A whole SNAPSHOT_OFFER."""
    return frame_buffers(SNAPSHOT_OFFER, [_OFFER.pack(transfer, size), *message])


def resume_frame(resume: Resume) -> list[Buffer]:
    """A whole SNAPSHOT_RESUME."""
    head = _RESUME.pack(resume.transfer, resume.offset, resume.step)
    return [frame_of(SNAPSHOT_RESUME, head + _encode_text(resume.reason))]


def chunk_frame(transfer: int, offset: int, data: Buffer) -> list[Buffer]:
    """A whole SNAPSHOT_CHUNK."""
    head = _CHUNK.pack(transfer, offset, chunk_crc(transfer, offset, data))
    return frame_buffers(SNAPSHOT_CHUNK, [head, data])


def verdict_frame(verdict: Verdict) -> list[Buffer]:
    """A whole SNAPSHOT_VERDICT."""
    head = _VERDICT.pack(verdict.transfer, not verdict.reason)
    return [frame_of(SNAPSHOT_VERDICT, head + _encode_text(verdict.reason))]


def decode_offer(payload: memoryview) -> Offer:
    """The offer in a payload; its message is a view."""
    transfer, size = _unpack(_OFFER, payload, "OFFER")
    return Offer(transfer, size, payload[_OFFER.size :])


def decode_resume(payload: memoryview) -> Resume:
    """The RESUME in a payload."""
    transfer, offset, step = _unpack(_RESUME, payload, "RESUME")
    if step > Step.BUSY:
        raise PeerProtocolError(Fault.MALFORMED, f"a snapshot's RESUME with step {step}")
    return Resume(transfer, offset, Step(step), _decode_text(payload[_RESUME.size :]))


def decode_chunk(payload: memoryview) -> Chunk:
    """The chunk in a payload; its data is a view."""
    transfer, offset, crc = _unpack(_CHUNK, payload, "CHUNK")
    return Chunk(transfer, offset, crc, payload[_CHUNK.size :])


def decode_verdict(payload: memoryview) -> Verdict:
    """The verdict in a payload."""
    transfer, is_ok = _unpack(_VERDICT, payload, "VERDICT")
    reason = _decode_text(payload[_VERDICT.size :])
    if is_ok != (not reason):
        raise PeerProtocolError(Fault.MALFORMED, f"a verdict of {is_ok} with reason {reason!r}")
    return Verdict(transfer, reason)


def _unpack(layout: struct.Struct, payload: memoryview, what: str) -> tuple[int, ...]:
    if len(payload) < layout.size:
        raise PeerProtocolError(Fault.MALFORMED, f"a snapshot's {what} of {len(payload)} bytes")
    return layout.unpack_from(payload)


def _encode_text(text: str) -> bytes:
    return text.encode("utf-8")[:TEXT_BYTES_MAX]


def _decode_text(data: memoryview) -> str:
    """A sentence of a peer that has proved itself; whatever it says must be showable."""
    text = bytes(data[:TEXT_BYTES_MAX]).decode("utf-8", "replace")
    return "".join(each if each.isprintable() else "?" for each in text)
