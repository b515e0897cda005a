"""Frames between nodes: whatever is cut, flipped or made up, no wrong frame comes out."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter import limits
from unimeter.wire.peer import (
    BUFFER_BYTES,
    BUFFER_KEPT_BYTES,
    FORWARD,
    HEADER_BYTES,
    PING,
    RAFT,
    Fault,
    FrameKind,
    PeerFramer,
    PeerProtocolError,
    check_of,
    frame_buffers,
    frame_of,
)

kinds = st.sampled_from(list(FrameKind))
frames = st.lists(st.tuples(kinds, st.binary(max_size=300)), max_size=20)


def taken(framer: PeerFramer) -> list[tuple[int, bytes]]:
    found = []
    while (frame := framer.next_frame()) is not None:
        found.append((frame[0], bytes(frame[1])))
    return found


def fault_of(framer: PeerFramer) -> Fault:
    with pytest.raises(PeerProtocolError) as caught:
        taken(framer)
    with pytest.raises(PeerProtocolError):  # a broken stream stays broken
        framer.next_frame()
    return caught.value.fault


@given(frames, st.lists(st.integers(1, 400)), st.sampled_from([64, 512, 4096, 65536]))
def test_frames_come_out_whole_wherever_the_stream_is_cut(sent, cuts, buffer_bytes):
    stream = b"".join(frame_of(kind, payload) for kind, payload in sent)
    framer = PeerFramer(4096, buffer_bytes)
    found = []
    position = 0
    for size in [*cuts, len(stream)]:
        framer.receive_data(stream[position : position + size])
        position += size
        found += taken(framer)
    assert found == sent
    assert framer.buffered == 0


@given(frames, st.data())
def test_frames_come_out_whole_when_the_socket_writes_into_the_framers_memory(sent, data):
    stream = b"".join(frame_of(kind, payload) for kind, payload in sent)
    framer = PeerFramer(4096, 64)
    found = []
    while stream:
        space = framer.get_buffer()
        assert len(space) > 0
        size = data.draw(st.integers(1, min(len(space), len(stream))))
        space[:size] = stream[:size]
        framer.received(size)
        stream = stream[size:]
        found += taken(framer)
    assert found == sent


def test_every_cut_of_three_frames_gives_the_same_frames():
    sent = [(int(RAFT), b"a" * 30), (int(PING), b""), (int(FORWARD), bytes(100))]
    stream = b"".join(frame_of(kind, payload) for kind, payload in sent)
    for cut in range(len(stream) + 1):
        framer = PeerFramer(4096, 64)
        framer.receive_data(stream[:cut])
        found = taken(framer)
        framer.receive_data(stream[cut:])
        assert found + taken(framer) == sent


def test_every_flipped_bit_is_noticed_before_its_frame_comes_out():
    first, second = frame_of(PING, b"before"), frame_of(RAFT, bytes(range(40)))
    for bit in range(8 * len(second)):
        broken = bytearray(second)
        broken[bit // 8] ^= 1 << bit % 8
        framer = PeerFramer(4096)
        framer.receive_data(first + broken)
        assert framer.next_frame() == (PING, b"before")
        fault = fault_of(framer)
        assert fault is (Fault.HEADER if bit < 64 else Fault.CRC)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waits_for_more(garbage):
    framer = PeerFramer(4096)
    framer.receive_data(garbage)
    try:
        found = taken(framer)
    except PeerProtocolError:
        return
    assert found == [] or garbage.startswith(frame_of(*found[0]))


def test_zeros_are_no_frame():
    framer = PeerFramer(4096)
    framer.receive_data(bytes(HEADER_BYTES))
    assert fault_of(framer) is Fault.HEADER


def test_a_length_above_the_bound_is_refused_at_its_header_and_reserves_nothing():
    framer = PeerFramer(limits.PEER_HANDSHAKE_BYTES_MAX, limits.PEER_HANDSHAKE_BYTES_MAX)
    for length in (limits.PEER_HANDSHAKE_BYTES_MAX - HEADER_BYTES + 1, 2**32 - 1):
        framer = PeerFramer(limits.PEER_HANDSHAKE_BYTES_MAX, limits.PEER_HANDSHAKE_BYTES_MAX)
        framer.receive_data(struct.pack("<IBBHI", length, 1, 0, check_of(length, 1, 0), 0))
        assert fault_of(framer) is Fault.OVERSIZE
        assert framer.capacity == limits.PEER_HANDSHAKE_BYTES_MAX


def test_the_largest_frame_of_the_handshake_fits_into_its_buffer():
    size = limits.PEER_HANDSHAKE_BYTES_MAX
    framer = PeerFramer(size, size)
    payload = bytes(size - HEADER_BYTES)
    framer.receive_data(frame_of(RAFT, b"x"))
    assert framer.next_frame() == (RAFT, b"x")
    framer.receive_data(frame_of(RAFT, payload))
    assert framer.next_frame() == (RAFT, payload)
    assert framer.capacity == size


def test_flags_of_a_later_version_are_refused():
    framer = PeerFramer(4096)
    framer.receive_data(struct.pack("<IBBHI", 0, 8, 1, check_of(0, 8, 1), zlib.crc32(b"")))
    assert fault_of(framer) is Fault.KIND


def test_the_buffer_grows_for_a_large_frame_and_is_given_back():
    framer = PeerFramer(limits.PEER_HANDSHAKE_BYTES_MAX, limits.PEER_HANDSHAKE_BYTES_MAX)
    framer.admit()
    assert framer.capacity == BUFFER_BYTES
    large = bytes(BUFFER_KEPT_BYTES + 1)
    framer.receive_data(frame_of(RAFT, large))
    kind, payload = framer.next_frame() or (0, b"")
    assert (kind, len(payload)) == (RAFT, len(large))
    assert framer.capacity > BUFFER_KEPT_BYTES
    framer.get_buffer()
    assert framer.capacity == BUFFER_BYTES


def test_what_came_behind_the_handshake_is_kept_when_the_peer_is_admitted():
    framer = PeerFramer(4096, 4096)
    framer.receive_data(frame_of(PING) + frame_of(RAFT, b"early")[:15])
    assert framer.next_frame() == (PING, b"")
    framer.admit()
    framer.receive_data(frame_of(RAFT, b"early")[15:])
    assert framer.next_frame() == (RAFT, b"early")


def test_a_frame_of_buffers_is_the_frame_of_their_bytes_and_copies_none():
    body = bytes(1000)
    buffers = frame_buffers(RAFT, [b"head", memoryview(body), bytearray(b"tail")])
    assert b"".join(buffers) == frame_of(RAFT, b"head" + body + b"tail")
    assert any(isinstance(each, memoryview) and each.obj is body for each in buffers)
