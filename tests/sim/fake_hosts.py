"""A scheduler, a network and processes without servers, for the tests of the lower layers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from unimeter.sim.chance import Chance
from unimeter.sim.network import Network
from unimeter.sim.process import Process
from unimeter.sim.scheduler import SECOND, Scheduler
from unimeter.sim.story import Story
from unimeter.sim.transport import FakeSocket, SimTransport


class Hosts:
    """Everything below the server."""

    def __init__(self, seed: int = 1) -> None:
        self.scheduler, self.chance = Scheduler(), Chance(seed)
        self.story = Story(keep=True, clock=lambda: self.scheduler.now_ns)
        self.network = Network(self.scheduler, self.chance.fork("network"), self.story)
        self.errors: list[BaseException] = []

    def process(self, number: int = 1) -> Process:
        """A process on a host of its own."""
        chance = self.chance.fork(f"process {number}")
        process = Process(f"n{number}", f"10.0.0.{number}", self.scheduler, chance)
        process.loop.network = self.network
        process.on_error = self.errors.append
        return process

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> bool:
        """Let things happen until it holds; False where the time is over first."""
        end = self.scheduler.now_ns + int(seconds * SECOND)
        while not condition():
            if self.scheduler.now_ns > end or not self.scheduler.step():
                return condition()
        return True

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        over: list[bool] = []
        self.scheduler.after(int(seconds * SECOND), over.append, True)
        self.until(lambda: bool(over), seconds + 1)

    def task(self, process: Process, coro: Coroutine[Any, Any, Any]) -> list[Any]:
        """Start a coroutine in a process; its result or exception will be the one item."""
        found: list[Any] = []

        async def inside() -> None:
            try:
                found.append(await coro)
            except Exception as error:
                found.append(error)

        process.loop.call_soon(lambda: process.loop.create_task(inside()))
        return found


class Ear(asyncio.Protocol):
    """A protocol that remembers what it was told."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.calls: list[str] = []
        self.error: BaseException | None = None
        self.transport: SimTransport

    @property
    def heard(self) -> bytes:
        return b"".join(self.chunks)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimTransport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)

    def eof_received(self) -> None:
        self.calls.append("end")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self.calls.append("lost")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


class Pair:
    """A connection from host 1 to host 2, and both its ends."""

    def __init__(self, hosts: Hosts, port: int = 7001) -> None:
        self.hosts = hosts
        self.near_process, self.far_process = hosts.process(1), hosts.process(2)
        self.near, self.far = Ear(), Ear()
        self.listener = hosts.network.listen(
            self.far_process, lambda: self.far, FakeSocket(("10.0.0.2", port))
        )
        self.connecting = hosts.task(
            self.near_process,
            self.near_process.loop.create_connection(lambda: self.near, "10.0.0.2", port),
        )

    def made(self) -> Pair:
        """Wait until both ends are told."""
        assert self.hosts.until(lambda: bool(self.near.calls and self.far.calls))
        return self

    def say(self, *chunks: bytes) -> None:
        """From host 1 to host 2, one write each, in one turn."""
        for chunk in chunks:
            self.near_process.loop.call_soon(self.near.transport.write, chunk)
