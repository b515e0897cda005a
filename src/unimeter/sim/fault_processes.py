"""Processes that end, and power that goes: what loses nothing that was synced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.raft.messages import LEADER
from unimeter.sim.chance import Chance
from unimeter.sim.fault_base import LONG_NS, FaultBase
from unimeter.sim.machines import Machine
from unimeter.sim.scheduler import MILLISECOND
from unimeter.sim.transport import SimTransport

if TYPE_CHECKING:
    from unimeter.sim.world import World

REPLY_BYTES_MIN = 40  # a shorter one acknowledges nothing


class ProcessFaults(FaultBase):
    """Kills, power cuts, restarts and pauses."""

    def __init__(self, world: World, chance: Chance) -> None:
        super().__init__(world, chance)
        self._reply_trap = False

    def _note_crash(self, machine: Machine) -> None:
        if not machine.is_ready:
            return
        replica = machine.node.replica
        if replica.raft.role is LEADER and replica.group.has_work:
            self.world.reach("leader crash between append and sync")

    def _kill(self, chance: Chance) -> str:
        machine = self._victim(chance, self._running())
        if machine is None:
            return ""
        self._note_crash(machine)
        machine.kill()
        self.world.restart_later(machine)
        return machine.name

    def _power_cut(self, chance: Chance) -> str:
        machine = self._victim(chance, self._running())
        if machine is None:
            return ""
        self._note_crash(machine)
        self._dark(machine, self._arrival(chance))
        return machine.name

    def _cut_in_a_write(self, chance: Chance) -> str:
        """The power goes, or the process is killed, before one of its next operations."""
        machine = self._victim(chance, self._running())
        if machine is None:
            return ""
        arrival, is_kill = self._arrival(chance), chance.hit(0.25)

        def cut() -> None:
            self._note_crash(machine)
            if is_kill:
                machine.kill()
                self.world.restart_later(machine)
            else:
                self._dark(machine, arrival)

        operations = chance.pick((0, 1, 2, 3, 5, 8, 13, 30, 80))
        machine.cut_in(operations, cut)
        return f"{machine.name} in {operations} operations"

    def _cut_in_a_removal(self, chance: Chance) -> str:
        """The power goes between two removals of files: retention, or a suffix of the log."""
        machine = self._victim(chance, self._running())
        if machine is None:
            return ""
        arrival = chance.pick((0.0, 0.3, 0.5, 0.8))
        machine.cut_in(
            chance.pick((0, 1, 1, 2, 3)), lambda: self._dark(machine, arrival), ("remove",)
        )
        return machine.name

    def _cut_at_a_reply(self, chance: Chance) -> str:
        """At the next reply to a client the power of a majority goes, and all it had not synced."""
        self._reply_trap = True
        return "armed"

    def on_reply(self, end: SimTransport, data: bytes) -> None:
        """A node writes to a client."""
        if not self._reply_trap or len(data) < REPLY_BYTES_MIN:
            return
        self._reply_trap = False
        end.out.push(data)  # the client still hears of it
        machines = list(self.world.machines.values())
        count = self.chance.between(len(machines) // 2 + 1, len(machines))
        self.world.reach("power lost at a reply")
        for machine in self.chance.sample(machines, count):
            self._note_crash(machine)
            self._dark(machine, 0.0)

    def _everybody_dark(self, chance: Chance) -> str:
        arrival = self._arrival(chance)
        for machine in self.world.machines.values():
            if machine.is_powered:
                self._note_crash(machine)
                self._dark(machine, arrival)
        self.world.reach("whole cluster lost power")
        return f"{arrival:.1f} arrives"

    def _restart_in_order(self, chance: Chance) -> str:
        ready = self._ready()
        if not ready:
            return ""
        machine = chance.pick(ready)
        machine.stop()
        self._later(LONG_NS, machine.start)
        return machine.name

    def _rolling_restart(self, chance: Chance) -> str:
        if len(self._ready()) < self.world.options.nodes:
            return ""
        self._roll(sorted(self.world.machines))
        return "all"

    def _roll(self, left: list[int]) -> None:
        """Stop one, wait until it is back, go on with the next."""
        if not left or self._is_over:
            if not left:
                self.world.reach("rolling restart")
            return
        machine = self.world.machines[left[0]]
        starts = machine.starts
        machine.stop()

        def look() -> None:
            if not machine.is_running:
                machine.start()
            if machine.is_ready and machine.starts > starts:
                self._roll(left[1:])
            elif not self._is_over:
                self.world.scheduler.after(100 * MILLISECOND, look)

        self.world.scheduler.after(100 * MILLISECOND, look)

    def _pause(self, chance: Chance) -> str:
        machine = self._victim(chance, self._running())
        if machine is None or machine.process is None:
            return ""
        duration = chance.between(*LONG_NS)
        machine.process.pause(self.world.scheduler.now_ns + duration)
        self.world.reach("process paused")
        self.world.story.tell("pause", machine.name, f"{duration / 1e9:.3f}")
        return machine.name

    def _kill_client(self, chance: Chance) -> str:
        return self.world.people.kill_one(chance)
