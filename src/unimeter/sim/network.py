"""The fake network: who can reach whom, and connections that behave like TCP's.

Owns listeners, the making of connections, and what is wrong with the network at the moment.
What travels on a connection is `pipe`'s; an end of one is `transport`'s.

    a cut, one way or both      segments wait and are sent again; after a while the sender
                                gives up (reset by timeout), as kernels do
    a host without power        says nothing at all: connecting hangs, connections stay open
    a process that ended        its host refuses: connecting is refused, connections are reset

Between nodes, frames of the Raft protocol can also be lost, doubled and overtaken, which
TCP would not do and Raft must bear; any frame can have a flipped bit, which a checksum must
find. Clients' frames have no checksum of their own, so theirs stay whole.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unimeter.sim.chance import Chance
from unimeter.sim.pipe import connection_reset
from unimeter.sim.scheduler import MICROSECOND, MILLISECOND, Scheduler
from unimeter.sim.story import Story
from unimeter.sim.transport import FakeSocket, SimTransport

if TYPE_CHECKING:
    from unimeter.sim.process import Process

SYN_AGAIN_NS = 300 * MILLISECOND  # a connection that nobody answers is asked for again
KEEPALIVE_NS = (15_000 * MILLISECOND, 30_000 * MILLISECOND)  # as the SDK sets it
PEER_PORT = 7101


@dataclass
class Weather:
    """What is wrong with the network; rates are per frame or per connection's chunk."""

    latency_ns: tuple[int, int] = (50 * MICROSECOND, 500 * MICROSECOND)
    lost: float = 0.0  # Raft frames
    doubled: float = 0.0  # Raft frames
    asked_twice: float = 0.0  # what a client of version 2 sends arrives twice
    overtaken: float = 0.0  # Raft frames
    flipped: float = 0.0  # frames between nodes
    split: float = 0.0  # chunks read in two parts
    reset: float = 0.0  # connections that break, per chunk
    timeout_ns: tuple[int, int] = (3000 * MILLISECOND, 8000 * MILLISECOND)


@dataclass(frozen=True)
class Listener:
    """Who takes connections at an address."""

    process: Process
    factory: Callable[[], Any]
    socket: FakeSocket


class SimServer:
    """What create_server returns."""

    def __init__(self, network: Network, listener: Listener) -> None:
        self._network, self._listener = network, listener

    def close(self) -> None:
        """Take no more connections."""
        self._network.unlisten(self._listener)

    async def wait_closed(self) -> None:
        """Nothing to wait for."""


class Network:
    """All hosts and connections."""

    def __init__(self, scheduler: Scheduler, chance: Chance, story: Story) -> None:
        self.scheduler, self.chance, self.story = scheduler, chance, story
        self.weather = Weather()
        self.cuts: set[tuple[str, str]] = set()  # (from, to): nothing arrives
        self.dark: set[str] = set()  # hosts without power
        self.slow: dict[str, int] = {}  # nanoseconds more for what a host sends
        self.counts: dict[str, int] = {}
        self.on_write: Callable[[SimTransport, bytes], None] = lambda end, data: None
        self._listeners: dict[tuple[str, int], list[Listener]] = {}
        self._ends: dict[SimTransport, None] = {}
        self._number = 0

    # --- what is wrong ---------------------------------------------------------------

    def is_cut(self, sender: str, to: str) -> bool:
        """Whether nothing arrives from one host at another."""
        return (sender, to) in self.cuts or sender in self.dark or to in self.dark

    def latency_ns(self, sender: str) -> int:
        """How long something takes that leaves a host now."""
        return self.chance.between(*self.weather.latency_ns) + self.slow.get(sender, 0)

    def count(self, what: str) -> None:
        """Something happened that a report may name."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def next_number(self) -> int:
        """For a chunk on its way."""
        self._number += 1
        return self._number

    # --- listening and connecting --------------------------------------------------------

    def listen(self, process: Process, factory: Callable[[], Any], sock: FakeSocket) -> SimServer:
        """Take connections from now on; of several at one address the first that is open."""
        listener = Listener(process, factory, sock)
        self._listeners.setdefault(sock.name, []).append(listener)
        return SimServer(self, listener)

    def unlisten(self, listener: Listener) -> None:
        """Take no more connections there."""
        at = self._listeners.get(listener.socket.name, [])
        if listener in at:
            at.remove(listener)

    def is_bound(self, name: tuple[str, int]) -> bool:
        """Whether a living process listens there."""
        return any(not one.process.is_dead for one in self._listeners.get(name, []))

    async def connect(
        self, process: Process, factory: Callable[[], Any], host: str, port: int
    ) -> tuple[SimTransport, Any]:
        """Connect, as `loop.create_connection` does: waits as long as nobody answers."""
        found: asyncio.Future[tuple[SimTransport, Any]] = process.loop.create_future()
        delay = self.latency_ns(process.ip)
        self.scheduler.at(
            process.now_ns + delay, self._knock, process, factory, (host, port), found
        )
        return await found

    def _knock(
        self,
        process: Process,
        factory: Callable[[], Any],
        name: tuple[str, int],
        found: asyncio.Future[tuple[SimTransport, Any]],
    ) -> None:
        """The first segment arrives, or is lost and sent again."""
        if process.is_dead or found.done():
            return
        host = name[0]
        if self.is_cut(process.ip, host) or self.is_cut(host, process.ip):
            self.scheduler.after(SYN_AGAIN_NS, self._knock, process, factory, name, found)
            return
        listeners = [one for one in self._listeners.get(name, []) if not one.process.is_dead]
        delay = self.latency_ns(host)
        if not listeners:
            error = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            self.scheduler.after(delay, self._refuse, process, found, error)
            return
        listener = listeners[-1]
        near = SimTransport(self, process, factory(), FakeSocket((process.ip, 40000)), name)
        far = SimTransport(
            self, listener.process, listener.factory(), listener.socket, (process.ip, 40000)
        )
        near.join(far, is_peer=name[1] == PEER_PORT)
        self._ends[near] = self._ends[far] = None
        listener.process.loop.call_soon(far.made)
        self.scheduler.after(delay, self._made, process, near, found)

    def _refuse(self, process: Process, found: asyncio.Future[Any], error: BaseException) -> None:
        if not process.is_dead:
            process.loop.call_soon(_set_error, found, error)

    def _made(
        self,
        process: Process,
        near: SimTransport,
        found: asyncio.Future[tuple[SimTransport, Any]],
    ) -> None:
        """The connection stands for who asked for it."""

        def tell() -> None:
            if found.done():  # it gave up meanwhile
                near.abort()
                return
            near.made()
            found.set_result((near, near.get_protocol()))

        if not process.is_dead:
            process.loop.call_soon(tell)

    def forget(self, end: SimTransport) -> None:
        """A connection's end is closed."""
        self._ends.pop(end, None)

    # --- ends of processes -----------------------------------------------------------------

    def process_died(self, process: Process, *, is_silent: bool) -> None:
        """Its sockets are closed by its kernel; with `is_silent` nobody hears of it."""
        for name, listeners in self._listeners.items():
            self._listeners[name] = [one for one in listeners if one.process is not process]
        for end in [one for one in self._ends if one.process is process]:
            end.vanish(is_silent=is_silent)
            if is_silent:  # the other kernel finds out by itself
                timeout = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                self.scheduler.after(self.chance.between(*KEEPALIVE_NS), end.peer.lose, timeout)

    def break_connections(self, ip: str, other: str) -> int:
        """Reset all connections between two hosts; how many."""
        ends = [e for e in self._ends if e.process.ip == ip and e.peer.process.ip == other]
        for end in ends:
            end.lose(connection_reset())
            end.peer.lose(connection_reset())
        return len(ends)


def _set_error(found: asyncio.Future[Any], error: BaseException) -> None:
    if not found.done():
        found.set_exception(error)
