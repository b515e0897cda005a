"""The blocking subscription: resumes without loss or repetition, and can be closed."""

from __future__ import annotations

import threading
import time

import pytest
from tests.client.fake_server import FakeServer

from unimeter import Client, InvalidInputError
from unimeter.wire.messages import ErrorCode, ErrorReply


def test_stream_gets_missed_and_new_alerts_over_reconnects(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        for _ in range(3):
            fake.alert()
        stream = client.alerts.subscribe(after=1)
        seen = [next(stream).position for _ in range(2)]
        for _ in range(3):
            fake.alert()
            fake.drop_connections()
            fake.alert()
            seen += [next(stream).position, next(stream).position]
        assert seen == list(range(2, 10))
        assert stream.position == 9
        assert list(stream.offsets().values()) == [9]
    # Each reconnect asks for what follows the last alert handed out, not for everything.
    asked = [after for after in fake.enabled_after() if after is not None]
    assert asked[0] == 1 and asked == sorted(asked) and asked[-1] >= 7


def test_alert_that_comes_twice_is_handed_out_once(fake: FakeServer) -> None:
    fake.memory.push_times = 2
    with Client([fake.address]) as client, client.alerts.subscribe() as stream:
        for _ in range(3):
            fake.alert()
        assert [next(stream).position for _ in range(3)] == [1, 2, 3]
        assert stream.get(timeout=0.05) is None


def test_waiting_for_an_alert_can_have_a_limit(fake: FakeServer) -> None:
    with Client([fake.address]) as client, client.alerts.subscribe() as stream:
        began = time.monotonic()
        assert stream.get(timeout=0.1) is None
        assert time.monotonic() - began >= 0.1
        fake.alert()
        record = stream.get(timeout=10)
        assert record is not None and record.position == 1
        assert record.node_addr == fake.address


def test_stream_that_began_now_stays_there_over_a_reconnect(fake: FakeServer) -> None:
    fake.alert()
    with Client([fake.address]) as client, client.alerts.subscribe() as stream:
        fake.drop_connections()
        fake.alert()
        assert next(stream).position == 2


def test_closing_from_another_thread_ends_the_iteration(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        stream = client.alerts.subscribe()
        seen: list[int] = []
        consumer = threading.Thread(target=lambda: seen.extend(a.position for a in stream))
        consumer.start()
        fake.wait_for(lambda: bool(fake.subscribers))
        stream.close()
        consumer.join(10)
        assert not consumer.is_alive() and seen == []


def test_closing_the_client_closes_its_streams(fake: FakeServer) -> None:
    client = Client([fake.address])
    stream = client.alerts.subscribe()
    client.close()
    assert list(stream) == []


def test_refused_subscription_raises(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        fake.memory.read_faults = [ErrorReply(ErrorCode.INVALID_INPUT, "no")]
        with pytest.raises(InvalidInputError, match="no"):
            client.alerts.subscribe()
