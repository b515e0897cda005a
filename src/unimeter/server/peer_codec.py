"""Raft messages and single entries, as bytes between nodes.

    message   type u8 | flags u8 | context bytes u16 | entries u32
              to | sender | term | log term | index | commit | vote | reject hint   u64 each
              [snapshot: index u64 | term u64 | voters u16 | each u64]
              context
              entry head, for each: index u64 | term u64 | timestamp i64 | length u32 | kind u16 | 0
              entry bodies, one after the other

Owns those bytes. Lives beside the transport and not in `wire`, which knows no Raft,
nor in `raft`, which knows no bytes.

Encoding copies no body: a message is a list of buffers for the socket, heads in one
and each body as it is. Decoding copies each body out of the read buffer once, as bytes of
its own, because bodies stay in the log's memory long after the buffer was used again.

A snapshot's data does not travel in a message; it is a file, and `peer_snapshots`
brings it. What the head says does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from unimeter.raft.messages import LOCAL_TYPES, Entry, Message, MessageType, Snapshot, SnapshotMeta
from unimeter.wire.codec import Buffer
from unimeter.wire.peer import Fault, PeerProtocolError

_HEAD: Final = struct.Struct("<BBHIQQQQQQQQ")
_ENTRY: Final = struct.Struct("<QQqIHH")
_META: Final = struct.Struct("<QQH")
_INDEX: Final = struct.Struct("<Q")
HEAD_BYTES: Final = _HEAD.size
ENTRY_HEAD_BYTES: Final = _ENTRY.size
VOTERS_MAX: Final = 255

_REJECT: Final = 1
_SNAPSHOT: Final = 2
_FLAGS_KNOWN: Final = _REJECT | _SNAPSHOT
# What a peer may send, by its number; a list is quicker than the enumeration's own look-up.
_TYPES: Final = [
    None if number in LOCAL_TYPES else MessageType(number) for number in range(len(MessageType))
]

assert HEAD_BYTES == 72 and ENTRY_HEAD_BYTES == 32


def encode_message(message: Message) -> list[Buffer]:
    """The payload of a RAFT frame, as buffers to be written one after the other."""
    entries, context, snapshot = message.entries, message.context, message.snapshot
    head = _HEAD.pack(
        message.type,
        (_REJECT if message.reject else 0) | (_SNAPSHOT if snapshot is not None else 0),
        len(context),
        len(entries),
        message.to,
        message.sender,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.vote,
        message.reject_hint,
    )
    if snapshot is not None:
        head += _encode_meta(snapshot.meta)
    if context:
        head += context
    if not entries:
        return [head]
    pack = _ENTRY.pack
    heads = [pack(e.index, e.term, e.timestamp_ns, len(e.body), e.kind, 0) for e in entries]
    return [head + b"".join(heads), *[e.body for e in entries]]


def decode_message(payload: memoryview) -> Message:
    """The message in `payload`, which may be used again afterwards.

    Raises PeerProtocolError for one that contradicts itself or that no peer sends.
    """
    size = len(payload)
    if size < HEAD_BYTES:
        raise _malformed(f"a message of {size} bytes")
    (
        number,
        flags,
        context_bytes,
        count,
        to,
        sender,
        term,
        log_term,
        index,
        commit,
        vote,
        reject_hint,
    ) = _HEAD.unpack_from(payload)
    kind = _TYPES[number] if number < len(_TYPES) else None
    if kind is None:
        raise _malformed(f"a message of type {number}, which no peer sends")
    if flags & ~_FLAGS_KNOWN:
        raise _malformed(f"a message with flags {flags:#04x}")
    position = HEAD_BYTES
    snapshot = None
    if flags & _SNAPSHOT:
        meta, position = _decode_meta(payload, position)
        snapshot = Snapshot(meta)
    context = b""
    if context_bytes:
        context = bytes(payload[position : position + context_bytes])
        position += context_bytes
    if position + count * ENTRY_HEAD_BYTES > size:
        raise _malformed(f"{size} bytes for a context of {context_bytes} and {count} entries")
    entries: Sequence[Entry] = ()
    if count:
        found: list[Entry] = []
        position = _decode_entries(payload, position, count, found)
        entries = found
    if position != size:
        raise _malformed(f"{size} bytes of which {position} are a message")
    return Message(
        kind,
        to,
        sender,
        term,
        log_term,
        index,
        entries,
        commit,
        vote,
        snapshot,
        flags & _REJECT != 0,
        reject_hint,
        context,
    )


def _decode_entries(payload: memoryview, position: int, count: int, into: list[Entry]) -> int:
    """Append `count` entries whose heads begin at `position`; return where the bodies end."""
    size = len(payload)
    unpack, start = _ENTRY.unpack_from, position + count * ENTRY_HEAD_BYTES
    for at in range(position, start, ENTRY_HEAD_BYTES):
        index, term, timestamp_ns, length, kind, zero = unpack(payload, at)
        stop = start + length
        if stop > size or zero:
            raise _malformed(f"{size} bytes and an entry {index} that ends at byte {stop}")
        into.append(Entry(index, term, kind, timestamp_ns, bytes(payload[start:stop])))
        start = stop
    return start


def _encode_meta(meta: SnapshotMeta) -> bytes:
    head = _META.pack(meta.index, meta.term, len(meta.voters))
    return head + b"".join(_INDEX.pack(voter) for voter in meta.voters)


def _decode_meta(payload: memoryview, position: int) -> tuple[SnapshotMeta, int]:
    """(the head of a snapshot at `position`, where it ends)."""
    end = position + _META.size
    if end > len(payload):
        raise _malformed("a message that ends inside its snapshot's head")
    index, term, count = _META.unpack_from(payload, position)
    stop = end + count * _INDEX.size
    if count > VOTERS_MAX or stop > len(payload):
        raise _malformed(f"a snapshot's head with {count} voters")
    voters = tuple(_INDEX.unpack_from(payload, at)[0] for at in range(end, stop, _INDEX.size))
    return SnapshotMeta(index, term, voters), stop


# --- one entry, for repair -----------------------------------------------------------


def encode_fetch(index: int) -> bytes:
    """The payload of FETCH: which committed entry is wanted."""
    return _INDEX.pack(index)


def decode_fetch(payload: Buffer) -> int:
    """The index that a FETCH asks for."""
    if len(payload) != _INDEX.size:
        raise _malformed(f"a FETCH of {len(payload)} bytes")
    return int(_INDEX.unpack(payload)[0])


def encode_fetched(entry: Entry | None) -> list[Buffer]:
    """The payload of FETCHED: an entry, or nothing where the peer has none to give."""
    if entry is None:
        return []
    head = _ENTRY.pack(entry.index, entry.term, entry.timestamp_ns, len(entry.body), entry.kind, 0)
    return [head, entry.body]


def decode_fetched(payload: memoryview) -> Entry | None:
    """The entry in a FETCHED, or None."""
    if not len(payload):
        return None
    if len(payload) < ENTRY_HEAD_BYTES:
        raise _malformed(f"a FETCHED of {len(payload)} bytes")
    entries: list[Entry] = []
    end = _decode_entries(payload, 0, 1, entries)
    if end != len(payload):
        raise _malformed(f"a FETCHED of {len(payload)} bytes with an entry of {end}")
    return entries[0]


def _malformed(what: str) -> PeerProtocolError:
    return PeerProtocolError(Fault.MALFORMED, f"the peer sent {what}")
