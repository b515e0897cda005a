"""Version 1, frozen: layouts, the freedoms of the published client, the refusals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire import strategies
from tests.wire.examples import EXAMPLES

from unimeter.errors import InvalidInputError
from unimeter.types import (
    AggType,
    AggValue,
    AlertThreshold,
    DimensionFilter,
    MetricSchema,
    PeriodType,
)
from unimeter.wire import v1
from unimeter.wire.failures import status_of
from unimeter.wire.messages import (
    AlertPush,
    AlertRow,
    AlertsListReply,
    BreakdownReply,
    BreakdownRow,
    Done,
    ErrorCode,
    ErrorReply,
    IngestReply,
    IngestRow,
    MetricList,
    MetricListReply,
    MetricPut,
    PacketType,
    PartitionMapReply,
    PartitionRoute,
    ProtocolError,
    Series,
    Status,
    UsageQuery,
    UsageReply,
)

ONE_NODE = PartitionRoute("127.0.0.1:7001", [])


@given(strategies.V1_REQUEST)
def test_every_request_comes_back_as_it_was(request_message):
    kind, payload = v1.encode_request(request_message)
    assert v1.decode_request(kind, payload) == request_message


@given(strategies.V1_RESPONSE)
def test_every_response_comes_back_as_it_was(typed_response):
    kind, response = typed_response
    payload = v1.encode_response(kind, response, 5)
    assert v1.decode_response(kind, Status.OK, payload) == (0, response)


@given(strategies.V1_PUSH)
def test_every_push_comes_back_as_it_was(push):
    kind, payload = v1.encode_push(push, 5)
    assert v1.can_push(push)
    assert v1.decode_push(kind, payload) == (0, push)


@settings(max_examples=30)
@given(strategies.V1_REQUEST)
def test_a_request_cut_at_any_byte_is_refused_or_is_a_shorter_metric(request_message):
    kind, payload = v1.encode_request(request_message)
    for cut in range(len(payload)):
        try:
            shorter = v1.decode_request(kind, payload[:cut])
        except ProtocolError:
            continue
        assert kind == PacketType.METRIC_PUT, f"{cut} of {len(payload)} bytes were accepted"
        assert shorter != request_message or not request_message.schema.thresholds


@given(strategies.V1_REQUEST, st.binary(min_size=1, max_size=7))
def test_bytes_after_a_request_are_refused(request_message, tail):
    kind, payload = v1.encode_request(request_message)
    with pytest.raises(ProtocolError):
        v1.decode_request(kind, payload + tail)


@settings(max_examples=30)
@given(strategies.V1_RESPONSE)
def test_a_response_cut_at_any_byte_is_refused_or_is_fewer_rows(typed_response):
    kind, response = typed_response
    payload = v1.encode_response(kind, response)
    steps = range(len(payload)) if len(payload) < 2000 else range(0, len(payload), 97)
    for cut in steps:
        try:
            _, fewer = v1.decode_response(kind, Status.OK, payload[:cut])
        except ProtocolError:
            continue
        assert fewer != response


@given(st.sampled_from(PacketType), st.sampled_from(Status), st.binary(max_size=400))
def test_random_bytes_are_a_message_or_a_protocol_error(kind, status, data):
    for decode in (
        lambda: v1.decode_request(kind, data),
        lambda: v1.decode_response(kind, status, data),
        lambda: v1.decode_push(kind, data),
    ):
        try:
            decode()
        except ProtocolError:
            pass


@given(st.data())
def test_one_changed_byte_is_a_message_or_a_protocol_error(data):
    example = data.draw(
        st.sampled_from([each for each in EXAMPLES if each.version == 1 and each.encode()])
    )
    payload = bytearray(example.encode())
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        example.decode(bytes(payload))
    except ProtocolError:
        pass


def metric_put() -> tuple[bytes, MetricPut]:
    schema = MetricSchema(
        "tokens",
        AggType.SUM,
        period_type=PeriodType.CALENDAR,
        billing_cycle_day=15,
        filters=[DimensionFilter("model", ["a", "b"])],
        thresholds=[AlertThreshold("soft", 100, recurring=True)],
    )
    return v1.encode_request(MetricPut(schema))[1], MetricPut(schema)


def test_metric_put_may_end_before_its_last_sections():
    payload, full = metric_put()
    assert len(payload) == 132 + 292 + 8 + 48 + 8
    without_period = v1.decode_request(PacketType.METRIC_PUT, payload[:-8])
    assert without_period.schema.thresholds == full.schema.thresholds
    assert without_period.schema.period_type == PeriodType.FIXED
    assert without_period.schema.billing_cycle_day == 1
    bare = v1.decode_request(PacketType.METRIC_PUT, payload[: 132 + 292])
    assert bare.schema.thresholds == []
    assert bare.schema.filters == full.schema.filters


def test_a_cycle_day_of_zero_is_what_a_client_writes_that_knows_none():
    payload, _ = metric_put()
    zero = payload[:-7] + b"\0" + payload[-6:]
    assert v1.decode_request(PacketType.METRIC_PUT, zero).schema.billing_cycle_day == 1


def test_dimension_values_that_the_client_dropped_are_noticed():
    payload, _ = metric_put()
    nine = payload[: 132 + 32] + b"\x09" + payload[132 + 33 :]
    with pytest.raises(ProtocolError, match="9 values in a filter that carries 8"):
        v1.decode_request(PacketType.METRIC_PUT, nine)


@pytest.mark.parametrize(("at", "words"), [(64, "aggregation 9"), (-8, "period type 9")])
def test_numbers_that_name_nothing_are_refused(at, words):
    payload = bytearray(metric_put()[0])
    payload[at] = 9
    with pytest.raises(ProtocolError, match=words) as caught:
        v1.decode_request(PacketType.METRIC_PUT, payload)
    assert caught.value.code == ErrorCode.INVALID_INPUT


def test_a_threshold_beyond_63_bits_is_refused():
    payload = bytearray(metric_put()[0])
    payload[132 + 292 + 8 + 32 + 7] = 0x80
    with pytest.raises(ProtocolError, match="does not fit 63 bits"):
        v1.decode_request(PacketType.METRIC_PUT, payload)


def test_counts_that_disagree_with_the_length_are_refused():
    _, payload = v1.encode_request(
        v1.decode_ingest(v1.encode_ingest([IngestRow(1, "m", 1, properties=(("k", "v"),))]))
    )
    for head in (b"\x02\0\0\0\x01\0\0\0", b"\x01\0\0\0\x02\0\0\0", b"\xff\xff\xff\xff\0\0\0\0"):
        with pytest.raises(ProtocolError, match="the payload has 200"):
            v1.decode_ingest(head + payload[8:])
    own = 8 + 64 + 8 + 8 + 8 + 1
    for count, words in ((0, "hold fewer"), (2, "hold more")):
        wrong = payload[:own] + bytes([count]) + payload[own + 1 :]
        with pytest.raises(ProtocolError, match=words):
            v1.decode_ingest(wrong)


def test_text_that_is_not_utf8_is_refused_by_name():
    with pytest.raises(ProtocolError, match="metric code is not UTF-8"):
        v1.decode_request(PacketType.METRIC_DELETE, b"\xff" + bytes(63))


def test_text_may_fill_its_field():
    code = "m" * 64
    assert v1.decode_ingest(v1.encode_ingest([IngestRow(1, code, 1)])).rows[0].metric_code == code
    with pytest.raises(InvalidInputError, match="has 65 bytes; version 1"):
        v1.encode_ingest([IngestRow(1, code + "m", 1)])


def test_an_address_that_does_not_fit_the_map_is_a_clear_error():
    routes = [PartitionRoute("metering-node-1.internal:7001")] + [ONE_NODE] * 255
    with pytest.raises(InvalidInputError, match="longer than the 23 bytes"):
        v1.encode_response(PacketType.GET_PARTITION_MAP, PartitionMapReply(routes))
    fits = PartitionRoute("n" * 18 + ":7001")
    payload = v1.encode_response(PacketType.GET_PARTITION_MAP, PartitionMapReply([fits] * 256))
    assert len(payload) == 24_576
    assert payload[23] == 0


def test_a_map_of_another_number_of_partitions_is_our_mistake():
    with pytest.raises(InvalidInputError, match="1 routes; expected 256"):
        v1.encode_response(PacketType.GET_PARTITION_MAP, PartitionMapReply([ONE_NODE]))


def test_negative_totals_travel_as_twos_complement():
    total = AggValue(sum=-5, count=2, max=-1, last_value=-4)
    payload = v1.encode_response(PacketType.USAGE_QUERY, UsageReply(total))
    assert payload[:16] == (-5).to_bytes(16, "little", signed=True)
    assert v1.decode_response(PacketType.USAGE_QUERY, Status.OK, payload)[1].value == total


def test_a_crossing_beyond_64_bits_shows_the_nearest_number():
    alert = AlertRow(1, 2, "m", "t", 2**70, 3)
    payload = v1.encode_response(PacketType.ALERTS_LIST, AlertsListReply([alert]))
    assert payload[112:120] == b"\xff" * 8


def test_what_v1_has_no_room_for_is_left_out_of_lists():
    metrics = [MetricSchema("a", AggType.AVG), MetricSchema("b", AggType.SUM)]
    payload = v1.encode_response(PacketType.METRIC_LIST, MetricListReply(metrics))
    assert len(payload) == 132
    alerts = [AlertRow(1, "customer", "m", "t", 1, 1), AlertRow(2, 9, "m", "t", 1, 1)]
    payload = v1.encode_response(PacketType.ALERTS_LIST, AlertsListReply(alerts))
    assert len(payload) == 136
    assert not v1.can_push(AlertPush(alerts[0]))
    assert v1.can_push(AlertPush(alerts[1]))


def test_two_long_dimension_values_never_become_one():
    row = BreakdownRow([("endpoint", "/v1/" + "x" * 40)], AggValue())
    with pytest.raises(InvalidInputError, match="dimension value"):
        v1.encode_response(PacketType.USAGE_QUERY_BREAKDOWN, BreakdownReply([row]))


@pytest.mark.parametrize(
    "request_message",
    [
        UsageQuery("customer", "m", 0, 1),
        UsageQuery(1, "m", 0, 1, {"k": ["a", "b"]}),
        MetricPut(MetricSchema("m", AggType.MIN)),
        MetricPut(MetricSchema("m", AggType.SUM, zone="Europe/Berlin")),
        MetricPut(MetricSchema("m", AggType.SUM, thresholds=[AlertThreshold("low", -1)])),
        Series(1, "m", 0, 1),
    ],
)
def test_what_v1_can_not_say_is_refused(request_message):
    with pytest.raises(InvalidInputError):
        v1.encode_request(request_message)


def test_an_event_id_needs_version_2():
    with pytest.raises(InvalidInputError, match="no event id"):
        v1.encode_ingest([IngestRow(1, "m", 1, id="key")])


def test_a_refusal_is_its_status_and_nothing_more():
    reply = ErrorReply(ErrorCode.NOT_FOUND, "no metric 'x'")
    assert v1.encode_response(PacketType.USAGE_QUERY, reply) == b""
    assert status_of(reply) == Status.ERROR


def test_a_redirect_carries_24_bytes():
    reply = ErrorReply(ErrorCode.REDIRECT, "10.0.0.2:7001")
    payload = v1.encode_response(PacketType.METRIC_PUT, reply)
    assert payload == b"10.0.0.2:7001".ljust(24, b"\0")
    assert status_of(reply) == Status.REDIRECT
    assert v1.decode_response(PacketType.METRIC_PUT, Status.REDIRECT, payload) == (0, reply)


@pytest.mark.parametrize(
    ("reply", "has_unknown_metric", "status"),
    [
        (IngestReply(3, 0, 9), False, Status.OK),
        (IngestReply(3, 2, 9), False, Status.OK),
        (IngestReply(0, 2, 9), False, Status.DUPLICATE),
        (IngestReply(3, 0, 9, refused=1), True, Status.UNKNOWN_METRIC),
        (IngestReply(0, 0, 9, refused=1), True, Status.UNKNOWN_METRIC),
        (IngestReply(0, 0, 9, refused=1), False, Status.ERROR),
        (IngestReply(3, 0, 9, refused=1), False, Status.OK),
        (IngestReply(0, 1, 9, refused=1), False, Status.OK),
        (IngestReply(0, 0, 9), False, Status.OK),
    ],
)
def test_the_status_sums_up_a_batch(reply, has_unknown_metric, status):
    assert v1.ingest_status(reply, has_unknown_metric) == status


def test_lists_of_a_wrong_length_are_refused():
    with pytest.raises(ProtocolError, match="whole number of 136-byte rows"):
        v1.decode_response(PacketType.ALERTS_LIST, Status.OK, bytes(137))
    with pytest.raises(ProtocolError, match="expected 0"):
        v1.decode_response(PacketType.METRIC_PUT, Status.OK, b"x")
    assert v1.decode_response(PacketType.METRIC_PUT, Status.OK, b"") == (0, Done())


def test_the_same_request_has_the_same_meaning_in_both_versions():
    kind, payload = v1.encode_request(MetricList())
    assert (kind, payload) == (PacketType.METRIC_LIST, b"")
    assert v1.decode_request(kind, payload) == MetricList()


@given(st.lists(st.tuples(st.integers(-1, 2), st.booleans()), max_size=6))
def test_whether_every_event_of_a_batch_has_a_time(times_and_tags):
    rows = [
        IngestRow(1, "m", 0, timestamp_ns, 0, (("k", "v"),) if has_tag else ())
        for timestamp_ns, has_tag in times_and_tags
    ]
    payload = v1.encode_ingest(rows)
    expected = all(row.timestamp_ns for row in rows)
    assert v1.has_all_timestamps(payload) == expected
    assert v1.has_all_timestamps(memoryview(bytearray(payload))) == expected


def test_a_batch_cut_short_is_not_called_timed():
    payload = v1.encode_ingest([IngestRow(1, "m", 1, 5), IngestRow(1, "m", 1, 5)])
    assert v1.has_all_timestamps(payload)
    assert not any(v1.has_all_timestamps(payload[:size]) for size in range(len(payload)))
