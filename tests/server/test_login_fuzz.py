"""Anything at all on the binary port of a node with a key: answered or hung up on, never let in."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.web.running import Running, running

from unimeter.wire import v1, v2
from unimeter.wire.framer import VERSION_1, VERSION_2, ResponseFramer, request_frame
from unimeter.wire.messages import ErrorCode, ErrorReply, Hello, PacketType, ProtocolError, Status

QUIET_SECONDS = 0.05
FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    """A node with a key; `http` has it."""
    with running() as found:
        made = found.http.post("/v1/keys", json={"name": "root", "scopes": ["admin"]})
        found.http.headers["Authorization"] = f"Bearer {made.json()['key']}"
        yield found


def exchange(found: Running, data: bytes) -> bytes:
    """Send bytes; what comes back until there is nothing more for a moment."""
    host, _, port = found.server.address.rpartition(":")
    pieces = []
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        try:
            sock.sendall(data)
            sock.settimeout(QUIET_SECONDS)
            while piece := sock.recv(65536):
                pieces.append(piece)
        except (ConnectionError, TimeoutError):
            pass
    return b"".join(pieces)


def check(found: Running, data: bytes) -> None:
    """Nothing of it is done, nothing of it is let in, and the node goes on."""
    before = found.server.node.machine.applied
    framer = ResponseFramer()
    framer.receive_data(exchange(found, data))
    while (frame := framer.next_frame()) is not None:
        assert frame.status == Status.ERROR, "nobody is let in by chance"
        if frame.version == VERSION_2:
            _, response = v2.decode_response(PacketType.METRIC_LIST, frame.status, frame.payload)
            assert isinstance(response, ErrorReply)
            assert response.code != ErrorCode.INTERNAL, response.text
    assert found.server.node.machine.applied == before
    assert found.http.get("/v1/session", timeout=5).status_code == 200
    assert found.server.failure is None


TOKENS = st.binary(max_size=80) | st.text(max_size=40).map(
    lambda text: b"um_" + text.encode("utf-8", "replace")
)


@FUZZ
@given(token=TOKENS, tail=st.binary(max_size=40), flips=st.lists(st.integers(0, 200), max_size=3))
def test_no_hello_makes_the_node_fail_or_lets_anybody_in(
    locked: Running, token: bytes, tail: bytes, flips: list[int]
) -> None:
    _, payload = v2.encode_request(Hello(token=token, client="fuzz"))
    mutable = bytearray(payload + tail)
    for place in flips:
        mutable[place % len(mutable)] ^= 0x55
    check(locked, request_frame(VERSION_2, PacketType.HELLO, 1, bytes(mutable)))


FRAMES = st.builds(
    request_frame,
    st.sampled_from([VERSION_1, VERSION_2]),
    st.integers(0, 255),
    st.integers(1, 2**32 - 1),
    st.binary(max_size=120),
)


@FUZZ
@given(data=st.lists(FRAMES | st.binary(max_size=20), max_size=5).map(b"".join))
def test_no_frames_make_a_locked_node_fail_or_do_anything(locked: Running, data: bytes) -> None:
    try:
        check(locked, data)
    except ProtocolError:
        pytest.fail("what the node wrote is no frame")


def test_version_1_is_answered_in_version_1(locked: Running) -> None:
    frame = request_frame(VERSION_1, PacketType.METRIC_LIST, 9, b"")
    answer = exchange(locked, frame)
    assert answer[0] == Status.ERROR and answer[1] == 0
    assert v1.decode_response(PacketType.METRIC_LIST, answer[0], answer[12:]) is not None
