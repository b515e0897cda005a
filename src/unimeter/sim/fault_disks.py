"""Disks that are slow, full, fail, lie or are lost; and how many may at once.

Owns the budget of what destroys durable bytes (rot, a misdirected write, a lost disk): a
minority of the disks may be damaged at a time, so that a good copy of every committed entry
is left; a disk is lost only while all others are there and hear each other, because
`unimeter recover` needs them. A node that is alone has nobody to repair it: its damage is
found, refused, and made good by the operator, who has a copy.
"""

from __future__ import annotations

from collections.abc import Callable

from unimeter.sim.chance import Chance
from unimeter.sim.disk import SimDisk
from unimeter.sim.fault_base import LONG_NS, SHORT_NS
from unimeter.sim.fault_processes import ProcessFaults
from unimeter.sim.fault_raft import RaftFaults
from unimeter.sim.machines import Machine
from unimeter.types import Membership

REFUSALS_MAX = 3  # starts that a damaged disk refuses; then the operator takes a new one


class DiskFaults(ProcessFaults, RaftFaults):
    """Everything that a disk does wrong; what it loses in a power cut is `disk`'s."""

    def _slow_disk(self, chance: Chance) -> str:
        machine = chance.pick(list(self.world.machines.values()))
        machine.slow_disk = chance.pick((5, 30, 150))

        def mend() -> None:
            machine.slow_disk = 1

        self._later(LONG_NS, mend)
        return machine.name

    def _full_disk(self, chance: Chance) -> str:
        machine = self._victim(chance, list(self.world.machines.values()))
        if machine is None or machine.disk.capacity is not None:
            return ""
        machine.disk.capacity = machine.disk.used_bytes() + chance.pick((0, 0, 1000, 6000))
        self.world.reach("disk full")

        def free() -> None:
            machine.disk.capacity = None

        self._later(LONG_NS, free)
        return machine.name

    def _sync_fails(self, chance: Chance) -> str:
        def failed(machine: Machine) -> None:
            if self.chance.hit(0.5):  # what the kernel took for clean goes, while it matters
                self._later(SHORT_NS, lambda: self._dark(machine, 0.0))

        return self._fail_once(chance, "fail_sync", "sync failed", failed)

    def _write_fails(self, chance: Chance) -> str:
        return self._fail_once(chance, "fail_write", "write failed", lambda machine: None)

    def _fail_once(
        self, chance: Chance, hook: str, situation: str, then: Callable[[Machine], None]
    ) -> str:
        """Have the next such operation of a process fail; `then` follows at once."""
        machine = self._victim(chance, self._ready())
        if machine is None:
            return ""
        starts = machine.starts

        def fails(path: str) -> bool:
            if machine.starts != starts:
                return False
            setattr(machine.disk, hook, None)
            machine.disk_erred = True
            self.world.reach(situation)
            then(machine)
            return True

        setattr(machine.disk, hook, fails)
        return machine.name

    def _rot(self, chance: Chance) -> str:
        return self._damage(chance, lambda disk: disk.rot(chance=chance))

    def _misdirect(self, chance: Chance) -> str:
        return self._damage(chance, lambda disk: disk.misdirect(chance=chance))

    def _damage(self, chance: Chance, act: Callable[[SimDisk], str]) -> str:
        """Destroy durable bytes, as far as the budget allows."""
        candidates = [one for one in self.world.machines.values() if one.was_ready]
        machine = self._victim(chance, candidates)
        if machine is None or not self._may_damage(machine):
            return ""
        what = act(machine.disk)
        machine.was_damaged |= bool(what)
        return f"{machine.name} {what}" if what else ""

    def _lose_disk(self, chance: Chance) -> str:
        machine = chance.pick(list(self.world.machines.values()))
        if not machine.was_ready or not self._may_lose(machine):
            return ""
        machine.kill()
        machine.lose_disk()
        self.world.restart_later(machine)
        if chance.hit(0.5):
            self._later(SHORT_NS, lambda: self._disturb_recovery(machine))
        return machine.name

    def _disturb_recovery(self, machine: Machine) -> None:
        """While a node recovers the leader goes, and others stand for election."""
        if self._is_over or not machine.is_recovering:
            return
        leader = self._leader()
        if leader is not None and self.chance.hit(0.5):
            leader.kill()
            self.world.restart_later(leader)
        self._elections(self.chance)

    # --- the budget -------------------------------------------------------------------

    def _may_damage(self, machine: Machine) -> bool:
        """Whether this disk may lose durable bytes: a minority is damaged at most."""
        machines = self.world.machines.values()
        damaged = [one for one in machines if one.damage or one.is_recovering]
        return machine in damaged or len(damaged) < max(1, (len(machines) - 1) // 2)

    def _may_lose(self, machine: Machine) -> bool:
        """All others are there, whole, and voters."""
        others = [one for one in self.world.machines.values() if one is not machine]
        if self.world.network.cuts:
            return False  # they have to hear each other
        return bool(others) and all(
            one.is_ready
            and not one.damage
            and one.node.opened.superblock.current.membership is Membership.VOTER
            for one in others
        )

    def damage_refused(self, machine: Machine, refusals: int) -> None:
        """A start is refused again and again: the operator acts."""
        if refusals < REFUSALS_MAX:
            return
        if self._may_lose(machine):
            machine.lose_disk()
        elif self.world.options.nodes == 1 or refusals > 4 * REFUSALS_MAX:
            self.world.reach("damage was refused and made good by the operator")
            machine.disk.heal()
