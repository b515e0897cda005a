"""The clients of a run: each a process of its own that can be killed and come back.

Owns where clients live (a host and a clock each) and what is checked of them; what they do is
`workload`'s, what must hold for it `client_checks`'. An acknowledgement is looked at here
once more, at the moment the client hears of it: is it on the disks of a majority?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.sim.chance import Chance
from unimeter.sim.client_checks import ClientChecks
from unimeter.sim.clients import SimClient
from unimeter.sim.history import ANSWER, Call, History
from unimeter.sim.machines import CLIENT_PORT
from unimeter.sim.platform import START_NS
from unimeter.sim.probes import Probes
from unimeter.sim.process import Process
from unimeter.sim.scheduler import MILLISECOND
from unimeter.sim.workload import Workload, WorkloadOptions
from unimeter.wire.messages import IngestReply

if TYPE_CHECKING:
    from unimeter.sim.world import World

BACK_NS = (50 * MILLISECOND, 1000 * MILLISECOND)  # until a killed client is started again


class People:
    """All clients."""

    def __init__(self, world: World, chance: Chance) -> None:
        self.world, self.chance = world, chance
        options = world.options
        self.history = History(clock=lambda: world.scheduler.now_ns, story=world.story)
        addresses = [f"{machine.ip}:{CLIENT_PORT}" for machine in world.machines.values()]
        self.workload = Workload(
            chance.fork("workload"),
            self.history,
            addresses,
            WorkloadOptions(
                clients=options.clients,
                calls=options.calls,
                seconds=options.safety_ms / 1000,
                nodes=options.nodes,
            ),
        )
        self.checks = ClientChecks(
            self.history,
            world.auditor,
            may_be_damaged=bool({"rot", "misdirect"} & set(options.faults)),
        )
        self.history.on_end.append(self._ended)
        codes = list(self.workload.catalog.stable)
        self.probes = Probes(world, chance.fork("probes"), self.history, codes)
        self.ips = [f"10.0.1.{n}" for n in range(1, len(self.workload.clients) + 1)]
        skews = chance.fork("clocks")
        self._skews = [skews.between(-options.skew_ns, options.skew_ns) for _ in self.ips]
        self._processes: dict[str, Process] = {}
        self._starts = 0

    def begin(self) -> None:
        """Start every client."""
        for client in self.workload.clients:
            client.on_error = self.world.fail
            self._start(client)
        if self.world.options.has_probes:
            self.probes.begin()

    def _start(self, client: SimClient) -> None:
        if client.is_running:
            return
        number = self.workload.clients.index(client)
        self._starts += 1
        process = Process(
            client.name,
            self.ips[number],
            self.world.scheduler,
            self.chance.fork(f"process {self._starts}"),
        )
        process.loop.network = self.world.network
        process.on_error = self.world.fail
        self._processes[client.name] = process
        skew = self._skews[number]
        self.world.story.tell("start", client.name)
        client.start(process.loop, lambda: START_NS + process.now_ns + skew)

    def kill_one(self, chance: Chance) -> str:
        """Kill a client's process; it comes back with another one."""
        running = [one for one in self.workload.clients if one.is_running]
        if not running:
            return ""
        client = chance.pick(running)
        process = self._processes[client.name]
        self.world.story.tell("kill", client.name)
        if any(call.is_open and call.client == client.name for call in self.history.calls):
            self.world.reach("client killed in a call")
        self.world.bury(None, process)
        process.die()
        self.world.network.process_died(process, is_silent=chance.hit(0.3))
        client.killed()
        self.world.scheduler.after(chance.between(*BACK_NS), self._start, client)
        return client.name

    def _ended(self, call: Call) -> None:
        """A client has an answer: is it on the disks of a majority at this very moment?"""
        reply = call.response
        if isinstance(reply, IngestReply) and call.outcome == ANSWER:
            self.world.acknowledged(call.position)
            if reply.is_remembered:
                self.world.reach("remembered reply")

    def healed(self) -> None:
        """Nothing goes wrong any more."""
        self.probes.end()
        self.workload.healed()
        self.checks.healed()

    @property
    def is_done(self) -> bool:
        """Whether everybody has done what they wanted."""
        return self.workload.is_done

    @property
    def calls_ended(self) -> int:
        """Calls that have an outcome."""
        return len(self.history.ended)

    def check_end(self) -> None:
        """Everything that is committed has been audited: the last word on every call."""
        self.workload.check_invariants()
        self.checks.at_end()
