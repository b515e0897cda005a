"""The batch of version 2: its size, its columns, its refusals."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter import limits
from unimeter.engine.decode import FEED_MORE, EntryBuilder
from unimeter.engine.records import EventsBody
from unimeter.errors import InvalidInputError
from unimeter.types import Event, OperationType, Outcome, to_ns
from unimeter.wire import v2
from unimeter.wire.messages import IngestReply, IngestRow, ProtocolError
from unimeter.wire.v2_ingest import HAS_IDS, HAS_TAGSETS, HAS_TIMESTAMPS

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
COLUMNS_AT = 38  # the u16 that tells which columns are there


def columns_of(payload: bytes) -> int:
    return int.from_bytes(payload[COLUMNS_AT : COLUMNS_AT + 2], "little")


def test_a_typical_tagged_event_takes_at_most_48_bytes():
    tags = {"model": "large", "kind": "completion"}
    batch = [
        Event(i, "tokens", 1000 + i, NOON, properties=tags, id=uuid.UUID(int=i).bytes.hex()[:16])
        for i in range(500)
    ]
    payload = v2.encode_ingest(batch, session_hi=1, session_lo=2, sequence=3)
    assert columns_of(payload) == HAS_TIMESTAMPS | HAS_TAGSETS | HAS_IDS
    assert (16 + len(payload)) / len(batch) <= 48, "with the frame header"


def test_columns_that_say_nothing_are_left_out():
    payload = v2.encode_ingest([Event(42, "calls")])
    assert columns_of(payload) == 0
    assert v2.decode_ingest(payload).rows == [IngestRow(42, "calls", 1)]


def test_every_field_of_an_event_arrives():
    event = Event(
        "customer-7",
        "seats",
        -5,
        NOON,
        OperationType.REMOVE,
        properties={"b": "2", "a": "1"},
        id="k",
    )
    request = v2.decode_ingest(v2.encode_ingest([event], session_hi=1, session_lo=2, sequence=3))
    assert (request.session_hi, request.session_lo, request.sequence) == (1, 2, 3)
    assert request.rows == [
        IngestRow("customer-7", "seats", -5, to_ns(NOON), 2, (("b", "2"), ("a", "1")), "k")
    ]


def test_the_default_time_travels_apart_from_the_events():
    batch = [Event(1, "calls"), Event(2, "calls", timestamp=NOON)]
    request = v2.decode_ingest(v2.encode_ingest(batch, default_timestamp_ns=99))
    assert [row.timestamp_ns for row in request.rows] == [0, to_ns(NOON)]
    assert request.default_timestamp_ns == 99


def test_a_batch_whose_events_all_have_a_time_sends_no_default():
    batch = [Event(2, "calls", timestamp=NOON)]
    assert v2.encode_ingest(batch, default_timestamp_ns=99) == v2.encode_ingest(batch)


@pytest.mark.parametrize("ident", [None, "k"])
def test_the_kernel_gives_an_event_without_time_the_default(ident):
    builder = EntryBuilder()
    builder.now_ns = to_ns(NOON)
    payload = v2.encode_ingest([Event(1, "calls", id=ident)], default_timestamp_ns=to_ns(NOON) - 7)
    assert builder.feed_payload(2, 1, payload, 0) == FEED_MORE
    event = EventsBody(builder.seal(to_ns(NOON), 1).body).event(0)
    assert (event.timestamp_ns, event.refused) == (to_ns(NOON) - 7, 0)
    assert not event.timestamp_given, "else a resend of the same id would be a conflict"


def test_the_kernel_refuses_events_by_a_default_out_of_range():
    builder = EntryBuilder()
    assert (
        builder.feed_payload(2, 1, v2.encode_ingest([Event(1, "c")], default_timestamp_ns=99), 0)
        == 0
    )
    assert EventsBody(builder.seal(1, 1).body).event(0).refused == Outcome.BAD_TIMESTAMP


def test_an_event_of_1970_does_not_become_an_event_of_now():
    batch = [Event(1, "calls", timestamp=datetime(1970, 1, 1, tzinfo=timezone.utc))]
    assert v2.decode_ingest(v2.encode_ingest(batch)).rows[0].timestamp_ns == 1


def test_a_retry_is_the_same_bytes():
    batch = [Event(i % 3, f"m{i % 2}", i, properties={"k": str(i % 4)}) for i in range(20)]
    assert v2.encode_ingest(batch, sequence=4) == v2.encode_ingest(batch, sequence=4)


def test_tables_hold_each_thing_once():
    batch = [Event("a", "calls", properties={"k": "v"}), Event("a", "calls", properties={"k": "v"})]
    payload = v2.encode_ingest(batch)
    assert payload.count(b"\x05calls") == 1
    assert payload.count(b"\x01\x01k\x01v") == 1
    assert payload.count(b"\x01a") == 1


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event(1, "calls", 1.5), "event 1: value must be an int, not float"),
        (Event(1, "calls", True), "event 1: value must be an int, not bool"),
        (Event(1, "calls", 2**63), "event 1: value 9223372036854775808 does not fit"),
        (Event(-1, "calls"), "event 1: account_id -1"),
        (Event(2**64, "calls"), "event 1: account_id"),
        (Event(1.0, "calls"), "event 1: account_id must be an int"),
        (Event(1, 5), "metric code 5 is not text"),
        (Event(1, "calls", id=""), "id is empty"),
        (Event(1, "calls", id=7), "event 1: id 7 is not text"),
        (Event(1, "calls", id="x" * 256), "more than 255 bytes"),
        (Event(1, "calls", properties={"k": 3}), "property value 3 is not text"),
        (Event(1, "calls", properties={"k": ["v"]}), "event 1: property 'k'"),
        (Event(1, "m" * 256), "metric code has 256 bytes"),
        (Event(1, "\ud800"), "not text in valid Unicode"),
        (Event(1, "calls", operation_type=256), "event 1: operation_type 256"),
        (Event(1, "calls", timestamp=datetime(2026, 1, 1)), "no time zone"),
    ],
)
def test_what_the_layout_can_not_hold_is_refused_by_name(event, words):
    with pytest.raises(InvalidInputError) as caught:
        v2.encode_ingest([Event(1, "fine"), event])
    assert words in str(caught.value)


def test_what_the_node_will_refuse_is_sent():
    """So that the rest of the batch is counted, and the refusal comes per event."""
    event = Event(1, "m" * 65, properties={"k" * 33: "v" * 65}, id="i" * 65)
    assert v2.decode_ingest(v2.encode_ingest([event])).rows[0].metric_code == "m" * 65


def test_a_batch_over_the_limit_is_refused():
    with pytest.raises(InvalidInputError, match="split it"):
        v2.encode_ingest([Event(1, "calls")] * (limits.EVENTS_PER_BATCH_MAX + 1))


@given(st.integers(0, 60), st.integers(0, 255))
def test_a_changed_head_byte_is_another_batch_or_a_protocol_error(position, byte):
    payload = bytearray(v2.encode_ingest([Event("a", "calls", properties={"k": "v"}, id="i")] * 3))
    payload[position] = byte
    try:
        v2.decode_ingest(bytes(payload))
    except ProtocolError:
        pass


def test_an_index_beyond_its_table_is_refused():
    payload = v2.encode_ingest([Event(1, "calls")])
    with pytest.raises(ProtocolError, match="metric 1 of a table of 1"):
        v2.decode_ingest(payload[:-2] + b"\x01\x00")


def test_unknown_columns_and_flags_are_refused():
    payload = bytearray(v2.encode_ingest([Event(1, "calls")]))
    payload[COLUMNS_AT] = 32
    with pytest.raises(ProtocolError, match="columns are 0x20"):
        v2.decode_ingest(payload)
    payload[COLUMNS_AT], payload[28] = 0, 2
    with pytest.raises(ProtocolError, match="flags are 0x2"):
        v2.decode_ingest(payload)


def test_runs_unfold_to_one_outcome_per_event():
    reply = IngestReply(2, 1, 900, 1, runs=[(0, 2), (1, 1), (20, 1)])
    result = reply.result(position=7)
    assert result.outcomes == [
        Outcome.STORED,
        Outcome.STORED,
        Outcome.DUPLICATE,
        Outcome.UNKNOWN_METRIC,
    ]
    assert [(each.index, each.outcome) for each in result.refusals] == [(3, Outcome.UNKNOWN_METRIC)]
    assert (result.n_stored, result.n_duplicates, result.n_refused, result.position) == (2, 1, 1, 7)


def test_the_session_of_a_batch_is_read_from_its_head():
    payload = v2.encode_ingest([Event(1, "m")], session_hi=1, session_lo=2, sequence=3)
    assert v2.session_of(payload) == (1, 2, 3)
    assert v2.session_of(memoryview(payload)) == (1, 2, 3)
    only_high = v2.encode_ingest([Event(1, "m")], session_hi=1, session_lo=0, sequence=3)
    assert v2.session_of(only_high) == (1, 0, 3)


def test_a_batch_without_a_session_or_without_a_head_has_none():
    assert v2.session_of(v2.encode_ingest([Event(1, "m")], sequence=9)) is None
    whole = v2.encode_ingest([], session_hi=1, session_lo=2, sequence=3)
    assert v2.session_of(whole) == (1, 2, 3)
    assert all(v2.session_of(whole[:size]) is None for size in range(len(whole)))
