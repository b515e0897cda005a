"""Names of chunks in a story: those of real frames."""

from __future__ import annotations

import pytest

from unimeter.raft.messages import Entry, Message, MessageType
from unimeter.server.peer_codec import encode_message
from unimeter.sim.frame_names import frame_name
from unimeter.wire.framer import VERSION_2, request_frame
from unimeter.wire.peer import FrameKind, frame_of


def test_a_raft_message_has_its_own_name_and_its_entries() -> None:
    entry = Entry(1, 1, 1, 0, b"body")
    for message, name in (
        (Message(MessageType.MSG_HEARTBEAT, to=2, sender=1), "MsgHeartbeat"),
        (Message(MessageType.MSG_APP, to=2, sender=1, entries=[entry, entry]), "MsgApp 2"),
    ):
        payload = b"".join(bytes(part) for part in encode_message(message))
        assert frame_name(frame_of(FrameKind.RAFT, payload), True) == name


@pytest.mark.parametrize("kind", [kind for kind in FrameKind if kind != FrameKind.RAFT])
def test_another_frame_between_nodes_has_the_name_of_its_kind(kind: FrameKind) -> None:
    assert frame_name(frame_of(kind, b"x"), True) == kind.name.lower().replace("_", " ")


@pytest.mark.parametrize("is_peer", [False, True])
def test_bytes_of_any_length_have_some_name(is_peer: bool) -> None:
    for length in range(40):
        assert frame_name(bytes([255]) * length, is_peer)


def test_a_request_has_its_packet_type() -> None:
    assert frame_name(request_frame(VERSION_2, 3, 1, b""), False) == "request 3"
