"""Readers that ask one node and no other, whoever leads: what a deposed leader might answer.

The SDK goes where the leader is, so a node that wrongly believes that it leads is hardly
asked by it in the moment that counts. A probe keeps a plain connection to each node, asks
it for linearizable totals all the time, and is cut off from none by the partitions between
nodes. Its reads are calls of the history like all others, and judged by the same checks.

Refuses to insist: what is not answered when its connection ends is forgotten.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from unimeter.periods import DAY_NS
from unimeter.sim.chance import Chance
from unimeter.sim.events import ACCOUNTS
from unimeter.sim.history import Call, History
from unimeter.sim.machines import CLIENT_PORT, Machine
from unimeter.sim.platform import START_NS
from unimeter.sim.process import Process
from unimeter.wire import v2
from unimeter.wire.failures import exception_of
from unimeter.wire.framer import VERSION_2, ResponseFramer, request_frame
from unimeter.wire.messages import ErrorReply, UsageQuery

if TYPE_CHECKING:
    from unimeter.sim.world import World

PAUSE_SECONDS = (0.05, 0.8)  # between two reads of one node
AROUND_NS = 90 * DAY_NS  # before and after the beginning: all events of a run


class Probe(asyncio.Protocol):
    """One connection to one node."""

    def __init__(self, name: str, history: History) -> None:
        self.history, self.name = history, name
        self.process = history.new_process(name)
        self.is_open = True
        self._framer = ResponseFramer()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, tuple[int, Call]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop says so."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """What was asked has no answer."""
        if self.is_open:
            self.is_open = False
            self.history.killed(self.name)

    def ask(self, query: UsageQuery) -> None:
        """Send a read."""
        assert self._transport is not None
        kind, payload = v2.encode_request(query)
        call = self.history.begin(self.name, self.process, "UsageQuery", request=query)
        self._calls[call.number] = kind, call
        self._transport.write(request_frame(VERSION_2, kind, call.number, payload))

    def data_received(self, data: bytes) -> None:
        """Answers, in any order."""
        self._framer.receive_data(data)
        while (frame := self._framer.next_frame()) is not None:
            known = self._calls.pop(frame.request_id, None)
            if frame.is_push or known is None:
                continue
            kind, call = known
            position, reply = v2.decode_response(kind, frame.status, frame.payload)
            if isinstance(reply, ErrorReply):
                call.response, call.position = reply, position
                self.history.fail(call, exception_of(reply))
            else:
                self.history.answer(call, reply, position)

    def close(self) -> None:
        """Ask no more."""
        if self._transport is not None and self.is_open:
            self._transport.abort()


class Probes:
    """A process that watches every node."""

    def __init__(self, world: World, chance: Chance, history: History, codes: list[str]) -> None:
        self.world, self.chance, self.history, self.codes = world, chance, history, codes
        self.process = Process("probe", "10.0.2.1", world.scheduler, chance.fork("process"))
        self.process.loop.network = world.network
        self.process.on_error = world.fail
        self._is_over = False
        self._open: list[Probe] = []

    def begin(self) -> None:
        """Watch each node."""
        for machine in self.world.machines.values():
            watch = self._watch(machine, self.chance.fork(machine.name))
            self.process.loop.call_soon(self.process.loop.create_task, watch)

    def end(self) -> None:
        """The world is healed: others see whether calls are answered."""
        self._is_over = True
        for probe in self._open:
            probe.close()

    async def _watch(self, machine: Machine, chance: Chance) -> None:
        while not self._is_over:
            probe = Probe(f"p{machine.node_id}", self.history)
            self._open.append(probe)
            await self._connect(probe, machine)
            while probe.is_open and not self._is_over:
                probe.ask(self._query(chance))
                await asyncio.sleep(_between(chance, *PAUSE_SECONDS))
            self._open.remove(probe)
            await asyncio.sleep(_between(chance, *PAUSE_SECONDS))

    async def _connect(self, probe: Probe, machine: Machine) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self.process.loop.create_connection(lambda: probe, machine.ip, CLIENT_PORT)
        except OSError:
            probe.connection_lost(None)

    def _query(self, chance: Chance) -> UsageQuery:
        account, code = chance.pick(ACCOUNTS), chance.pick(self.codes)
        return UsageQuery(
            account, code, START_NS - AROUND_NS, START_NS + AROUND_NS, linearizable=True
        )


def _between(chance: Chance, low: float, high: float) -> float:
    return low + (high - low) * chance.real()
