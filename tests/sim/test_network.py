"""The fake network: connections like TCP's, everything that can be wrong with them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.sim.fake_hosts import Ear, Hosts, Pair

from unimeter.sim.network import PEER_PORT
from unimeter.sim.scheduler import MILLISECOND, SECOND
from unimeter.sim.transport import FakeSocket
from unimeter.wire.peer import PING, RAFT, PeerFramer, frame_of
from unimeter.wire.peer import PeerProtocolError as Refused

A, B = "10.0.0.1", "10.0.0.2"


def numbered(count: int, kind: int = RAFT) -> list[bytes]:
    return [frame_of(kind, n.to_bytes(4, "little") * 10) for n in range(count)]


# --- connecting --------------------------------------------------------------------------


def test_what_is_said_arrives_whole_and_in_order_both_ways() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    pair.say(*[b"%03d" % n for n in range(100)])
    pair.far_process.loop.call_soon(pair.far.transport.write, b"back")
    assert hosts.until(lambda: len(pair.far.heard) == 300 and pair.near.heard == b"back")
    assert pair.far.heard == b"".join(b"%03d" % n for n in range(100))


def test_nothing_arrives_before_its_time() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.weather.latency_ns = (70 * MILLISECOND, 70 * MILLISECOND)
    hosts.network.slow[A] = 30 * MILLISECOND
    began = hosts.scheduler.now_ns
    pair.say(b"x")
    hosts.until(lambda: bool(pair.far.chunks))
    assert hosts.scheduler.now_ns - began >= 100 * MILLISECOND


def test_a_port_that_nobody_listens_on_refuses_and_a_silent_host_lets_you_wait() -> None:
    hosts = Hosts()
    process = hosts.process(1)
    connect = process.loop.create_connection
    refused = hosts.task(process, connect(Ear, B, 7001))
    hosts.network.dark.add("10.0.0.3")
    silent = hosts.task(process, connect(Ear, "10.0.0.3", 7001))
    assert hosts.until(lambda: bool(refused), 1)
    assert isinstance(refused[0], ConnectionRefusedError)
    hosts.run(60)
    assert silent == []


@pytest.mark.parametrize("cut", [(A, B), (B, A)])
def test_a_cut_in_one_direction_is_enough_to_prevent_a_connection(cut: tuple[str, str]) -> None:
    hosts = Hosts()
    hosts.network.cuts.add(cut)
    pair = Pair(hosts)
    hosts.run(5)
    assert pair.connecting == [] and pair.near.calls == []
    hosts.network.cuts.clear()
    pair.made()


def test_who_gave_up_connecting_leaves_no_connection_open() -> None:
    hosts = Hosts()
    hosts.network.weather.latency_ns = (SECOND, SECOND)
    pair = Pair(hosts)
    hosts.run(1.5)

    async def give_up() -> None:
        for task in asyncio.all_tasks(pair.near_process.loop):
            if task is not asyncio.current_task():
                task.cancel()

    hosts.task(pair.near_process, give_up())
    hosts.run(10)
    assert pair.near.calls == [] and pair.far.calls == ["made", "lost"]


def test_a_process_that_ended_refuses_and_its_connections_are_reset() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    pair.far_process.die()
    hosts.network.process_died(pair.far_process, is_silent=False)
    assert hosts.until(lambda: "lost" in pair.near.calls, 1)
    assert isinstance(pair.near.error, ConnectionResetError)
    again = hosts.task(pair.near_process, pair.near_process.loop.create_connection(Ear, B, 7001))
    assert hosts.until(lambda: bool(again), 1)
    assert isinstance(again[0], ConnectionRefusedError)


@pytest.mark.parametrize("speaks", [True, False])
def test_a_host_without_power_says_nothing_and_its_connections_end_by_a_timeout(
    speaks: bool,
) -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.dark.add(B)
    pair.far_process.die()
    hosts.network.process_died(pair.far_process, is_silent=True)
    if speaks:
        pair.say(b"is anybody there")
    hosts.run(2)
    assert pair.near.calls == ["made"]
    hosts.run(8 if speaks else 30)  # the kernel gives up, or its keepalive finds nobody
    assert pair.near.calls == ["made", "lost"] and isinstance(pair.near.error, TimeoutError)


def test_a_listener_that_is_closed_takes_nobody() -> None:
    hosts = Hosts()
    pair = Pair(hosts)
    pair.listener.close()
    hosts.run(1)
    assert isinstance(pair.connecting[0], ConnectionRefusedError)
    assert not hosts.network.is_bound((B, 7001))


def test_an_address_is_bound_only_while_its_process_lives() -> None:
    hosts = Hosts()
    process = hosts.process(2)
    hosts.network.listen(process, Ear, FakeSocket((B, 7001)))
    assert hosts.network.is_bound((B, 7001))
    process.die()
    assert not hosts.network.is_bound((B, 7001))


# --- cuts --------------------------------------------------------------------------------


def test_what_was_said_during_a_short_cut_arrives_after_it() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.cuts |= {(A, B), (B, A)}
    pair.say(b"one", b"two")
    hosts.run(1)
    assert pair.far.chunks == [] and pair.near.calls == ["made"]
    hosts.network.cuts.clear()
    assert hosts.until(lambda: pair.far.heard == b"onetwo", 1)


def test_a_cut_in_one_direction_lets_the_other_through() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.cuts.add((A, B))
    pair.say(b"lost on the way")
    pair.far_process.loop.call_soon(pair.far.transport.write, b"heard")
    hosts.run(0.5)
    assert pair.near.heard == b"heard" and pair.far.chunks == []


def test_a_sender_gives_up_when_a_cut_lasts() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.cuts.add((A, B))
    pair.say(b"x")
    hosts.run(20)
    assert isinstance(pair.near.error, TimeoutError) and pair.far.chunks == []


def test_a_sender_gives_up_when_it_is_heard_and_hears_no_acknowledgement() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.cuts.add((B, A))
    pair.say(b"x")
    hosts.run(20)
    assert pair.far.heard == b"x"
    assert isinstance(pair.near.error, TimeoutError)


# --- what befalls frames -----------------------------------------------------------------


def test_a_flipped_bit_is_refused_by_the_framer_of_the_peers() -> None:
    refused = 0
    for seed in range(60):
        hosts = Hosts(seed)
        pair = Pair(hosts, PEER_PORT).made()
        hosts.network.weather.flipped = 1.0
        frame = frame_of(RAFT, b"something that matters" * 3)
        pair.say(frame)
        assert hosts.until(lambda pair=pair: bool(pair.far.chunks))
        assert pair.far.heard != frame and len(pair.far.heard) == len(frame)
        framer = PeerFramer(1 << 20)
        framer.receive_data(pair.far.heard)
        with pytest.raises(Refused):
            framer.next_frame()
        refused += 1
        assert hosts.network.counts == {"frame flipped": 1}
    assert refused == 60


@pytest.mark.parametrize("fault", ["lost", "doubled", "overtaken"])
def test_raft_frames_are_lost_doubled_and_overtaken_and_stay_whole(fault: str) -> None:
    hosts = Hosts()
    pair = Pair(hosts, PEER_PORT).made()
    setattr(hosts.network.weather, fault, 0.3)
    sent = numbered(200)
    pair.say(*sent)
    hosts.run(5)
    came = pair.far.chunks
    times = Counter(came)
    assert set(times) <= set(sent)
    count = hosts.network.counts[f"frame {fault}"]
    assert 30 < count < 90
    if fault == "lost":
        assert len(came) == 200 - count and came == [one for one in sent if one in times]
    elif fault == "doubled":
        assert len(came) == 200 + count and set(times.values()) == {1, 2}
    else:
        assert sorted(came) == sorted(sent) and came != sent


@pytest.mark.parametrize(("port", "kind"), [(PEER_PORT, PING), (7001, RAFT)])
def test_no_other_frame_is_lost_doubled_or_overtaken(port: int, kind: int) -> None:
    hosts = Hosts()
    pair = Pair(hosts, port).made()
    weather = hosts.network.weather
    weather.lost = weather.doubled = weather.overtaken = 1.0
    sent = numbered(50, kind)
    pair.say(*sent)
    hosts.run(5)
    assert pair.far.chunks == sent and not hosts.network.counts


def test_no_bit_of_a_clients_frame_is_flipped() -> None:
    hosts = Hosts()
    pair = Pair(hosts, 7001).made()
    hosts.network.weather.flipped = 1.0
    pair.say(*numbered(50))
    hosts.run(5)
    assert pair.far.chunks == numbered(50)


def test_a_chunk_that_is_split_arrives_in_parts_and_loses_nothing() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.weather.split = 0.7
    sent = numbered(30)
    pair.say(*sent)
    hosts.run(5)
    assert pair.far.heard == b"".join(sent)
    assert len(pair.far.chunks) > 40


def test_a_reset_ends_both_ends() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.weather.reset = 1.0
    pair.say(b"x")
    hosts.run(1)
    assert isinstance(pair.near.error, ConnectionResetError)
    assert isinstance(pair.far.error, ConnectionResetError)
    assert pair.far.chunks == [] and hosts.network.counts == {"connection reset": 1}


def test_connections_between_two_hosts_are_broken_on_request_and_no_others() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    assert hosts.network.break_connections(A, "10.0.0.9") == 0
    hosts.run(1)
    assert pair.near.calls == ["made"]
    assert hosts.network.break_connections(A, B) == 1
    hosts.run(1)
    assert pair.near.calls == pair.far.calls == ["made", "lost"]


# --- ends and buffers --------------------------------------------------------------------


def test_who_closes_is_heard_to_the_last_byte_and_then_not_any_more() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()

    def last_words() -> None:
        pair.near.transport.write(b"last words")
        pair.near.transport.close()
        pair.near.transport.write(b"too late")

    pair.near_process.loop.call_soon(last_words)
    hosts.run(1)
    assert pair.far.heard == b"last words"
    assert pair.far.calls == ["made", "end", "lost"] and pair.far.error is None
    assert pair.near.calls == ["made", "lost"] and pair.near.error is None


def test_bytes_for_a_connection_that_is_not_there_any_more_are_answered_with_a_reset() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    hosts.network.cuts.add((B, A))  # the end is not heard
    pair.far_process.loop.call_soon(pair.far.transport.close)
    hosts.run(0.1)
    pair.say(b"x")
    hosts.run(1)
    assert isinstance(pair.near.error, ConnectionResetError)


def test_a_cut_fills_the_senders_buffer_and_its_end_empties_it() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    pair.say(bytes(100_000))
    hosts.run(0.2)
    assert pair.near.calls == ["made"], "a free way holds nothing"
    hosts.network.cuts.add((A, B))
    pair.say(b"x")
    hosts.run(0.2)
    pair.say(bytes(100_000))
    hosts.run(0.2)
    assert pair.near.calls == ["made", "pause"]
    assert pair.near.transport.get_write_buffer_size() > 100_000
    hosts.network.cuts.clear()
    hosts.run(1)
    assert pair.near.calls == ["made", "pause", "resume"]
    assert len(pair.far.heard) == 200_001


def test_a_reader_that_pauses_gets_nothing_until_it_resumes_and_then_all() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    pair.far.transport.pause_reading()
    pair.say(b"one", b"two")
    hosts.run(1)
    assert pair.far.chunks == []
    pair.far.transport.resume_reading()
    hosts.run(1)
    assert pair.far.heard == b"onetwo"


def test_a_paused_process_reads_when_its_pause_is_over() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    pair.far_process.pause(hosts.scheduler.now_ns + 2 * SECOND)
    pair.say(b"x")
    hosts.run(1.9)
    assert pair.far.chunks == []
    hosts.run(0.2)
    assert pair.far.heard == b"x"


def test_a_connection_that_is_lost_before_its_maker_knows_of_it_is_made_and_lost() -> None:
    hosts = Hosts()
    server, client = hosts.process(1), hosts.process(2)
    hosts.network.listen(server, Ear, FakeSocket((server.ip, 7001)))
    ear = Ear()
    made = hosts.task(client, client.loop.create_connection(lambda: ear, server.ip, 7001))
    assert hosts.until(lambda: hosts.network.break_connections(client.ip, server.ip) > 0)
    assert not made
    assert hosts.until(lambda: bool(made) and ear.calls == ["made", "lost"])
