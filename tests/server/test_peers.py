"""Nodes that reach each other over real sockets: links, messages, loss and return."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.server.peernet import Net, net, until

from unimeter.raft.messages import MSG_APP, MSG_APP_RESP, MSG_HEARTBEAT, Entry, Message
from unimeter.wire.peer import FORWARD, STATUS

Body = Callable[[Net], Awaitable[None]]


def loops() -> list[str]:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return ["asyncio"]
    return ["asyncio", "uvloop"]


def on_net(body: Body, loop: str = "asyncio") -> None:
    async def inside() -> None:
        async with net() as made:
            await body(made)

    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(inside())


@pytest.mark.parametrize("loop", loops())
def test_three_nodes_reach_each_other_and_messages_arrive_in_order(loop: str) -> None:
    async def body(made: Net) -> None:
        nodes = [await made.start(n) for n in (1, 2, 3)]
        await until(lambda: all(node.count["peers_up"] == 2 for node in nodes))
        assert sorted(nodes[0].handler.ups) == [2, 3]
        body_bytes = bytes(range(256)) * 2000
        for n in range(1, 101):
            entries = [Entry(n, 7, 3, 5 * n, body_bytes[: 5 * n * n])]
            nodes[0].peers.send(Message(MSG_APP, 2, 1, 7, 6, n - 1, entries, n - 1))
            nodes[0].peers.send(Message(MSG_HEARTBEAT, 3, 1, 7, context=b"%d" % n))
        await until(lambda: len(nodes[1].handler.messages) == 100)
        await until(lambda: len(nodes[2].handler.messages) == 100)
        for n, message in enumerate(nodes[1].handler.messages, 1):
            assert message == Message(
                MSG_APP, 2, 1, 7, 6, n - 1, [Entry(n, 7, 3, 5 * n, body_bytes[: 5 * n * n])], n - 1
            )
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
