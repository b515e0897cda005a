"""One entry for a node that is not up yet, over blocking sockets."""

from __future__ import annotations

import asyncio
import time

from tests.server.peernet import QUICK, SECRET, Net, Raw, fake, hello_of, on_net, shaking, until

from unimeter.raft.messages import Entry
from unimeter.server.peer_fetch import fetch_entry
from unimeter.wire.peer import FETCHED, frame_of
from unimeter.wire.peer_hello import Membership

ENTRY = Entry(41, 3, 3, 1_000, b"body" * 100_000)
RECOVERING = hello_of(1, membership=Membership.RECOVERING)


async def fetch(made: Net, index: int = 41, **options: object) -> tuple[Entry | None, list[str]]:
    """Ask as node 1 would, in another thread."""
    said: list[str] = []
    addresses = {n: ("127.0.0.1", port) for n, port in made.ports.items()}
    secret = options.pop("secret", SECRET)
    hello = options.pop("hello", RECOVERING)
    found = await asyncio.to_thread(
        fetch_entry, addresses, secret, hello, index, say=said.append, **options
    )
    return found, said


def test_the_first_peer_that_has_the_entry_gives_it() -> None:
    async def body(made: Net) -> None:
        two, three = await made.start(2), await made.start(3)
        three.handler.entries[41] = ENTRY
        found, said = await fetch(made)
        assert found == ENTRY
        assert said == [f"node 2 at 127.0.0.1:{made.ports[2]} has no entry 41 to give"]
        assert two.count["fetches_answered"] == three.count["fetches_answered"] == 1

    on_net(body)


def test_peers_that_are_not_there_are_passed_over() -> None:
    async def body(made: Net) -> None:
        three = await made.start(3)
        three.handler.entries[41] = ENTRY
        found, said = await fetch(made)
        assert found == ENTRY
        assert said == [f"node 2 at 127.0.0.1:{made.ports[2]} can't be asked: connection refused"]

    on_net(body)


def test_nobody_has_it() -> None:
    async def body(made: Net) -> None:
        await made.start(2)
        found, said = await fetch(made)
        assert found is None and len(said) == 2

    on_net(body)


def test_another_secret_gets_no_entry() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        two.handler.entries[41] = ENTRY
        found, said = await fetch(made, secret=b"another secret, long enough")
        assert found is None and "it closed the connection" in said[0]
        assert two.count["closed_proof"] == 1

    on_net(body)


def test_a_refusal_is_passed_on() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        two.handler.judgement = "node 1 was replaced"
        found, said = await fetch(made)
        assert found is None and said[0].endswith("can't be asked: node 1 was replaced")
        found, said = await fetch(made, hello=hello_of(1, cluster_id=b"x" * 16))
        assert found is None and "belongs to cluster" in said[0]

    on_net(body)


def test_a_silent_peer_leaves_the_others_their_time() -> None:
    async def body(made: Net) -> None:
        async def mute(raw: Raw) -> None:
            while await raw.frame() is not None:
                pass

        async with fake(made.sockets.pop(2), mute):
            three = await made.start(3, to=(1, 3))
            three.handler.entries[41] = ENTRY
            began = time.monotonic()
            found, said = await fetch(made, timeout=1.0)
            assert found == ENTRY
            assert said[0].endswith("can't be asked: no answer in time")
            assert time.monotonic() - began < 5

    on_net(body)


def test_another_entry_than_the_one_asked_for_is_not_taken() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        two.handler.fetch = lambda index: ENTRY  # type: ignore[method-assign]
        found, said = await fetch(made, index=40)
        assert found is None and said[0].endswith("entry 41 instead of 40")

    on_net(body)


def test_an_answer_that_is_cut_or_damaged_is_not_taken() -> None:
    async def body(made: Net) -> None:
        answers = [frame_of(FETCHED, bytes(100))[:-1] + b"x", frame_of(FETCHED, bytes(40))[:30]]

        async def wrong(raw: Raw) -> None:
            await raw.shake(shaking(hello_of(2), is_dialler=False))
            await raw.frame()
            raw.writer.write(answers.pop())
            await raw.writer.drain()

        async with fake(made.sockets.pop(2), wrong):
            _, cut = await fetch(made)
            _, damaged = await fetch(made)
        assert "it closed the connection" in cut[0]
        assert "does not match its checksum" in damaged[0]

    on_net(body)


def test_a_node_that_fetched_can_join_afterwards() -> None:
    async def body(made: Net) -> None:
        two = await made.start(2)
        two.handler.entries[41] = ENTRY
        found, _ = await fetch(made)
        assert found == ENTRY
        one = await made.start(1, timing=QUICK)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))

    on_net(body)
