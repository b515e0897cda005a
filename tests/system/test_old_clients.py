"""Clients of version 1 beside data that only version 2 can name.

String accounts and long dimension values have no place in version 1. Its clients
must not be hurt by them: they are pushed what they can read, and get a refusal
where an answer has no room, at once or from a worker.
"""

from __future__ import annotations

import pytest
from tests.system.test_garbage import DAY, NOON, Line

from unimeter.types import AggType, AlertThreshold, DimensionFilter, Event, MetricSchema
from unimeter.wire import v1, v2
from unimeter.wire.messages import (
    AlertPushEnable,
    Breakdown,
    MetricPut,
    PacketType,
    Status,
    UsageQuery,
)

SPEND = MetricSchema(
    "spend",
    AggType.SUM,
    filters=[DimensionFilter("endpoint")],
    thresholds=[AlertThreshold("limit", 10)],
)


@pytest.fixture
def line(node):
    with Line(node) as opened:
        assert opened.ask(2, *v2.encode_request(MetricPut(SPEND))).status == Status.OK
        yield opened


def store(line: Line, *events: Event) -> None:
    payload = v2.encode_ingest(list(events), default_timestamp_ns=NOON)
    frame = line.ask(2, PacketType.INGEST_SYNC, payload)
    reply = v2.decode_response(PacketType.INGEST_SYNC, frame.status, frame.payload)[1]
    assert reply.stored == len(events)


def test_an_alert_of_a_string_account_does_not_hide_the_next_one(node, line):
    with Line(node) as subscriber:
        assert subscriber.ask(1, *v1.encode_request(AlertPushEnable())).status == Status.OK
        store(line, Event("acme", "spend", 50), Event(42, "spend", 60))
        push = subscriber.receive()
        assert push.is_push
        assert v1.decode_push(push.status, push.payload)[1].alert.account == 42
    assert "Traceback" not in node.output.read_text()


@pytest.mark.parametrize(
    ("start_ns", "end_ns"),
    [(NOON - DAY // 2, NOON + DAY // 2), (NOON - 7, NOON + 7)],
    ids=["whole buckets, at once", "an edge inside a bucket, from a worker"],
)
def test_an_answer_without_room_in_version_1_is_a_refusal(node, line, start_ns, end_ns):
    store(line, Event(42, "spend", 5, properties={"endpoint": "/v1/" + "x" * 40}))
    question = Breakdown(42, "spend", start_ns, end_ns, ["endpoint"])
    assert line.ask(1, *v1.encode_request(question)).status == Status.ERROR
    frame = line.ask(2, *v2.encode_request(question))
    reply = v2.decode_response(PacketType.USAGE_QUERY_BREAKDOWN, frame.status, frame.payload)[1]
    assert [row.value.sum for row in reply.rows] == [5]
    total = line.ask(1, *v1.encode_request(UsageQuery(42, "spend", start_ns, end_ns)))
    assert v1.decode_response(PacketType.USAGE_QUERY, 0, total.payload)[1].value.sum == 5
    assert "Traceback" not in node.output.read_text()
