"""Nodes that reach each other over real sockets: links, messages, loss and return."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace

import pytest
from tests.server.peernet import (
    NOW_NS,
    QUICK,
    Net,
    Raw,
    fake,
    free_socket,
    hello_of,
    loops,
    on_net,
    shaking,
    until,
)

from unimeter import limits
from unimeter.raft.messages import MSG_APP, MSG_APP_RESP, MSG_HEARTBEAT, Entry, Message
from unimeter.server.peer_codec import encode_message
from unimeter.server.platform import Platform
from unimeter.wire.peer import (
    FETCH,
    FORWARD,
    PING,
    PONG,
    RAFT,
    STATUS,
    frame_buffers,
    frame_header,
    frame_of,
)

BYTES = bytes(range(256)) * 2000


def append(number: int, to: int = 2, size: int = 10) -> Message:
    entries = [Entry(number, 7, 3, 5 * number, BYTES[:size])]
    return Message(MSG_APP, to, 1, 7, 6, number - 1, entries, number - 1)


# --- messages ------------------------------------------------------------------------


@pytest.mark.parametrize("loop", loops())
def test_three_nodes_reach_each_other_and_messages_arrive_in_order(loop: str) -> None:
    async def body(made: Net) -> None:
        nodes = [await made.start(n) for n in (1, 2, 3)]
        await until(lambda: all(node.count["peers_up"] == 2 for node in nodes))
        assert sorted(nodes[0].handler.ups) == [2, 3]
        for n in range(1, 101):
            nodes[0].peers.send(append(n, size=5 * n * n))
            nodes[0].peers.send(Message(MSG_HEARTBEAT, 3, 1, 7, context=b"%d" % n))
        await until(lambda: len(nodes[1].handler.messages) == 100)
        await until(lambda: len(nodes[2].handler.messages) == 100)
        for n, message in enumerate(nodes[1].handler.messages, 1):
            assert message == append(n, size=5 * n * n)
        contexts = [message.context for message in nodes[2].handler.messages]
        assert contexts == [b"%d" % n for n in range(1, 101)]
        nodes[1].peers.send(Message(MSG_APP_RESP, 1, 2, 7, index=100))
        await until(lambda: nodes[0].handler.messages)
        assert nodes[0].handler.messages[0].index == 100

    on_net(body, loop)


@pytest.mark.parametrize("loop", loops())
def test_opaque_frames_arrive_with_their_sender_and_kind(loop: str) -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        large = bytes(5_000_000)
        assert one.peers.send_frame(2, FORWARD, large)
        assert one.peers.send_frame(2, STATUS, memoryview(b"status"))
        assert two.peers.send_frame(1, STATUS, b"")
        await until(lambda: len(two.handler.frames) == 2 and one.handler.frames)
        assert two.handler.frames == [(1, FORWARD, large), (1, STATUS, b"status")]
        assert one.handler.frames == [(2, STATUS, b"")]

    on_net(body, loop)


@pytest.mark.parametrize("loop", loops())
def test_the_largest_entry_travels(loop: str) -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2))
        largest = bytes(limits.ENTRY_BYTES_MAX)
        one.peers.send(Message(MSG_APP, 2, 1, 7, entries=[Entry(1, 7, 3, 0, largest)]))
        await until(lambda: two.handler.messages)
        assert two.handler.messages[0].entries[0].body == largest

    on_net(body, loop)


def test_frames_that_cannot_be_sent_are_dropped_and_counted() -> None:
    async def body(made: Net) -> None:
        one = await made.start(1)
        one.peers.send(append(1))
        assert not one.peers.send_frame(2, STATUS, b"x")
        assert one.count["dropped_no_link"] == 2
        two = await made.start(2)
        await until(lambda: one.peers.is_up(2))
        block = bytes(4 * 1024 * 1024)
        taken = 0
        while one.peers.send_frame(2, FORWARD, block):  # the loop does not run meanwhile
            taken += 1
        assert one.peers.waiting_bytes(2) > limits.PEER_OUT_BYTES_MAX
        one.peers.send(append(2))
        assert one.count["dropped_full"] == 2
        await until(lambda: len(two.handler.frames) == taken)
        assert one.peers.waiting_bytes(2) == 0
        one.peers.send(append(3))
        await until(lambda: two.handler.messages)

    on_net(body)


@pytest.mark.parametrize("loop", loops())
def test_a_connection_that_is_closing_is_given_nothing_more(loop: str) -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        for _ in range(3):  # the numbers of descriptors come round again
            await until(lambda: one.peers.is_up(2))
            one.peers._out[2].transport.abort()
            assert not one.peers.send_frame(2, FORWARD, bytes(1_000_000))
            one.peers.send(append(1, size=100_000))
            heard, ups = len(two.handler.messages), len(one.handler.ups)
            await until(lambda ups=ups: len(one.handler.ups) > ups)
            one.peers.send(append(1, size=100_000))
            await until(lambda heard=heard: len(two.handler.messages) == heard + 1)

    on_net(body, loop)


def test_statistics_count_what_was_sent_and_what_arrived() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        for n in range(1, 11):
            one.peers.send(append(n))
        one.peers.send_frame(2, STATUS, b"status")
        await until(lambda: len(two.handler.messages) == 10 and two.handler.frames)
        sent, heard = one.count, two.count
        assert sent["messages_sent"] == heard["messages_received"] == 10
        assert sent["frames_sent"] >= 11 and heard["frames_received"] >= 11
        assert sent["bytes_sent"] > 10 * 114
        assert sent["peers"] == 2 and sent["peers_up"] == sent["peers_up_incoming"] == 1
        assert all(isinstance(value, int) for value in sent.values())
        await until(lambda: one.peers.peer_statistics()[2]["round_trip_seconds"] > 0)
        known = one.peers.peer_statistics()
        assert known[2]["is_up"] and known[2]["is_heard"] and known[2]["reason"] == ""
        assert not known[3]["is_up"] and known[3]["reason"] == "connection refused"

    on_net(body)


def test_a_peers_hello_is_known_from_its_last_connection() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2, term=5, last_index=99)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        known = one.peers.hello_of(2)
        assert known is not None and known.process != 0
        assert known == hello_of(2, term=5, last_index=99, process=known.process)
        assert one.peers.hello_of(3) is None

    on_net(body)


# --- loss and return -----------------------------------------------------------------


@pytest.mark.parametrize("loop", loops())
def test_a_peer_whose_process_is_gone_is_told_apart_from_a_lost_connection(loop: str) -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        await made.stop(two)
        await until(lambda: len(one.handler.downs) == 2)
        assert one.handler.downs == [(2, False), (2, True)]
        assert not one.peers.is_up(2)
        two = await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        assert one.handler.ups == [2, 2]
        one.peers.send(append(1))
        await until(lambda: two.handler.messages)

    on_net(body, loop)


def test_a_connection_that_is_reset_is_dialled_again_and_the_peer_is_not_gone() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        for link in list(two.peers._in.values()):
            link.transport.abort()
        await until(lambda: one.handler.ups == [2, 2])
        assert one.handler.downs == [(2, False)]
        assert two.handler.downs == []
        assert one.count["lost"] == 1

    on_net(body)


def test_a_link_cut_in_the_middle_of_a_frame_delivers_nothing_of_it() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        whole = b"".join(frame_buffers(RAFT, encode_message(append(2, size=300))))
        for cut in range(1, len(whole), 7):
            raw = await Raw.dial(made.ports[2])
            assert (await raw.shake(shaking(hello_of(1)))).is_done
            heard = len(two.handler.messages)
            raw.writer.write(b"".join(frame_buffers(RAFT, encode_message(append(1)))))
            raw.writer.write(whole[:cut])
            await raw.close()
            await until(lambda heard=heard: len(two.handler.messages) == heard + 1)
            await until(lambda: two.count["peers_up_incoming"] == 0)
        assert {message.index for message in two.handler.messages} == {0}

    on_net(body)


def test_a_silent_peer_is_noticed_and_dialled_again() -> None:
    async def body(made: Net) -> None:
        dialled = 0

        async def silent(raw: Raw) -> None:
            nonlocal dialled
            dialled += 1
            await raw.shake(shaking(hello_of(2), is_dialler=False))
            while await raw.frame() is not None:  # takes everything, answers nothing
                pass

        async with fake(made.sockets.pop(2), silent):
            one = await made.start(1)
            await until(lambda: dialled >= 2)
            assert one.count["closed_silent"] >= 1
            assert one.handler.downs[0] == (2, False)

    on_net(body)


def test_a_peer_that_dialled_and_fell_silent_is_let_go() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        raw = await Raw.dial(made.ports[2])
        await raw.shake(shaking(hello_of(1)))
        await until(lambda: two.count["peers_up_incoming"] == 1)
        assert await raw.is_closed()
        assert two.count["closed_silent"] == 1
        await raw.close()

    on_net(body)


def test_a_busy_peer_that_answers_pings_stays_for_many_times_the_silence() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        link = one.peers._out[2]
        await until(lambda: link.age_ticks > 4 * QUICK.silent_ticks)
        assert one.peers._out[2] is link
        assert one.count["closed_silent"] == two.count["closed_silent"] == 0

    on_net(body)


def test_a_peer_that_dials_ends_the_pause_before_it_is_dialled() -> None:
    async def body(made: Net) -> None:
        slow = replace(QUICK, pause_seconds_min=1000.0, pause_seconds_max=1000.0)
        one = await made.start(1, timing=slow)
        await until(lambda: one.count["dials_failed"] == 2)
        await made.start(2)
        await until(lambda: one.peers.is_up(2))

    on_net(body)


class Even(Platform):
    """A machine whose chance is always even."""

    def chance(self) -> float:
        return 0.5


def test_pauses_double_up_to_a_bound_and_are_shortened_by_chance() -> None:
    async def body(made: Net) -> None:
        pauses: list[float] = []
        real = asyncio.timeout

        def timeout(seconds: float) -> asyncio.Timeout:
            if seconds != QUICK.connect_seconds:
                pauses.append(seconds)
                seconds = 0
            return real(seconds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("unimeter.server.peer_dial.asyncio.timeout", timeout)
            await made.start(1, to=(1, 2), platform=Even())
            await until(lambda: len(pauses) >= 8)
        expected = [min(0.002 * 2**n, 0.02) * 0.75 for n in range(8)]
        assert pauses[:8] == pytest.approx(expected)

    on_net(body)


def test_an_unreachable_peer_is_mentioned_once_with_the_reason() -> None:
    async def body(made: Net) -> None:
        one = await made.start(1)
        await until(lambda: one.count["dials_failed"] > 10)
        assert sorted(one.said) == [
            f"peer {n} at 127.0.0.1:{made.ports[n]} can't be reached: connection refused"
            for n in (2, 3)
        ]

    on_net(body)


def test_closing_lets_what_was_sent_leave() -> None:
    async def body(made: Net) -> None:
        patient = replace(QUICK, close_seconds=20.0)
        one, two = await made.start(1, timing=patient), await made.start(2)
        await until(lambda: one.peers.is_up(2))
        for _ in range(20):
            assert one.peers.send_frame(2, FORWARD, bytes(1_000_000))
        await made.stop(one)
        await until(lambda: len(two.handler.frames) == 20)

    on_net(body)


# --- who is there --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster_id": b"x" * 16}, "belongs to cluster 78787878787878787878787878787878"),
        ({"format_version": 2}, "stores format 2"),
        ({"members": (1, 2, 3, 4, 5)}, "the members differ"),
    ],
)
def test_a_node_that_does_not_belong_here_is_refused_and_both_are_told(
    changes: dict[str, object], words: str
) -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2, **changes)
        await until(lambda: one.handler.refusals and two.handler.refusals)
        node, sentence = one.handler.refusals[0]
        assert node == 2 and words in sentence
        assert two.handler.refusals[0][0] == 1
        assert one.handler.ups == two.handler.ups == []
        assert one.count["refused"] > 0 and one.count["refused_by_peer"] > 0
        await until(lambda: any("it refuses this node" in each for each in two.said))
        assert any(words in each for each in two.said)

    on_net(body)


def test_the_nodes_own_judgement_is_heard_on_the_other_side() -> None:
    async def body(made: Net) -> None:
        one = await made.start(1)
        one.handler.judgement = "node 2 must be recovered first"
        two = await made.start(2)
        await until(lambda: two.handler.refusals)
        assert two.handler.refusals[0] == (1, "node 2 must be recovered first")
        one.handler.judgement = ""
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))

    on_net(body)


def test_a_node_with_the_id_of_another_is_refused_by_it_and_by_the_others() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        # Node 2 again, on a copy of its directory, at the address of node 3.
        twin = await made.start(3, says=2, address="127.0.0.1:1")
        await until(lambda: twin.handler.refusals and one.count["dials_failed"] > 1)
        sentence = twin.handler.refusals[0][1]
        assert sentence == (
            "node id 2 is used twice: another process with that id is connected from 127.0.0.1:9002"
        )
        assert one.peers.is_up(2) and two.peers.is_up(1), "the first one stays"
        reason = f"node 2 answers at 127.0.0.1:{made.ports[3]}, where node 3 should be"
        await until(lambda: reason in one.peers.peer_statistics()[3]["reason"])

    on_net(body)


def test_a_node_that_has_dialled_itself_is_told_so() -> None:
    async def body(made: Net) -> None:
        made.ports[3] = made.ports[2]  # a slip of the operator
        two = await made.start(2)
        await until(lambda: two.handler.refusals)
        sentence = "node 2 has connected to itself: check the addresses of the peers"
        assert two.handler.refusals[0] == (3, sentence)

    on_net(body)


def test_two_processes_with_one_id_do_not_talk_to_each_other() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        raw = await Raw.dial(made.ports[2])
        handshake = await raw.shake(shaking(hello_of(2, address="elsewhere:1")))
        assert handshake.refusal == (
            "node id 2 is used twice, at 127.0.0.1:9002 and at elsewhere:1: "
            "give each node an id of its own"
        )
        assert await raw.is_closed()
        assert two.count["refused"] == 1
        await raw.close()

    on_net(body)


def test_a_peer_that_was_replaced_is_let_in_once_the_former_is_gone() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        await made.stop(two)
        two = await made.start(2, incarnation=7)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        assert one.peers.hello_of(2).incarnation == 7

    on_net(body)


def test_a_second_connection_of_the_same_node_takes_the_place_of_the_first() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        first, second = await Raw.dial(made.ports[2]), await Raw.dial(made.ports[2])
        await first.shake(shaking(hello_of(1)))
        await until(lambda: two.count["peers_up_incoming"] == 1)
        await second.shake(shaking(hello_of(1)))
        assert await first.is_closed()
        second.writer.write(frame_of(PING))
        assert await second.frame() == (PONG, b"")
        assert two.count["peers_up_incoming"] == 1
        await first.close()
        await second.close()

    on_net(body)


def test_clocks_that_are_apart_are_mentioned_once_and_not_refused() -> None:
    async def body(made: Net) -> None:
        one = await made.start(1)
        two = await made.start(2, clock_ns=NOW_NS + 61 * 10**9)
        three = await made.start(3, clock_ns=NOW_NS - 59 * 10**9)
        nodes = (one, two, three)
        await until(lambda: all(node.count["peers_up"] == 2 for node in nodes))
        for link in list(two.peers._in.values()):
            link.transport.abort()
        await until(lambda: len(one.handler.ups) == 3 and one.peers.is_up(2))
        about = [each for each in one.said if "clock" in each]
        assert about == [
            "the clock of node 2 is 61 seconds ahead of this node's; timestamps that the leader "
            "sets will jump when the leader changes"
        ]

    on_net(body)


# --- what a peer may not say -----------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (frame_of(77, b""), "kind"),
        (frame_of(PONG, b""), "kind"),
        (frame_of(RAFT, bytes(71)), "malformed"),
        (b"".join(frame_buffers(RAFT, encode_message(append(1, to=3)))), "malformed"),
        (frame_of(FETCH, b"abc"), "malformed"),
        (frame_of(STATUS, b"status")[:-1] + b"x", "crc"),
        (b"\xff\xff\xff\xff" + frame_of(STATUS, b"status")[4:], "header"),
        (frame_of(24, b""), "malformed"),
        (frame_of(25, bytes(16)), "malformed"),
        (frame_of(25, bytes(16) + b"\x09"), "malformed"),
        (frame_of(26, bytes(19)), "malformed"),
        (frame_of(27, bytes(8)), "malformed"),
        (frame_of(27, bytes(8) + b"\x01no"), "malformed"),
    ],
)
def test_a_frame_that_makes_no_sense_closes_the_connection_with_a_counted_reason(
    frame: bytes, fault: str
) -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        raw = await Raw.dial(made.ports[2])
        await raw.shake(shaking(hello_of(1)))
        raw.writer.write(frame)
        assert await raw.is_closed()
        assert two.count[f"closed_{fault}"] == 1
        assert two.handler.messages == two.handler.frames == []
        await raw.close()

    on_net(body)


def test_an_oversize_frame_closes_the_connection_before_it_is_read() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        raw = await Raw.dial(made.ports[2])
        await raw.shake(shaking(hello_of(1)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "PEER_FRAME_BYTES_MAX", 2**32 - 1)
            header = frame_header(FORWARD, limits.ENTRY_BYTES_MAX * 2, 0)
        raw.writer.write(header)
        assert await raw.is_closed()
        assert two.count["closed_oversize"] == 1
        await raw.close()

    on_net(body)


def test_a_dialled_node_may_only_answer() -> None:
    async def body(made: Net) -> None:
        ended = asyncio.Event()

        async def talks(raw: Raw) -> None:
            handshake = await raw.shake(shaking(hello_of(2), is_dialler=False))
            if handshake.is_done:
                raw.writer.write(b"".join(frame_buffers(RAFT, encode_message(append(1, to=1)))))
                while await raw.frame() is not None:
                    pass
                ended.set()

        async with fake(made.sockets.pop(2), talks):
            one = await made.start(1)
            await ended.wait()
            assert one.count["closed_kind"] >= 1 and one.handler.messages == []

    on_net(body)


def test_an_exception_of_the_handler_is_its_failure_and_closes_nothing_else() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2))

        def broken(message: Message) -> None:
            raise AssertionError("commit moved backwards")

        two.handler.on_message = broken  # type: ignore[method-assign]
        one.peers.send(append(1))
        await until(lambda: two.handler.failures)
        assert str(two.handler.failures.pop()) == "commit moved backwards"

    on_net(body)


def test_an_address_where_a_server_of_another_kind_listens_is_mentioned() -> None:
    async def body(made: Net) -> None:
        async def http(raw: Raw) -> None:
            await raw.reader.read(10)
            raw.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await raw.reader.read()

        async with fake(made.sockets.pop(2), http):
            one = await made.start(1, to=(1, 2))
            await until(lambda: one.count["closed_header"] >= 1 and one.said)
            assert "does not match its check" in one.said[0]

    on_net(body)


def test_a_host_that_does_not_answer_is_given_up_after_a_time() -> None:
    async def body(made: Net) -> None:
        # A listener whose backlog is full does not answer: the nearest to a host that is gone.
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        made.ports[2] = full.getsockname()[1]
        one = await made.start(1, to=(1, 2), timing=replace(QUICK, connect_seconds=0.05))
        await until(lambda: one.said)
        assert one.said[0].endswith("no answer in time") or "handshake" in one.said[0]
        for filler in (*fillers, full):
            filler.close()

    on_net(body)


def test_options_that_a_socket_does_not_know_are_no_error() -> None:
    from unimeter.server.peer_link import set_options

    set_options(None, 5.0)
    left, right = socket.socketpair()
    set_options(left, 5.0)
    taken = free_socket()
    set_options(taken, 5.0)
    assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert struct.calcsize("<IBBHI") == 12
    for each in (left, right, taken):
        each.close()
