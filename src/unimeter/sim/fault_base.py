"""What all faults share: the world, whom they choose, and how they are undone.

Owns no fault; the kinds of faults are classes on top of this one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from unimeter.raft.messages import LEADER
from unimeter.sim.chance import Chance
from unimeter.sim.machines import Machine
from unimeter.sim.scheduler import MILLISECOND

if TYPE_CHECKING:
    from unimeter.sim.world import World

SHORT_NS = (20 * MILLISECOND, 1500 * MILLISECOND)  # how long a fault lasts
LONG_NS = (200 * MILLISECOND, 5000 * MILLISECOND)
DARK_NS = (100 * MILLISECOND, 3000 * MILLISECOND)  # without power


class FaultBase:
    """Helpers of faults."""

    def __init__(self, world: World, chance: Chance) -> None:
        self.world, self.chance = world, chance
        self.counts: Counter[str] = Counter()
        self._is_over = False

    def _later(self, span: tuple[int, int], undo: Callable[[], object]) -> None:
        self.world.scheduler.after(self.chance.between(*span), undo)

    def _running(self) -> list[Machine]:
        return [one for one in self.world.machines.values() if one.is_running]

    def _ready(self) -> list[Machine]:
        return [one for one in self.world.machines.values() if one.is_ready]

    def _leader(self) -> Machine | None:
        leading = [one for one in self._ready() if one.node.replica.raft.role is LEADER]
        return max(leading, key=lambda one: one.node.replica.raft.term, default=None)

    def _victim(self, chance: Chance, machines: list[Machine]) -> Machine | None:
        """One of them, the leader more often than others."""
        leader = self._leader()
        if leader in machines and chance.hit(0.4):
            return leader
        return chance.pick(machines) if machines else None

    def _dark(self, machine: Machine, arrival: float) -> None:
        machine.power_cut(arrival)

        def back() -> None:
            machine.power_on()
            self.world.restart_later(machine)

        self._later(DARK_NS, back)

    def _arrival(self, chance: Chance) -> float:
        return chance.pick((0.0, 0.0, 0.3, 0.5, 0.8, 1.0))

    @property
    def _node_ips(self) -> list[str]:
        return [machine.ip for machine in self.world.machines.values()]
