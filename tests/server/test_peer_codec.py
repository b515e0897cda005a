"""Raft messages as bytes: what is read is what was written, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter.raft.messages import (
    LOCAL_TYPES,
    MSG_APP,
    Entry,
    Message,
    MessageType,
    Snapshot,
    SnapshotMeta,
)
from unimeter.server.peer_codec import (
    HEAD_BYTES,
    decode_fetch,
    decode_fetched,
    decode_message,
    encode_fetch,
    encode_fetched,
    encode_message,
)
from unimeter.wire.peer import Fault, PeerProtocolError

u64 = st.integers(0, 2**64 - 1)
u16 = st.integers(0, 2**16 - 1)
entries = st.builds(Entry, u64, u64, u16, st.integers(-(2**63), 2**63 - 1), st.binary(max_size=99))
snapshots = st.builds(
    Snapshot,
    st.builds(SnapshotMeta, u64, u64, st.lists(u64, max_size=9).map(tuple)),
)
messages = st.builds(
    Message,
    type=st.sampled_from([kind for kind in MessageType if kind not in LOCAL_TYPES]),
    to=u64,
    sender=u64,
    term=u64,
    log_term=u64,
    index=u64,
    entries=st.lists(entries, max_size=5).map(lambda found: found or ()),
    commit=u64,
    vote=u64,
    snapshot=st.none() | snapshots,
    reject=st.booleans(),
    reject_hint=u64,
    context=st.binary(max_size=40),
)


def payload_of(message):
    return memoryview(b"".join(encode_message(message)))


@given(messages)
def test_a_message_is_read_as_it_was_written(message):
    assert decode_message(payload_of(message)) == message


@given(messages, st.data())
def test_a_cut_message_is_refused(message, data):
    payload = payload_of(message)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(PeerProtocolError) as caught:
        decode_message(payload[:cut])
    assert caught.value.fault is Fault.MALFORMED


@given(messages, st.data())
def test_a_message_with_any_byte_changed_is_another_message_or_refused(message, data):
    payload = bytearray(payload_of(message))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_message(memoryview(payload))
    except PeerProtocolError:
        return
    assert found != message
    assert payload_of(found) == bytes(payload)


@given(st.binary(max_size=300))
def test_garbage_is_a_message_or_refused(garbage):
    try:
        found = decode_message(memoryview(garbage))
    except PeerProtocolError:
        return
    assert payload_of(found) == garbage


@pytest.mark.parametrize("kind", LOCAL_TYPES)
def test_a_type_that_a_node_sends_only_to_itself_is_refused(kind):
    with pytest.raises(PeerProtocolError, match="which no peer sends"):
        decode_message(payload_of(Message(kind, 1, 2)))


def test_a_number_behind_the_last_type_is_refused():
    payload = bytearray(payload_of(Message(MSG_APP)))
    payload[0] = len(MessageType)
    with pytest.raises(PeerProtocolError, match="type 23"):
        decode_message(memoryview(payload))


def test_four_thousand_million_announced_entries_reserve_nothing():
    payload = bytearray(payload_of(Message(MSG_APP)))
    payload[4:8] = b"\xff" * 4
    with pytest.raises(PeerProtocolError, match="4294967295 entries"):
        decode_message(memoryview(payload))


def test_bodies_are_not_copied_on_the_way_out():
    body = bytes(1000)
    view = memoryview(body)
    head, first, second = encode_message(
        Message(MSG_APP, entries=[Entry(1, 1, 3, 0, body), Entry(2, 1, 3, 0, view)])
    )
    assert first is body and second is view
    assert len(head) == HEAD_BYTES + 64


def test_bodies_own_their_memory_on_the_way_in():
    payload = bytearray(payload_of(Message(MSG_APP, entries=[Entry(1, 1, 3, 0, b"body")])))
    message = decode_message(memoryview(payload))
    payload[:] = bytes(len(payload))  # the read buffer is used again
    assert message.entries[0].body == b"body"
    assert type(message.entries[0].body) is bytes


@given(entries)
def test_a_fetched_entry_is_read_as_it_was_written(entry):
    assert decode_fetched(memoryview(b"".join(encode_fetched(entry)))) == entry
    assert decode_fetch(encode_fetch(entry.index)) == entry.index


@given(entries, st.data())
def test_a_cut_or_longer_fetched_entry_is_refused(entry, data):
    payload = b"".join(encode_fetched(entry))
    cut = data.draw(st.integers(1, len(payload) - 1))
    for wrong in (payload[:cut], payload + b"x"):
        with pytest.raises(PeerProtocolError):
            decode_fetched(memoryview(wrong))
    with pytest.raises(PeerProtocolError):
        decode_fetch(payload[:7])


def test_no_entry_is_an_answer():
    assert decode_fetched(memoryview(b"".join(encode_fetched(None)))) is None
