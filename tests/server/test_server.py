"""A server in this process: what clients see, what they can't break."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.server.rawclient import DAY_NS, START_NS, RawClient, batch, stored

from unimeter import limits
from unimeter.errors import DirectoryInUseError
from unimeter.server import connection as connection_module
from unimeter.server.server import ListenError, Server
from unimeter.storage.verify import verify
from unimeter.types import AggType, AlertThreshold, Event, MetricSchema, from_ns
from unimeter.wire import v1, v2
from unimeter.wire.framer import MAGIC, request_frame
from unimeter.wire.messages import (
    AlertPushEnable,
    AlertsList,
    AlertsListReply,
    ClusterStatus,
    ClusterStatusReply,
    Done,
    ErrorCode,
    ErrorReply,
    EventsList,
    EventsListReply,
    Hello,
    HelloReply,
    MetricDelete,
    MetricList,
    MetricListReply,
    MetricPut,
    PacketType,
    PartitionMap,
    PartitionMapReply,
    Status,
    UsageQuery,
)

Body = Callable[[Server, RawClient], Awaitable[None]]


def serve(tmp_path: Path, body: Body, **options: Any) -> Server:
    """Run `body` with a server on `tmp_path` and a first connection."""

    async def inside() -> Server:
        async with Server(tmp_path / "data", port=0, http_port=0, **options) as server:
            client = await RawClient.connect(server.address)
            try:
                await body(server, client)
            finally:
                client.close()
        return server

    return asyncio.run(inside())


def header(length: int, request_id: int = 9, version: int = 1, kind: int = 1) -> bytes:
    return struct.pack("<IBBHII", MAGIC, version, kind, 0xFFFF, length, request_id)


# --- the plain way ----------------------------------------------------------------


def test_a_total_includes_an_event_once_its_acknowledgement_is_sent(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        for n in range(1, 4):
            response, position = await client.ingest(batch(42, 5, first=5 * n))
            assert stored(response) == 5
            assert position == server.node.machine.applied
            assert await client.count(42) == 5 * n

    serve(tmp_path, body)


def test_a_restart_keeps_everything_acknowledged(tmp_path: Path) -> None:
    async def first(server: Server, client: RawClient) -> None:
        await client.metric()
        await client.ingest(batch("acme", 7))

    async def second(server: Server, client: RawClient) -> None:
        assert await client.count("acme") == 7
        response, _ = await client.ingest(batch("acme", 8))
        assert stored(response) == 1, "seven of eight are duplicates"

    serve(tmp_path, first)
    serve(tmp_path, second)


def test_many_connections_in_one_turn_get_their_own_replies(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        others = [await RawClient.connect(server.address) for _ in range(20)]

        async def one(number: int, other: RawClient) -> None:
            for round_ in range(5):
                response, _ = await other.ingest(batch(number, number, first=100 * round_))
                assert stored(response) == number

        await asyncio.gather(*(one(n + 1, other) for n, other in enumerate(others)))
        for number in range(1, 21):
            assert await client.count(number) == 5 * number
        for other in others:
            other.close()

    server = serve(tmp_path, body)
    assert server.node.statistics.entries_appended < 101, "batches of one turn share an entry"


def test_metric_put_and_ingest_sent_together_keep_their_order(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        packet_type, payload = v2.encode_request(MetricPut(MetricSchema("calls", AggType.COUNT)))
        put = client.start(packet_type, payload)
        ingest = client.start(PacketType.INGEST_SYNC, v2.encode_columns(columns_of(batch(1, 3))))
        assert (await client.reply(put)).status == Status.OK
        frame = await client.reply(ingest)
        _, reply = v2.decode_response(PacketType.INGEST_SYNC, frame.status, frame.payload)
        assert stored(reply) == 3

    serve(tmp_path, body)


def columns_of(events: list[Event]) -> v2.Columns:
    return v2.Columns(
        accounts=[event.account_id for event in events],
        metric_codes=[event.metric_code for event in events],
        values=[event.value for event in events],
        timestamps_ns=[START_NS] * len(events),
        ids=[event.id or "" for event in events],
    )


def test_a_repeated_session_and_sequence_is_answered_from_memory(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        events = [Event(1, "calls") for _ in range(3)]
        session = {"session_hi": 7, "session_lo": 8, "sequence": 1}
        first, _ = await client.ingest(events, **session)
        again, _ = await client.ingest(events, **session)
        assert stored(first) == stored(again) == 3
        assert again.is_remembered  # type: ignore[union-attr]
        assert await client.count(1) == 3

    serve(tmp_path, body)


def test_every_other_request_is_answered(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric("calls")
        await client.metric("seats", AggType.COUNT_UNIQUE)
        await client.ingest(batch(1, 3))
        hello, _ = await client.ask(Hello(client="test"))
        assert isinstance(hello, HelloReply)
        assert (hello.version, hello.cluster_id) == (2, server.node.machine.cluster_id)
        status, _ = await client.ask(ClusterStatus())
        assert isinstance(status, ClusterStatusReply)
        assert status.log_offset == 3 and status.statistics["events_stored"] == 3
        listed, _ = await client.ask(MetricList(limit=1))
        assert isinstance(listed, MetricListReply) and listed.cursor
        rest, _ = await client.ask(MetricList(cursor=listed.cursor))
        assert isinstance(rest, MetricListReply)
        assert [m.code for m in (*listed.metrics, *rest.metrics)] == ["calls", "seats"]
        events, _ = await client.ask(EventsList(1, None, START_NS, START_NS + 1))
        assert isinstance(events, EventsListReply)
        assert [event.offset for event in events.events] == [1, 2, 3]
        done, _ = await client.ask(MetricDelete("seats"))
        assert isinstance(done, Done)

    serve(tmp_path, body)


def test_an_edge_inside_a_bucket_is_answered_from_stored_events(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        noon = from_ns(START_NS + DAY_NS // 2)
        await client.ingest([*batch(1, 3), Event(1, "calls", timestamp=noon)])
        query = UsageQuery(1, "calls", START_NS - 5, START_NS + 1)
        response, position = await client.ask(query)
        assert response.value.count == 3  # type: ignore[union-attr]
        assert position == server.node.machine.applied
        assert server.node.statistics.edge_scans == 1

    serve(tmp_path, body)


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (UsageQuery(1, "none", START_NS, START_NS + DAY_NS), ErrorCode.NOT_FOUND),
        (UsageQuery(1, "calls", START_NS, START_NS), ErrorCode.INVALID_INPUT),
        (UsageQuery(1, "calls", 0, 1, {"k": ["v"]}), ErrorCode.INVALID_INPUT),
        (UsageQuery(1, "calls", 0, 1, min_position=99), ErrorCode.BACKPRESSURE),
        (MetricPut(MetricSchema("calls", AggType.SUM)), ErrorCode.ALREADY_EXISTS),
        (MetricDelete("none"), ErrorCode.NOT_FOUND),
        (MetricList(cursor=b"abc"), ErrorCode.INVALID_INPUT),
        (EventsList(1, None, 5, 5), ErrorCode.INVALID_INPUT),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, ErrorCode) else value.name,
)
def test_bad_requests_get_a_code_and_a_sentence(tmp_path: Path, ask: Any, code: ErrorCode) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        response, _ = await client.ask(ask)
        assert isinstance(response, ErrorReply)
        assert response.code == code and response.text
        assert stored((await client.ingest(batch(1)))[0]) == 1, "the connection goes on"

    serve(tmp_path, body)


# --- addresses -------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_partition_map_names_the_address_the_client_came_by(tmp_path: Path, version: int) -> None:
    async def body(server: Server, client: RawClient) -> None:
        response, _ = await client.ask(PartitionMap(), version)
        assert isinstance(response, PartitionMapReply)
        assert len(response.routes) == 256
        for route in response.routes:
            assert route.leader == server.address
            assert route.replicas[0] == server.address

    serve(tmp_path, body)


def test_partition_map_names_the_advertised_address(tmp_path: Path) -> None:
    async def inside() -> None:
        options = {"port": 0, "http_port": 0, "advertise": "10.1.2.3:7001", "insecure": True}
        async with Server(tmp_path / "data", **options) as server:
            client = await RawClient.connect(f"127.0.0.1:{server.port}")
            response, _ = await client.ask(PartitionMap(), 1)
            assert isinstance(response, PartitionMapReply)
            assert response.routes[0].leader == "10.1.2.3:7001"
            client.close()

    asyncio.run(inside())


def test_a_port_in_use_is_refused_before_the_directory_is_touched(tmp_path: Path) -> None:
    async def inside() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ListenError, match=f"can't listen on 127.0.0.1:{port}.*--port"):
                await Server(tmp_path / "data", port=port, http_port=0).start()
            with pytest.raises(ListenError, match="--http-port"):
                await Server(tmp_path / "data", port=0, http_port=port).start()
        assert not (tmp_path / "data").exists()

    asyncio.run(inside())


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        with pytest.raises(DirectoryInUseError):
            await Server(tmp_path / "data", port=0, http_port=0).start()

    serve(tmp_path, body)


# --- alerts ----------------------------------------------------------------------


async def watched_metric(client: RawClient) -> None:
    schema = MetricSchema(
        "calls",
        AggType.COUNT,
        thresholds=[AlertThreshold(f"at-{n}", n) for n in (2, 4, 6)],
    )
    response, _ = await client.ask(MetricPut(schema))
    assert isinstance(response, Done)


def test_v1_subscriber_is_pushed_what_crosses_from_now_on(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await watched_metric(client)
        await client.ingest(batch(1, 3))
        frame = await client.exchange(PacketType.ALERT_PUSH_ENABLE, b"", version=1)
        assert (frame.status, frame.payload) == (0, b"")
        await client.ingest(batch(1, 1, first=3))
        pushed = await client.push()
        _, alert = v1.decode_push(pushed.status, pushed.payload)
        assert alert.alert.threshold_code == "at-4"  # type: ignore[union-attr]
        assert alert.alert.offset == 4  # type: ignore[union-attr]

    serve(tmp_path, body)


def test_v2_subscriber_resumes_without_loss_or_repetition(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await watched_metric(client)
        await client.ingest(batch(1, 5))
        subscriber = await RawClient.connect(server.address)
        reply, _ = await subscriber.ask(AlertPushEnable(after=1, accounts=[1, 2]))
        assert reply.after == 1  # type: ignore[union-attr]
        await client.ingest(batch(3, 9))  # not asked for
        await client.ingest(batch(2, 2))
        seen = []
        while len(seen) < 2:
            frame = await subscriber.push()
            _, push = v2.decode_push(frame.status, frame.payload)
            seen.append((push.alert.position, push.alert.account))  # type: ignore[union-attr]
        assert seen == [(2, 1), (6, 2)]
        listed, _ = await client.ask(AlertsList(after=4, limit=1))
        assert isinstance(listed, AlertsListReply)
        assert listed.more and [row.position for row in listed.alerts] == [5]
        subscriber.close()

    serve(tmp_path, body)


def test_a_client_that_closed_its_sending_side_still_gets_its_replies(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        half = await RawClient.connect(server.address)
        started = half.start(PacketType.INGEST_SYNC, v2.encode_columns(columns_of(batch(1, 8000))))
        half.writer.write_eof()
        assert (await half.reply(started)).status == Status.OK
        assert await half.reader.read() == b"", "closed by the server afterwards"
        half.close()

    serve(tmp_path, body)


# --- frames that are none ------------------------------------------------------------


def test_a_frame_over_the_limit_is_refused_drained_and_the_connection_usable(
    tmp_path: Path,
) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        for length in (limits.FRAME_BYTES_MAX + 1, limits.FRAME_BYTES_MAX + 70_000):
            client.send(header(length, request_id=1000 + length))
            for _ in range(0, length, 65_536):
                client.send(bytes(min(65_536, length)))
                length -= min(65_536, length)
            await client.writer.drain()
        too_many = struct.pack("<II", limits.EVENTS_PER_BATCH_MAX + 1, 0)
        too_many += bytes(96 * (limits.EVENTS_PER_BATCH_MAX + 1))
        client.send(header(len(too_many), request_id=77) + too_many)
        assert (await client.reply(77)).status == Status.ERROR
        assert {frame.status for frame in client.replies.values()} == {Status.ERROR}
        client.replies.clear()
        assert stored((await client.ingest(batch(1)))[0]) == 1

    serve(tmp_path, body)


def test_the_largest_batch_is_taken(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        response, _ = await client.ingest(batch(1, limits.EVENTS_PER_BATCH_MAX))
        assert stored(response) == limits.EVENTS_PER_BATCH_MAX

    serve(tmp_path, body)


def test_a_frame_byte_by_byte_and_many_frames_at_once(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        payload = v2.encode_columns(columns_of(batch(1, 4)))
        for byte in request_frame(2, PacketType.INGEST_SYNC, 500, payload):
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.reply(500)).status == 0
        started = [
            client.start(
                PacketType.INGEST_SYNC, v2.encode_columns(columns_of(batch(2, 300, first=n)))
            )
            for n in range(0, 90_000, 300)
        ]
        for request_id in started:
            assert (await client.reply(request_id)).status == 0
        assert await client.count(1) == 4
        assert await client.count(2) == 90_000
        assert server.clients.buffers.held_bytes == 0

    serve(tmp_path, body)


def test_a_frame_that_contradicts_itself_is_refused_and_the_rest_counted(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        client.send(header(8, request_id=70) + struct.pack("<II", 5, 0))
        client.send(header(8, request_id=71, version=2) + bytes(8))
        assert (await client.reply(70)).status == Status.ERROR
        frame = await client.reply(71)
        _, reply = v2.decode_response(PacketType.INGEST_SYNC, frame.status, frame.payload)
        assert isinstance(reply, ErrorReply) and reply.code == ErrorCode.MALFORMED
        assert stored((await client.ingest(batch(1)))[0]) == 1

    serve(tmp_path, body)


@pytest.mark.parametrize(("version", "kind"), [(1, 0x77), (2, 0x77), (3, 1), (3, 0x30)])
def test_unknown_packet_types_and_versions_get_an_error(
    tmp_path: Path, version: int, kind: int
) -> None:
    async def body(server: Server, client: RawClient) -> None:
        client.send(header(3, request_id=70, version=version, kind=kind) + b"abc")
        assert (await client.reply(70)).status == Status.ERROR
        await client.metric()

    serve(tmp_path, body)


def test_a_foreign_protocol_is_closed_and_nobody_else_notices(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(5000), bytes(100)):
            stranger = await RawClient.connect(server.address)
            stranger.send(garbage)
            assert await stranger.reader.read() == b""
            stranger.close()
        assert stored((await client.ingest(batch(1)))[0]) == 1
        assert server.node.statistics.closed_bad_magic == 3

    serve(tmp_path, body)


def test_a_giant_length_reserves_nothing(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        strangers = [await RawClient.connect(server.address) for _ in range(50)]
        for stranger in strangers:
            stranger.send(header(limits.FRAME_BYTES_MAX) + bytes(10))
        giant = await RawClient.connect(server.address)
        giant.send(header(2**32 - 1, request_id=5))
        assert (await giant.reply(5)).status == Status.ERROR
        await client.metric()
        while server.clients.buffers.held_bytes < 50 * 26:
            await asyncio.sleep(0.001)
        assert server.clients.buffers.held_bytes == 50 * 26
        for stranger in (*strangers, giant):
            stranger.close()
        while server.clients.count > 1:
            await asyncio.sleep(0.001)
        assert server.clients.buffers.held_bytes == 0

    serve(tmp_path, body)


def test_half_frames_beyond_the_bound_are_told_to_wait_and_drained(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        server.clients.buffers.held_bytes_max = 1000
        client.send(header(3000, request_id=5) + bytes(1500))
        assert (await client.reply(5)).status == Status.BACKPRESSURE
        client.send(bytes(1500))
        assert stored((await client.ingest(batch(1)))[0]) == 1

    serve(tmp_path, body)


def test_connections_opened_and_dropped_leave_nothing(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        for _ in range(20):
            opened = [await RawClient.connect(server.address) for _ in range(25)]
            for other in opened:
                other.send(header(5000)[: len(opened)])
                other.writer.transport.abort()
        while server.clients.count > 1:
            await asyncio.sleep(0.001)
        assert stored((await client.ingest(batch(1)))[0]) == 1
        assert server.clients.statistics()["held_bytes"] == 0

    serve(tmp_path, body)


def test_too_many_connections_leave_the_node_its_files(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        server.clients.connections_max = 3
        others = [await RawClient.connect(server.address) for _ in range(5)]
        while server.node.statistics.closed_too_many < 3:
            await asyncio.sleep(0.001)
        assert server.clients.count == 3
        assert stored((await client.ingest(batch(1)))[0]) == 1
        for other in others:
            other.close()
        while server.clients.count > 1:
            await asyncio.sleep(0.001)
        again = await RawClient.connect(server.address)
        assert stored((await again.ingest(batch(2)))[0]) == 1
        again.close()

    serve(tmp_path, body)


# --- backpressure -------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_low_disk_space_is_backpressure_and_queries_go_on(tmp_path: Path, version: int) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        await client.ingest(batch(1, 2))
        upkeep = server.node.upkeep
        bound, upkeep.disk_free_bytes_min = upkeep.disk_free_bytes_min, 2**62
        upkeep._reviewed = float("-inf")
        upkeep.review()
        payload = v2.encode_columns(columns_of(batch(1, 5, first=50)))
        if version == 1:
            payload = struct.pack("<II", 1, 0) + bytes(96)
        frame = await client.exchange(PacketType.INGEST_SYNC, payload, version)
        assert frame.status == Status.BACKPRESSURE
        if version == 2:
            _, reply = v2.decode_response(PacketType.INGEST_SYNC, frame.status, frame.payload)
            assert isinstance(reply, ErrorReply)
            assert reply.retry_after_ms > 0 and "MiB free" in reply.text
        put, _ = await client.ask(MetricPut(MetricSchema("other", AggType.SUM)))
        assert isinstance(put, ErrorReply) and put.code == ErrorCode.BACKPRESSURE
        assert await client.count(1) == 2
        upkeep.disk_free_bytes_min = bound
        while server.node.refusal:
            await asyncio.sleep(0.01)
        assert stored((await client.ingest(batch(1, 5, first=50)))[0]) == 5

    serve(tmp_path, body)


def test_too_many_bytes_in_flight_is_backpressure_until_they_are_durable(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        node, gate = server.node, threading.Event()
        node.inflight_bytes_max = 100_000
        sync = node.wal.sync

        def slow_disk(**_: bool) -> int:
            assert gate.wait(20)
            return sync()

        node.wal.sync = slow_disk  # type: ignore[method-assign]
        payload = v2.encode_columns(columns_of(batch(1, 8000)))
        first = client.start(PacketType.INGEST_SYNC, payload)
        while node.inflight_bytes <= node.inflight_bytes_max:
            await asyncio.sleep(0.001)
        refused, _ = await client.ingest(batch(2))
        assert isinstance(refused, ErrorReply) and refused.code == ErrorCode.BACKPRESSURE
        assert await client.count(1) == 0, "nothing is visible before it is durable"
        gate.set()
        assert (await client.reply(first)).status == Status.OK
        assert await client.count(1) == 8000
        assert stored((await client.ingest(batch(2)))[0]) == 1

    serve(tmp_path, body)


def test_a_client_that_does_not_read_is_cut_off_and_others_notice_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTION_STALL_SECONDS", 0.2)
    monkeypatch.setattr(connection_module, "OUT_BYTES_HIGH", 64 * 1024)

    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        slow = await RawClient.connect(server.address)
        frames = b"".join(
            request_frame(1, PacketType.GET_PARTITION_MAP, n, b"") for n in range(1, 2001)
        )
        slow.send(frames)  # 48 MB of replies that nobody takes
        while not server.clients.statistics()["connections_slow"]:
            await asyncio.sleep(0.001)
        assert stored((await client.ingest(batch(1)))[0]) == 1
        while server.clients.count > 1:
            server.clients.cut_off_stalled()
            await asyncio.sleep(0.02)
        assert server.node.statistics.closed_slow_reader == 1
        assert stored((await client.ingest(batch(1, first=1)))[0]) == 1
        slow.close()

    serve(tmp_path, body)


def test_a_client_that_reads_late_gets_everything(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        late = await RawClient.connect(server.address)
        for n in range(1, 801):
            late.send(request_frame(1, PacketType.GET_PARTITION_MAP, n, b""))
        while not server.clients.statistics()["connections_slow"]:
            await asyncio.sleep(0.001)
        for n in range(1, 801):
            assert len((await late.reply(n)).payload) == 24_576
        assert not server.clients.statistics()["connections_slow"]
        late.close()

    serve(tmp_path, body)


def test_queries_pages_and_snapshots_beside_large_batches_see_whole_entries(
    tmp_path: Path,
) -> None:
    batches, size, senders = 30, 4000, 3  # long enough for some looks on a busy machine

    async def body(server: Server, client: RawClient) -> None:
        await watched_metric(client)
        running = True

        async def send(account: int) -> None:
            sender = await RawClient.connect(server.address)
            payloads = [
                v2.encode_columns(columns_of(batch(account, size, first=size * n)))
                for n in range(batches)
            ]
            started = [sender.start(PacketType.INGEST_SYNC, payload) for payload in payloads]
            for request_id in started:
                assert (await sender.reply(request_id)).status == Status.OK
            assert await sender.count(account) == batches * size
            sender.close()

        async def look() -> int:
            looks = 0
            while running:
                for account in range(1, senders + 1):
                    assert await client.count(account) % size == 0, "half an entry was seen"
                listed, _ = await client.ask(AlertsList())
                assert isinstance(listed, AlertsListReply)
                server.metrics_page()
                server.node.upkeep.begin_snapshot()
                server.node.tick()
                looks += 1
                await asyncio.sleep(0)
            return looks

        looking = asyncio.create_task(look())
        await asyncio.gather(*(send(account) for account in range(1, senders + 1)))
        running = False
        assert await looking > 3
        assert server.node.idle
        listed, _ = await client.ask(AlertsList())
        assert len(listed.alerts) == 3 * senders  # type: ignore[union-attr]

    server = serve(tmp_path, body)
    assert server.node.statistics.snapshots_written > 0
    assert server.node.statistics.snapshots_failed == 0
    report = verify(str(tmp_path / "data"))
    assert report.ok, report.problems


# --- pages and stopping ----------------------------------------------------------------


def test_pages_tell_health_readiness_and_metrics(tmp_path: Path) -> None:
    async def body(server: Server, client: RawClient) -> None:
        await client.metric()
        await client.ingest(batch(987_654_321, 3))

        def get(path: str) -> str:
            url = f"http://127.0.0.1:{server.http_port}{path}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())

        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, get, "/health") == "ok\n"
        assert await loop.run_in_executor(None, get, "/ready") == "ready\n"
        text = await loop.run_in_executor(None, get, "/metrics")
        assert 'unimeter_events_total{outcome="stored"} 3.0' in text
        assert "unimeter_sync_seconds_bucket" in text
        assert "987654321" not in text, "no account in a label"
        documented = Path(__file__).parents[2] / "docs" / "operating" / "metrics.md"
        names = {
            line.split("`")[1]
            for line in documented.read_text().splitlines()
            if line.startswith("| `unimeter_")
        }
        served = {
            line.split()[2] for line in text.splitlines() if line.startswith("# TYPE unimeter_")
        }
        assert names == served

    serve(tmp_path, body)


def test_stop_answers_what_was_taken_in(tmp_path: Path) -> None:
    async def inside() -> None:
        server = Server(tmp_path / "data", port=0, http_port=0)
        await server.start()
        client = await RawClient.connect(server.address)
        await client.metric()
        started = [
            client.start(
                PacketType.INGEST_SYNC, v2.encode_columns(columns_of(batch(1, 500, first=n)))
            )
            for n in range(0, 20_000, 500)
        ]
        await client.reply(started[0])
        await server.stop()
        answered = 1
        with pytest.raises(ConnectionResetError):
            for request_id in started[1:]:
                assert (await client.reply(request_id)).status == 0
                answered += 1
            raise ConnectionResetError
        client.close()
        async with Server(tmp_path / "data", port=0, http_port=0) as again:
            client = await RawClient.connect(again.address)
            assert await client.count(1) == 500 * answered, "answered = stored, nothing else"
            client.close()

    asyncio.run(inside())


def test_a_broken_invariant_stops_the_server_without_another_acknowledgement(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        async with Server(tmp_path / "data", port=0, http_port=0) as server:
            client = await RawClient.connect(server.address)
            await client.metric()

            def broken(*_: Any) -> None:
                raise AssertionError("planted")

            server.node.machine.apply = broken  # type: ignore[method-assign]
            with pytest.raises(ConnectionError):
                await client.ingest(batch(1))
            assert server.failure is not None and not server.is_ready
            client.close()

    with pytest.raises(AssertionError, match="planted"):
        asyncio.run(inside())


def test_a_node_that_is_alone_is_built_in_the_loops_thread(tmp_path: Path) -> None:
    """It syncs its first entry at once, and asks its host for timers.

    In debug mode asyncio refuses call_later and call_soon of any thread but the loop's.
    """

    async def inside() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with Server(tmp_path / "data", port=0, http_port=0) as server:
            client = await RawClient.connect(server.address)
            await client.metric()
            client.close()

    asyncio.run(inside())
