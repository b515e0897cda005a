"""Frames against the kernel that takes them in: `EntryBuilder.feed`.

However a stream is cut, the same entries come out; nothing a peer sends makes the
kernel raise, run past the data or leave half a frame behind; and the compiled
kernel and the interpreted one notice the same things and write the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire import strategies
from tests.wire.feeding import NOW_NS, SLOT, Twin, transcript

import unimeter
from unimeter import limits
from unimeter.engine import COMPILED, decode
from unimeter.engine.records import EventsBody
from unimeter.types import Event, Outcome
from unimeter.wire import v1, v2
from unimeter.wire.framer import request_frame
from unimeter.wire.messages import Ingest, IngestRow, MetricList

ROOT = Path(__file__).resolve().parents[2]
REQUEST_ID = st.integers(1, 2**32 - 1)
V1_BATCH = st.builds(
    lambda rows, number: request_frame(1, 0, number, v1.encode_ingest(rows)),
    st.lists(strategies.V1_ROW, max_size=6),
    REQUEST_ID,
)
V2_BATCH = st.builds(
    lambda batch, number: request_frame(2, 1, number, v2.encode_request(batch)[1]),
    strategies.INGEST,
    REQUEST_ID,
)
BATCH = st.one_of(V1_BATCH, V2_BATCH)
OTHER = st.builds(
    lambda message, number: request_frame(2, *_typed(message, number)),
    strategies.V2_REQUEST.filter(lambda message: not isinstance(message, Ingest)),
    REQUEST_ID,
)


def _typed(message: object, number: int) -> tuple[int, int, bytes]:
    kind, payload = v2.encode_request(message)
    return kind, number, payload


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A batch in which one to three bytes after the magic were changed, length included."""
    frame = bytearray(draw(BATCH))
    for _ in range(draw(st.integers(1, 3))):
        frame[draw(st.integers(4, min(len(frame) - 1, 300)))] = draw(st.integers(0, 255))
    return bytes(frame)


LARGE = st.builds(
    lambda number: request_frame(
        1, 1, number, (limits.EVENTS_PER_BATCH_MAX + 1).to_bytes(8, "little")
    ),
    REQUEST_ID,
)
STREAM = st.lists(st.one_of(BATCH, OTHER, LARGE, damaged()), max_size=6).map(b"".join)


@given(STREAM, st.data())
def test_any_cut_of_a_stream_gives_the_same_entries(stream, data):
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10))
    assert transcript(stream, cuts) == transcript(stream)


@settings(max_examples=15)
@given(BATCH)
def test_a_stream_byte_by_byte_gives_the_same_entries(frame):
    assert transcript(frame, list(range(len(frame)))) == transcript(frame)


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_never_raise(data, has_magic):
    transcript(b"\x01\xee\xff\xc0" + data if has_magic else data)


@given(st.binary(max_size=120), st.integers(0, 1), st.sampled_from([1, 2]))
def test_a_random_payload_is_taken_whole_or_not_at_all(payload, kind, version):
    """The frame after it is seen as it is, and the entry adds up."""
    good = request_frame(1, 0, 9, v1.encode_ingest([IngestRow(42, "calls", 1, NOW_NS)]))
    log = transcript(request_frame(version, kind, 8, payload) + good)
    entry = EventsBody(log[-1][2])
    assert log[-1][0] == "entry"
    assert entry.event(entry.event_count - 1).metric_code == "calls"
    refusals = {("malformed", version, 8), ("too large", 8, len(payload))}
    assert entry.request_count == (1 if refusals & set(log) else 2)


@given(st.lists(BATCH, min_size=1, max_size=3), st.integers(1, 9))
def test_a_frame_that_contradicts_itself_leaves_no_event_behind(frames, shortage):
    payload = v1.encode_ingest([IngestRow(7, "never", 1)] * 2)
    bad = request_frame(1, 1, 8, payload[:-shortage])
    log = transcript(frames[0] + bad + b"".join(frames[1:]))
    assert ("malformed", 1, 8) in log
    clean = transcript(b"".join(frames))
    assert [each[1] for each in log if each[0] == "entry"] == [
        each[1] for each in clean if each[0] == "entry"
    ]
    assert b"never" not in log[-1][2]


@given(st.one_of(st.tuples(st.just(1), V1_BATCH), st.tuples(st.just(2), V2_BATCH)), st.data())
def test_a_payload_of_another_length_is_refused(versioned, data):
    version, frame = versioned
    payload = frame[16:]
    cut = data.draw(st.integers(0, len(payload) - 1))
    tail = data.draw(st.binary(min_size=1, max_size=9))
    for wrong in (payload[:cut], payload + tail):
        log = transcript(request_frame(version, 1, 8, wrong))
        assert log in ([("malformed", version, 8)], [("too large", 8, len(wrong))])


@given(st.lists(strategies.INGEST_ROW, min_size=1, max_size=8))
def test_every_event_is_read_back_from_the_entry_as_it_was_sent(rows):
    log = transcript(request_frame(2, 1, 5, v2.encode_request(Ingest(rows))[1]))
    body = EventsBody(log[-1][2])
    assert body.event_count == len(rows)
    for number, row in enumerate(rows):
        found = body.event(number)
        assert found.refused == expected_outcome(row)
        if found.refused:
            continue
        assert (found.account, found.metric_code) == (row.account, row.metric_code)
        assert (found.value, found.operation) == (row.value, row.operation)
        assert (found.id, found.properties) == (row.id, dict(row.properties))
        assert found.timestamp_ns == (row.timestamp_ns or NOW_NS)


def expected_outcome(row: IngestRow) -> int:
    """The rules of Outcome 10 to 17, said once more and slowly."""
    if not is_good(row.metric_code, limits.METRIC_CODE_BYTES_MAX):
        return Outcome.BAD_METRIC_CODE
    if isinstance(row.account, str) and not is_good(row.account, limits.ACCOUNT_BYTES_MAX):
        return Outcome.BAD_ACCOUNT
    if row.timestamp_ns and not (
        limits.TIMESTAMP_NS_MIN <= row.timestamp_ns < limits.TIMESTAMP_NS_MAX
    ):
        return Outcome.BAD_TIMESTAMP
    if row.operation > 2:
        return Outcome.BAD_OPERATION
    if len(row.properties) > limits.PROPERTIES_PER_EVENT_MAX:
        return Outcome.TOO_MANY_PROPERTIES
    keys = [key for key, _ in row.properties]
    if len(set(keys)) < len(keys) or not all(
        is_good(key, limits.PROPERTY_KEY_BYTES_MAX)
        and (not value or is_good(value, limits.PROPERTY_VALUE_BYTES_MAX))
        for key, value in row.properties
    ):
        return Outcome.BAD_PROPERTY
    if row.id is not None and not is_good(row.id, limits.EVENT_ID_BYTES_MAX):
        return Outcome.BAD_ID
    return 0


def is_good(text: str, bytes_max: int) -> bool:
    return 0 < len(text.encode()) <= bytes_max and "\0" not in text


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff",
        b"\xc0\xaf",  # not the shortest form
        b"\xed\xa0\x80",  # a surrogate
        b"\xf4\x90\x80\x80",  # beyond U+10FFFF
        b"\xe2\x82",  # cut
        b"a\x80",
    ],
)
def test_text_that_is_not_utf8_costs_only_its_event(bad):
    payload = bytearray(v1.encode_ingest([IngestRow(1, "calls", 1), IngestRow(2, "calls", 1)]))
    payload[8 : 8 + 64] = bad.ljust(64, b"\0")
    body = EventsBody(transcript(request_frame(1, 0, 5, payload))[-1][2])
    assert [body.event(i).refused for i in (0, 1)] == [Outcome.BAD_METRIC_CODE, 0]


def test_a_v1_value_beyond_63_bits_is_refused():
    rows = [IngestRow(1, "calls", 2**63), IngestRow(1, "calls", 2**63 - 1)]
    body = EventsBody(transcript(request_frame(1, 0, 5, v1.encode_ingest(rows)))[-1][2])
    assert [body.event(i).refused for i in (0, 1)] == [Outcome.BAD_VALUE, 0]


def test_a_length_of_4_gib_is_told_at_its_header():
    header = bytearray(request_frame(1, 1, 6, b""))
    header[8:12] = b"\xff" * 4
    assert transcript(bytes(header)) == [("too large", 6, 2**32 - 1)]


def test_a_batch_over_the_limit_is_drained_and_the_next_one_is_taken():
    rows = [IngestRow(1, "calls", 1)] * (limits.EVENTS_PER_BATCH_MAX + 1)
    large = request_frame(1, 1, 6, v1.encode_ingest(rows))
    good = request_frame(1, 1, 7, v1.encode_ingest(rows[:3]))
    log = transcript(large + good, [17, 5000, len(large) + 1])
    assert [each[:2] for each in log] == [("too large", 6), ("entry", 3)]


def test_the_largest_batch_is_taken():
    rows = [IngestRow(i, "calls", 1) for i in range(limits.EVENTS_PER_BATCH_MAX)]
    assert transcript(request_frame(1, 1, 7, v1.encode_ingest(rows)))[-1][1] == len(rows)
    batch = [Event(f"account-{i}", "calls", id=f"id-{i}") for i in range(len(rows))]
    assert transcript(request_frame(2, 1, 7, v2.encode_ingest(batch)))[-1][1] == len(rows)


def test_a_full_entry_is_sealed_at_a_frame_and_nothing_is_lost():
    frame = request_frame(1, 1, 7, v1.encode_ingest([IngestRow(1, "calls", 1)] * 3000))
    log = transcript(frame * 8)
    assert sum(each[1] for each in log) == 24_000
    assert len(log) > 1
    assert all(each[1] <= limits.ENTRY_EVENTS_MAX + limits.EVENTS_PER_BATCH_MAX for each in log)


def test_another_magic_closes():
    good = request_frame(1, 0, 9, v1.encode_ingest([IngestRow(42, "calls", 1)]))
    log = transcript(good + b"GET / HTTP/1.1\r\n\r\n")
    assert [each[0] for each in log] == ["not our protocol", "entry"]


def test_other_requests_are_handed_on_whole():
    kind, payload = v2.encode_request(MetricList())
    frame = request_frame(2, kind, 3, payload)
    assert transcript(frame, [16, 20]) == [("other", kind, frame)]


@given(BATCH)
def test_a_payload_without_a_frame_gives_the_same_entry(frame):
    expected = transcript(frame)
    builder = decode.EntryBuilder()
    builder.now_ns = NOW_NS
    version, number = frame[4], int.from_bytes(frame[12:16], "little")
    assert builder.feed_payload(version, number, frame[16:], SLOT) == decode.FEED_MORE
    sealed = builder.seal(NOW_NS + 1, 1000)
    assert [("entry", sealed.events, bytes(sealed.body), bytes(sealed.routes))] == expected


# --- compiled against interpreted ---------------------------------------------------------


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Twin]:
    """The interpreted kernels in another process."""
    if not COMPILED:
        pytest.skip("the kernels are not compiled: there is nothing to compare")
    package = Path(unimeter.__file__).parents[1]
    twin = Twin({**os.environ, "UNIMETER_PURE": "1", "PYTHONPATH": f"{package}:{ROOT}"})
    assert not twin.is_compiled()
    yield twin
    twin.close()


@given(stream=STREAM)
def test_compiled_and_interpreted_write_the_same_bytes(interpreted, stream):
    assert interpreted.transcript(stream + b"\0") == repr(transcript(stream + b"\0"))


@given(data=st.binary(max_size=200))
def test_compiled_and_interpreted_meet_garbage_alike(interpreted, data):
    stream = b"\x01\xee\xff\xc0" + data
    assert interpreted.transcript(stream) == repr(transcript(stream))
