"""Two `Peers` in two processes: the round trip of a small message, and MB/s of large ones.

    python -m tests.server.peer_bench [asyncio|uvloop]

Not a test. The round trip is one append with a 100-byte entry answered by its reply,
one after the other; CPU is of one process, both directions of a round trip included.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from typing import Any

from tests.server.peernet import SECRET, Handler, free_socket

from unimeter.raft.messages import MSG_APP, MSG_APP_RESP, Entry, Message
from unimeter.server.peers import Peers

ROUNDS = 20_000
LARGE_BYTES = 256 * 1024
LARGE_COUNT = 4_000
WINDOW = 16


class Echo(Handler):
    """Answers every append."""

    peers: Peers

    def on_message(self, message: Message) -> None:
        if message.type == MSG_APP:
            self.peers.send(Message(MSG_APP_RESP, 1, 2, 7, index=message.index + 1))
        else:
            self.got(message)

    def got(self, message: Message) -> None:
        raise NotImplementedError


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run(node_id: int, listening: Any, ports: dict[int, int]) -> None:
    loop = asyncio.get_running_loop()
    handler = Echo(node_id)
    addresses = {n: ("127.0.0.1", port) for n, port in ports.items()}
    peers = Peers(loop, node_id, addresses, SECRET, handler, print)
    handler.peers = peers
    await peers.start(listening)
    while not peers.is_up(3 - node_id):
        await asyncio.sleep(0.01)
    if node_id == 2:
        while not handler.downs:
            await asyncio.sleep(0.01)
        print(f"  other side used {cpu_seconds():.2f} s of CPU in all")
        await peers.close()
        return
    await asyncio.sleep(0.3)
    await small(peers, handler)
    await large(peers, handler)
    await peers.close()


async def small(peers: Peers, handler: Echo) -> None:
    done = asyncio.get_running_loop().create_future()
    body = bytes(100)
    left = ROUNDS
    times: list[float] = []
    began = 0.0

    def send() -> None:
        nonlocal began
        began = time.perf_counter()
        peers.send(Message(MSG_APP, 2, 1, 7, 7, left, [Entry(left, 7, 3, 5, body)], left))

    def got(message: Message) -> None:
        nonlocal left
        times.append(time.perf_counter() - began)
        left -= 1
        if left:
            send()
        else:
            done.set_result(None)

    handler.got = got  # type: ignore[method-assign]
    cpu = cpu_seconds()
    send()
    await done
    cpu = cpu_seconds() - cpu
    times.sort()
    print(
        f"  round trip: p50 {times[ROUNDS // 2] * 1e6:.0f} us, "
        f"p99 {times[ROUNDS * 99 // 100] * 1e6:.0f} us, "
        f"CPU of this side {cpu / ROUNDS * 1e6:.0f} us"
    )


async def large(peers: Peers, handler: Echo) -> None:
    done = asyncio.get_running_loop().create_future()
    body = os.urandom(LARGE_BYTES)
    sent = answered = 0

    def pump() -> None:
        nonlocal sent
        while sent < LARGE_COUNT and sent - answered < WINDOW:
            sent += 1
            peers.send(Message(MSG_APP, 2, 1, 7, 7, sent, [Entry(sent, 7, 3, 5, body)], sent))

    def got(message: Message) -> None:
        nonlocal answered
        answered += 1
        if answered == LARGE_COUNT:
            done.set_result(None)
        else:
            pump()

    handler.got = got  # type: ignore[method-assign]
    cpu, began = cpu_seconds(), time.perf_counter()
    pump()
    await done
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    size = LARGE_BYTES * LARGE_COUNT / 1e6
    print(
        f"  256 KiB entries: {size / seconds:.0f} MB/s, CPU of this side {cpu / size * 1e3:.2f} ms "
        f"a MB"
    )


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "uvloop"
    factory: Any = asyncio.new_event_loop
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    sockets = {n: free_socket() for n in (1, 2)}
    ports = {n: each.getsockname()[1] for n, each in sockets.items()}
    print(kind, flush=True)
    child = os.fork()
    node_id = 1 if child else 2
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(node_id, sockets[node_id], ports))
    if child:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
