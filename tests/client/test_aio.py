"""`AsyncClient` against a server that fails on command: pipelining, windows, reconnects."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from tests.client import fake_server
from tests.client.fake_server import FakeServer

from unimeter import (
    AggType,
    AsyncClient,
    BackpressureError,
    ClientError,
    ConnectionError,
    DeadlineExceededError,
    DeliveryMode,
    Event,
    InvalidInputError,
    MetricSchema,
    NotFoundError,
    SessionExpiredError,
    current_month,
)
from unimeter.limits import SESSION_WINDOW
from unimeter.wire.messages import AlertPushEnable, ErrorCode, ErrorReply, PacketType

MONTH = current_month()
Test = Callable[[FakeServer], Coroutine[Any, Any, None]]


LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])


@pytest.fixture(params=LOOPS, autouse=True)
def loop_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs on both loops: their transports differ in more than speed."""
    _chosen.append(request.param)
    yield
    _chosen.pop()


_chosen: list[str] = []


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, with asyncio's own checks on."""
    factory = None
    if _chosen[-1] == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(debug=_chosen[-1] == "asyncio", loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(test, 30))


def test_the_published_quick_start(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            await client.metrics.create(MetricSchema(code="m", agg_type=AggType.COUNT))
            await client.ingest(
                [Event(account_id=42, metric_code="m", value=1)], delivery=DeliveryMode.SYNC
            )
            result = await client.query(42, "m", MONTH)
            assert result.value.count == 1
            assert (await client.query_realtime(42, "m")).count == 1
            assert [schema.code for schema in await client.metrics.list()] == ["m"]

    run(main())
    assert any(kind == PacketType.INGEST_SYNC for kind, _ in fake.memory.requests)


def test_concurrent_calls_pipeline_on_one_connection_within_the_window(fake: FakeServer) -> None:
    fake.memory.hold = threading.Event()

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            calls = [asyncio.create_task(client.ingest([Event(1, "m")])) for _ in range(200)]
            expected = 8 * SESSION_WINDOW
            await asyncio.to_thread(fake.wait_for, lambda: len(fake.ingests()) >= expected)
            statistics = client.statistics()
            assert statistics["waiting"] == 200 - expected
            assert (statistics["connections"], statistics["sessions"]) == (1, 8)
            assert fake.memory.hold is not None
            fake.memory.hold.set()
            await asyncio.gather(*calls)
            assert client.statistics()["unresolved"] == 0

    run(main())
    assert fake.total() == 200
    assert fake.accepted == 1
    assert fake.memory.window_seen == SESSION_WINDOW


def test_lost_connection_resends_every_call_in_flight_once(fake: FakeServer) -> None:
    fake.memory.faults = [None, None, "drop", "refuse", "drop", None, "twice"]

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            results = await asyncio.gather(*(client.ingest([Event(1, "m")]) for _ in range(40)))
            assert sum(result.n_stored for result in results) == 40

    run(main())
    assert fake.total() == 40
    assert len(fake.ingests()) > 40


def test_backpressure_is_waited_out_and_then_reported(fake: FakeServer) -> None:
    wait = ErrorReply(ErrorCode.BACKPRESSURE, "disk low", 30)
    fake.memory.faults = [wait]

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            assert (await client.ingest([Event(1, "m")])).n_stored == 1
            fake.memory.faults = [ErrorReply(ErrorCode.BACKPRESSURE, "disk low", 60_000)]
            with pytest.raises(BackpressureError):
                await client.ingest([Event(1, "m")], timeout=1.0)

    run(main())
    assert fake.total() == 1


def test_silent_server_ends_at_the_deadline_and_other_calls_go_on(fake: FakeServer) -> None:
    fake.memory.faults = ["silent"] * 100

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            lost = asyncio.create_task(client.ingest([Event(1, "m")], timeout=0.3))
            for _ in range(5):
                await client.query(1, "m", MONTH)
            with pytest.raises(DeadlineExceededError, match="may or may not"):
                await lost

    run(main())


def test_window_that_stays_full_ends_at_the_deadline_with_nothing_sent(fake: FakeServer) -> None:
    fake.memory.hold = threading.Event()

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            held = [asyncio.create_task(client.ingest([Event(1, "m")])) for _ in range(128)]
            await asyncio.to_thread(fake.wait_for, lambda: len(fake.ingests()) >= 128)
            with pytest.raises(DeadlineExceededError, match="nothing was sent"):
                await client.ingest([Event(2, "m")], timeout=0.1)
            assert fake.memory.hold is not None
            fake.memory.hold.set()
            await asyncio.gather(*held)

    run(main())
    assert (fake.total(1), fake.total(2)) == (128, 0)


def test_cancelled_call_gives_its_number_back(fake: FakeServer) -> None:
    fake.memory.hold = threading.Event()

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            calls = [asyncio.create_task(client.ingest([Event(1, "m")])) for _ in range(200)]
            await asyncio.to_thread(fake.wait_for, lambda: len(fake.ingests()) >= 128)
            for call in calls[::2]:
                call.cancel()
            assert fake.memory.hold is not None
            fake.memory.hold.set()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(r, asyncio.CancelledError) for r in results) == 100
            assert client.statistics()["unresolved"] == 0
            assert client.statistics()["waiting"] == 0

    run(main())


def test_no_server_raises_early_when_entered() -> None:
    with FakeServer() as gone:
        address = gone.address

    async def main() -> None:
        client = AsyncClient([address])
        with pytest.raises(ConnectionError, match=address):
            await client.connect(timeout=0.1)
        await client.close()
        with pytest.raises(ClientError, match="closed"):
            await client.query(1, "m", MONTH)

    run(main())


def test_session_expired_in_doubt_raises_and_otherwise_a_new_one_opens(fake: FakeServer) -> None:
    expired = ErrorReply(ErrorCode.SESSION_EXPIRED, "who are you")

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            fake.memory.faults = ["drop", expired]
            with pytest.raises(SessionExpiredError):
                await client.ingest([Event(1, "m")])
            fake.memory.faults = [expired]
            assert (await client.ingest([Event(1, "m")])).n_stored == 1

    run(main())


def test_large_batch_is_split_and_sent_side_by_side(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            events = [Event(i, "unknown" if i == 9000 else "m") for i in range(20_000)]
            result = await client.ingest(events)
            assert (result.n_stored, result.n_refused) == (19_999, 1)
            assert [refusal.index for refusal in result.refusals] == [9000]

    run(main())
    assert len(fake.ingests()) == 3


def test_lists_and_iterators_follow_every_page(fake: FakeServer) -> None:
    for i in range(5):
        fake.memory.metrics[f"m{i}"] = MetricSchema(f"m{i}", AggType.SUM)
        fake.alert()

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            assert len(await client.metrics.list()) == 5
            assert (await client.metrics.get("m3")).code == "m3"
            with pytest.raises(NotFoundError):
                await client.metrics.get("nope")
            assert [a.position for a in await client.list_alerts(1)] == [1, 2, 3, 4, 5]
            assert [a.position async for a in client.iter_alerts(1, after=2)] == [3, 4, 5]
            since = datetime(2026, 1, 1, tzinfo=timezone.utc)
            assert await client.list_events(1, since, since + timedelta(1)) == []

    run(main())


def test_float_and_naive_datetime_raise_before_anything_is_sent(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            with pytest.raises(InvalidInputError, match="scale"):
                await client.ingest([Event(1, "m"), Event(1, "m", 0.1)])  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match="time zone"):
                await client.ingest([Event(1, "m", timestamp=datetime(2026, 1, 1))])

    run(main())
    assert fake.ingests() == []


# --- subscriptions -----------------------------------------------------------


def test_subscription_gets_missed_and_new_alerts_over_reconnects(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            for _ in range(3):
                fake.alert()
            subscription = await client.alerts.subscribe(after=1)
            seen = [(await anext(subscription)).position for _ in range(2)]
            for _ in range(4):
                fake.alert()
                fake.drop_connections()
                fake.alert()
                seen.append((await anext(subscription)).position)
                seen.append((await anext(subscription)).position)
            assert seen == list(range(2, 12))
            assert subscription.position == 11 and subscription.dropped() == 0
            assert list(subscription.offsets().values()) == [11]

    run(main())
    # Each reconnect asks for what follows the last alert received, not for everything.
    asked = [after for after in fake.enabled_after() if after is not None]
    assert asked[0] == 1 and asked == sorted(asked) and asked[-1] >= 9


def test_alert_that_comes_twice_is_handed_out_once(fake: FakeServer) -> None:
    fake.memory.push_times = 2

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            subscription = await client.alerts.subscribe()
            for _ in range(3):
                fake.alert()
            assert [(await anext(subscription)).position for _ in range(3)] == [1, 2, 3]
            fake.alert()
            assert (await anext(subscription)).position == 4

    run(main())


def test_subscription_from_now_on_sees_only_what_comes(fake: FakeServer) -> None:
    fake.alert()

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            subscription = await client.alerts.subscribe()
            fake.alert()
            assert (await anext(subscription)).position == 2

    run(main())


def test_subscription_goes_on_from_saved_offsets(fake: FakeServer) -> None:
    for _ in range(4):
        fake.alert()

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            first = await client.alerts.subscribe(account_ids=[1], metric_codes=["m"])
            assert (await anext(first)).position == 1
            assert (await anext(first)).position == 2
            second = await client.alerts.subscribe(since_offset=first.offsets())
            assert (await anext(second)).position == 3

    run(main())


def test_subscription_knows_where_it_began_though_an_alert_came_with_the_confirmation(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who saves the position before the first alert goes on from there and not from the start."""
    fake.alert()
    sent = fake._send

    def confirmed_late(connection: Any, kind: int, request_id: int, response: Any) -> None:
        if kind != PacketType.ALERT_PUSH_ENABLE:
            sent(connection, kind, request_id, response)
            return
        both = bytearray()
        with monkeypatch.context() as patched:
            patched.setattr(fake_server, "_send_all", lambda _, data: both.extend(data))
            sent(connection, kind, request_id, response)
            fake.alert()  # kept; nobody has subscribed yet
            asked = AlertPushEnable([], [], None)
            fake._push(connection, asked, fake.memory.alerts[-1])
        connection.sendall(both)

    monkeypatch.setattr(fake, "_send", confirmed_late)

    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            subscription = await client.alerts.subscribe()
            assert subscription.position == 1
            assert (await anext(subscription)).position == 2

    run(main())


def test_slow_consumer_loses_nothing(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            subscription = await client.alerts.subscribe(buffer_size=2)
            for _ in range(300):
                fake.alert()
            assert subscription._link is not None and subscription._link._transport is not None
            while subscription._link._transport.is_reading():
                await asyncio.sleep(0.001)  # until the full inbox has stopped it
            seen = [(await anext(subscription)).position for _ in range(300)]
            assert seen == list(range(1, 301))

    run(main())


def test_closing_ends_the_iteration(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            subscription = await client.alerts.subscribe()

            async def consume() -> list[int]:
                return [alert.position async for alert in subscription]

            consumer = asyncio.create_task(consume())
            await asyncio.sleep(0)
            await subscription.close()
            assert await consumer == []

    run(main())


def test_refused_subscription_raises(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient([fake.address]) as client:
            fake.memory.read_faults = [ErrorReply(ErrorCode.INVALID_INPUT, "no")]
            with pytest.raises(InvalidInputError, match="no"):
                await client.alerts.subscribe()

    run(main())
