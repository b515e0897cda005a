"""Whoever does not know the secret: gets nothing, takes little, and not for long."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.server.peernet import (
    QUICK,
    SECRET,
    Net,
    Node,
    Raw,
    fake,
    hello_of,
    on_net,
    shaking,
    until,
)

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.wire.peer import HEADER_BYTES, HELLO, OPEN, RAFT, frame_of

LASTING = replace(QUICK, handshake_ticks=10_000, silent_ticks=10_000)


async def good_handshake(port: int) -> tuple[list[bytes], bytes]:
    """(what a dialler sent in a handshake, frame by frame; what it got)."""
    raw = await Raw.dial(port)
    handshake = shaking(hello_of(1))
    sent = [handshake.begin()]
    raw.writer.write(sent[0])
    while not handshake.has_ended:
        frame = await raw.frame()
        assert frame is not None
        sent.append(handshake.receive(*frame))
        raw.writer.write(sent[-1])
    await raw.close()
    return sent, raw.received


async def is_alive(made: Net, node: Node) -> None:
    """A real peer still gets in, and nothing broke."""
    raw = await Raw.dial(made.ports[node.peers.node_id])
    assert (await raw.shake(shaking(hello_of(1)))).is_done
    await raw.close()
    assert node.handler.failures == []


def test_nodes_with_different_secrets_do_not_meet_and_say_what_to_look_at() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2, secret=b"another secret, long enough")
        await until(lambda: one.count["closed_proof"] > 1 and two.count["closed_proof"] > 1)
        assert one.handler.ups == two.handler.ups == []
        assert one.handler.refusals == two.handler.refusals == []
        reason = "(is the cluster's secret the same on both nodes, and peer_tls?)"
        await until(lambda: reason in one.peers.peer_statistics()[2]["reason"])

    on_net(body)


def test_a_stranger_hears_32_random_bytes_and_the_end() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        raw = await Raw.dial(made.ports[2])
        await raw.shake(shaking(hello_of(1), secret=b"guessed guessed guessed"))
        assert len(raw.received) == HEADER_BYTES + 44
        assert two.count["closed_proof"] == 1
        await raw.close()
        await is_alive(made, two)

    on_net(body)


def test_a_replayed_handshake_is_not_let_in() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        sent, _ = await good_handshake(made.ports[2])
        await until(lambda: two.count["peers_up_incoming"] == 0)
        for together in (True, False):
            raw = await Raw.dial(made.ports[2])
            if together:
                raw.writer.write(b"".join(sent))
            else:
                raw.writer.write(sent[0])
                await raw.frame()
                raw.writer.write(sent[1])
            while await raw.frame() is not None:
                pass
            await raw.close()
        assert two.count["closed_proof"] == 2
        assert two.count["peers_up_incoming"] == 0
        await is_alive(made, two)

    on_net(body)


def test_garbage_at_every_byte_of_the_handshake_closes_the_connection() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2, timing=LASTING)
        sent, _ = await good_handshake(made.ports[2])
        closed = 0
        for number in (0, 1):
            for at in range(len(sent[number])):
                raw = await Raw.dial(made.ports[2])
                handshake = shaking(hello_of(1))
                if number:
                    raw.writer.write(handshake.begin())
                    frame = await raw.frame()
                    assert frame is not None
                    right = handshake.receive(*frame)
                else:
                    right = handshake.begin()
                wrong = bytearray(right)
                wrong[at] ^= 0xFF
                # Enough behind it that no length leaves the node waiting.
                raw.writer.write(bytes(wrong) + bytes(limits.PEER_HANDSHAKE_BYTES_MAX))
                while await raw.frame() is not None:
                    pass
                await raw.close()
                closed += 1
        faults = sum(value for name, value in two.count.items() if name.startswith("closed_"))
        assert faults == closed
        assert two.handler.messages == two.handler.frames == []
        await is_alive(made, two)

    on_net(body)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "header"),
        (bytes(1000), "header"),
        (b"\xff" * 5000, "header"),
        (frame_of(OPEN, b"SOMETHINGELSE" + bytes(31)), "magic"),
        (frame_of(OPEN, b"UNIMPEER\x02\x02\0\0" + bytes(32)), "version"),
        (frame_of(HELLO, bytes(100)), "kind"),
        (frame_of(RAFT, bytes(72)), "kind"),
        (frame_of(OPEN, bytes(limits.PEER_HANDSHAKE_BYTES_MAX)), "oversize"),
        (frame_of(OPEN, bytes(44))[:-1] + b"x", "crc"),
    ],
)
def test_what_is_no_handshake_is_counted_by_its_reason(data: bytes, fault: str) -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        raw = await Raw.dial(made.ports[2])
        raw.writer.write(data)
        assert await raw.is_closed()
        assert raw.received == b""
        assert two.count[f"closed_{fault}"] == 1
        await raw.close()
        await is_alive(made, two)

    on_net(body)


def test_a_raft_message_before_the_proof_is_not_heard() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        raw = await Raw.dial(made.ports[2])
        handshake = shaking(hello_of(1))
        raw.writer.write(handshake.begin() + frame_of(RAFT, bytes(72)))
        while await raw.frame() is not None:
            pass
        assert two.count["closed_kind"] == 1 and two.handler.messages == []
        await raw.close()

    on_net(body)


@pytest.mark.parametrize("stage", ["nothing", "bytewise", "after open", "after hello"])
def test_whoever_is_slow_in_the_handshake_is_cut_off(stage: str) -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        raw = await Raw.dial(made.ports[2])
        handshake = shaking(hello_of(1))
        opening = handshake.begin()
        if stage == "bytewise":
            for byte in opening:  # a sign of life at each tick, and never a whole frame
                ticks = two.peers._tick_handle
                raw.writer.write(bytes([byte]))
                await until(lambda ticks=ticks: two.peers._tick_handle is not ticks)
                if two.count["closed_timeout"]:
                    break
        elif stage != "nothing":
            raw.writer.write(opening)
            frame = await raw.frame()
            assert frame is not None
            if stage == "after hello":
                raw.writer.write(handshake.receive(*frame))
                assert await raw.frame() is not None
        assert await raw.is_closed()
        assert two.count["closed_timeout"] == 1 and two.count["strangers"] == 0
        await raw.close()

    on_net(body)


def test_a_dialled_node_that_never_answers_is_given_up() -> None:
    async def body(made: Net) -> None:
        async def mute(raw: Raw) -> None:
            while await raw.frame() is not None:
                pass

        async with fake(made.sockets.pop(2), mute):
            one = await made.start(1, to=(1, 2))
            await until(lambda: one.count["closed_timeout"] >= 2)
            assert one.peers.peer_statistics()[2]["reason"] == "the handshake took too long"

    on_net(body)


def test_a_crowd_of_strangers_does_not_keep_a_peer_out() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2, timing=LASTING)
        crowd = [await Raw.dial(made.ports[2]) for _ in range(limits.PEER_STRANGERS_MAX + 10)]
        await until(lambda: two.count["closed_crowd"] == 10)
        assert two.count["strangers"] == limits.PEER_STRANGERS_MAX
        raw = await Raw.dial(made.ports[2])
        assert (await raw.shake(shaking(hello_of(1)))).is_done
        await until(lambda: two.count["peers_up_incoming"] == 1)
        assert await crowd[0].is_closed(), "the oldest went first"
        framers = [link._framer.capacity for link in two.peers._strangers]
        assert sum(framers) <= limits.PEER_STRANGERS_MAX * limits.PEER_HANDSHAKE_BYTES_MAX
        for each in (raw, *crowd):
            await each.close()

    on_net(body)


def test_a_secret_that_is_too_short_is_refused_at_once() -> None:
    async def body(made: Net) -> None:
        with pytest.raises(InvalidInputError, match="the same on every node"):
            await made.start(1, secret=SECRET[:15])

    asyncio.run(_alone(body))


async def _alone(body: object) -> None:
    made = Net()
    try:
        await body(made)  # type: ignore[operator]
    finally:
        await made.close()
