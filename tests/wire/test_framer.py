"""The two headers, and a byte stream cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter.wire import framer
from unimeter.wire.messages import ProtocolError

FRAMES = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),
        st.integers(0, 6),
        st.integers(1, 2**32 - 1),
        st.binary(max_size=60),
    ),
    max_size=6,
)


def test_a_request_header_reads_back():
    frame = framer.request_frame(1, 0x30, 77, b"payload")
    assert framer.parse_request_header(frame) == (1, 0x30, 0xFFFF, 7, 77)
    assert frame[framer.REQUEST_HEADER_BYTES :] == b"payload"


def test_the_second_version_leaves_the_partition_zero():
    assert framer.parse_request_header(framer.request_frame(2, 0, 1, b"")).partition == 0


def test_half_a_header_is_no_header_yet():
    frame = framer.request_frame(1, 0x30, 77, b"")
    for cut in range(16):
        assert framer.parse_request_header(frame[:cut]) is None
    assert framer.parse_request_header(b"xx" + frame, 2) is not None


def test_a_wrong_magic_is_refused_with_what_was_found():
    with pytest.raises(ProtocolError, match="starts with 0x20544547; expected 0xc0ffee01"):
        framer.parse_request_header(b"GET / HTTP/1.1\r\n")


@given(FRAMES, st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(frames, data):
    stream = b"".join(framer.response_frame(*each) for each in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = framer.ResponseFramer()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.receive_data(stream[start:end])
        while (frame := reader.next_frame()) is not None:
            found.append(tuple(frame))
    assert found == frames
    assert reader.buffered == 0


def test_a_push_is_told_from_a_response():
    reader = framer.ResponseFramer()
    reader.receive_data(framer.push_frame(2, 0x35, b"alert"))
    frame = reader.next_frame()
    assert frame.is_push
    assert (frame.version, frame.status, frame.payload) == (2, 0x35, b"alert")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"\x00\x03\0\0\x01\0\0\0\0\0\0\0", "version 3"),
        (b"\x07\x00\0\0\x01\0\0\0\0\0\0\0", "status 7"),
        (b"\x00\x00\0\0\x01\0\0\0\xff\xff\xff\xff", "4294967295 bytes"),
    ],
)
def test_a_header_no_server_writes_ends_the_stream(header, words):
    reader = framer.ResponseFramer()
    reader.receive_data(header)
    for _ in range(2):
        with pytest.raises(ProtocolError, match=words):
            reader.next_frame()


@given(st.binary(max_size=200))
def test_random_bytes_are_frames_or_a_protocol_error(data):
    reader = framer.ResponseFramer()
    reader.receive_data(data)
    try:
        while reader.next_frame() is not None:
            pass
    except ProtocolError:
        pass


def test_memory_stays_that_of_the_unread_bytes():
    reader = framer.ResponseFramer()
    frame = framer.response_frame(2, 0, 1, bytes(1000))
    for _ in range(1000):
        reader.receive_data(frame + frame[:5])
        assert reader.next_frame() is not None
        reader.receive_data(frame[5:])
        assert reader.next_frame() is not None
        assert reader.next_frame() is None
        assert reader.buffered == 0
    assert len(reader._buffer) == 0


def test_a_forwarded_frame_differs_in_its_request_id_only():
    frame = framer.request_frame(2, 1, 7, b"payload")
    assert framer.request_with_id(frame, 2**32 - 1) == framer.request_frame(
        2, 1, 2**32 - 1, b"payload"
    )
    reply = bytearray(framer.response_frame(1, 6, 7, b"text"))
    assert framer.response_with_id(reply, 9) == framer.response_frame(1, 6, 9, b"text")


@pytest.mark.parametrize("request_id", [0, 2**32])
def test_a_request_id_that_means_a_push_or_does_not_fit_is_our_mistake(request_id):
    with pytest.raises(AssertionError):
        framer.response_with_id(framer.response_frame(2, 0, 1), request_id)
