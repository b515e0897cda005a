"""Version 2: what goes in comes out, and what is damaged is refused by name."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire import strategies
from tests.wire.examples import EXAMPLES

from unimeter.errors import InvalidInputError
from unimeter.types import AggType, MetricSchema
from unimeter.wire import v2
from unimeter.wire.failures import status_of
from unimeter.wire.messages import (
    ClusterStatusReply,
    Done,
    ErrorCode,
    ErrorReply,
    EventsList,
    Hello,
    MetricPut,
    NodeStatus,
    PacketType,
    ProtocolError,
    Status,
    TransferLeader,
    UsageQuery,
)

REQUEST_TYPES = [
    kind
    for kind in PacketType
    if kind not in (PacketType.ALERT_PUSH, PacketType.PARTITION_MAP_UPDATE)
]


@given(strategies.V2_REQUEST)
def test_every_request_comes_back_as_it_was(request_message):
    kind, payload = v2.encode_request(request_message)
    assert v2.decode_request(kind, payload) == request_message


@given(strategies.V2_RESPONSE, strategies.POSITION)
def test_every_response_comes_back_as_it_was(typed_response, position):
    kind, response = typed_response
    payload = v2.encode_response(kind, response, position)
    assert v2.decode_response(kind, Status.OK, payload) == (position, response)


@given(strategies.PUSH, strategies.POSITION)
def test_every_push_comes_back_as_it_was(push, position):
    kind, payload = v2.encode_push(push, position)
    assert v2.decode_push(kind, payload) == (position, push)


@given(strategies.ERROR, strategies.POSITION)
def test_a_refusal_carries_its_code_text_and_wait(reply, position):
    payload = v2.encode_response(PacketType.USAGE_QUERY, reply, position)
    status = status_of(reply) or Status.ERROR
    assert v2.decode_response(PacketType.USAGE_QUERY, status, payload) == (position, reply)


@settings(max_examples=30)
@given(strategies.V2_REQUEST)
def test_a_request_cut_at_any_byte_is_refused(request_message):
    kind, payload = v2.encode_request(request_message)
    for cut in range(len(payload)):
        with pytest.raises(ProtocolError):
            v2.decode_request(kind, payload[:cut])


@settings(max_examples=30)
@given(strategies.V2_RESPONSE)
def test_a_response_cut_at_any_byte_is_refused(typed_response):
    kind, response = typed_response
    payload = v2.encode_response(kind, response, 7)
    for cut in range(len(payload)):
        with pytest.raises(ProtocolError):
            v2.decode_response(kind, Status.OK, payload[:cut])


@given(strategies.V2_REQUEST, st.binary(min_size=1, max_size=9))
def test_bytes_after_a_request_are_refused(request_message, tail):
    kind, payload = v2.encode_request(request_message)
    with pytest.raises(ProtocolError):
        v2.decode_request(kind, payload + tail)


@given(st.sampled_from(REQUEST_TYPES), st.binary(max_size=300))
def test_random_bytes_are_a_message_or_a_protocol_error(kind, data):
    for decode in (
        lambda: v2.decode_request(kind, data),
        lambda: v2.decode_response(kind, Status.OK, data),
        lambda: v2.decode_response(kind, Status.ERROR, data),
        lambda: v2.decode_push(kind, data),
    ):
        try:
            decode()
        except ProtocolError:
            pass


@given(st.data())
def test_one_changed_byte_is_a_message_or_a_protocol_error(data):
    example = data.draw(st.sampled_from([each for each in EXAMPLES if each.version == 2]))
    payload = bytearray(example.encode())
    if not payload:
        return
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        example.decode(bytes(payload))
    except ProtocolError:
        pass


def test_an_unknown_packet_type_is_unsupported():
    with pytest.raises(ProtocolError) as caught:
        v2.decode_request(0x4F, b"")
    assert caught.value.code == ErrorCode.UNSUPPORTED


def test_a_number_that_names_nothing_is_refused_with_the_choices():
    kind, payload = v2.encode_request(MetricPut(MetricSchema("calls", AggType.COUNT)))
    at = 1 + 1 + len("calls")
    with pytest.raises(ProtocolError, match="aggregation is 9; expected one of COUNT 0") as caught:
        v2.decode_request(kind, payload[:at] + b"\x09" + payload[at + 1 :])
    assert caught.value.code == ErrorCode.INVALID_INPUT


def test_text_that_is_not_utf8_is_refused_by_name():
    with pytest.raises(ProtocolError, match="metric code is not UTF-8"):
        v2.decode_request(PacketType.METRIC_DELETE, b"\x02\xff\xfe")


def test_a_count_that_can_not_be_true_reserves_nothing():
    payload = struct.pack("<QI", 0, 2**32 - 1) + b"\0"
    with pytest.raises(ProtocolError, match="4294967295 events announced"):
        v2.decode_response(PacketType.EVENTS_LIST, Status.OK, payload)


def test_a_read_needs_an_account():
    kind, payload = v2.encode_request(EventsList(7, None, 0, 1))
    without = payload[:9] + b"\x02" + payload[18:]
    with pytest.raises(ProtocolError, match="no account given"):
        v2.decode_request(kind, without)


def test_a_filter_given_twice_is_refused():
    kind, payload = v2.encode_request(UsageQuery(7, "calls", 0, 1, {"a": ["x"]}))
    once = payload[payload.index(b"\x01\x01a") + 1 :]
    twice = payload.replace(b"\x01\x01a", b"\x02\x01a") + once
    with pytest.raises(ProtocolError, match="filter 'a' is given twice"):
        v2.decode_request(kind, twice)


def test_a_number_that_does_not_fit_is_the_callers_mistake():
    with pytest.raises(InvalidInputError, match="account"):
        v2.encode_request(UsageQuery(-1, "calls", 0, 1))
    with pytest.raises(InvalidInputError, match="client name"):
        v2.encode_request(Hello(client="x" * 256))


def test_a_long_error_text_is_cut_between_characters():
    payload = v2.encode_response(
        PacketType.METRIC_PUT, ErrorReply(ErrorCode.INTERNAL, "é" * 40_000), 0
    )
    _, reply = v2.decode_response(PacketType.METRIC_PUT, Status.ERROR, payload)
    assert reply.text == "é" * 32_767


def test_an_error_code_of_a_newer_node_keeps_its_text():
    payload = struct.pack("<QHHIH", 5, 999, 0, 0, 3) + b"why"
    assert v2.decode_response(PacketType.METRIC_PUT, Status.ERROR, payload) == (
        5,
        ErrorReply(ErrorCode.INTERNAL, "why"),
    )


def test_answering_with_the_wrong_response_is_our_bug():
    with pytest.raises(AssertionError):
        v2.encode_response(PacketType.USAGE_QUERY, Done(), 0)


# --- the nodes of a cluster ---------------------------------------------------------------

STATUS = ClusterStatusReply(1, 3, 0, 0, 0, 0, nodes=[NodeStatus(2, "c:1", "p:1"), NodeStatus(3)])
RECORD_BYTES = 96 + 3  # of a node without any text


def status_payload(status=STATUS):
    return v2.encode_response(PacketType.CLUSTER_STATUS, status, 5)


def test_a_node_record_may_grow():
    """The last record, four bytes longer, as a later release might write it."""
    payload = bytearray(status_payload() + b"new!")
    length_at = len(payload) - 4 - RECORD_BYTES - 2
    struct.pack_into("<H", payload, length_at, RECORD_BYTES + 4)
    assert v2.decode_response(PacketType.CLUSTER_STATUS, Status.OK, payload) == (5, STATUS)


@pytest.mark.parametrize("length", [0, RECORD_BYTES - 1, RECORD_BYTES + 1, 2**16 - 1])
def test_a_node_record_of_a_wrong_length_is_refused(length):
    payload = bytearray(status_payload())
    struct.pack_into("<H", payload, len(payload) - RECORD_BYTES - 2, length)
    with pytest.raises(ProtocolError):
        v2.decode_response(PacketType.CLUSTER_STATUS, Status.OK, payload)


def test_leadership_may_be_handed_to_any_node_or_to_one():
    assert v2.encode_request(TransferLeader()) == (PacketType.TRANSFER_LEADER, b"\0")
    assert v2.encode_request(TransferLeader(255)) == (0x41, b"\xff")
    with pytest.raises(InvalidInputError):
        v2.encode_request(TransferLeader(256))
