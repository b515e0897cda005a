"""What goes wrong, when, and how it ends.

Owns the schedule. Each fault that a seed has comes again and again, at drawn times; each is
undone after a while, and all are when the world heals: for everybody, or for a majority
while the others stay away. The kinds are in `fault_processes`, `fault_networks`,
`fault_raft` and `fault_disks`; a fault is a method whose name `options` draws.

Crashes, power cuts and partitions may hit every node at once, for they lose nothing that was
synced; what destroys durable bytes has a budget (`fault_disks`).
"""

from __future__ import annotations

from collections.abc import Callable

from unimeter.sim.chance import Chance
from unimeter.sim.fault_disks import DiskFaults
from unimeter.sim.scheduler import MILLISECOND


class Faults(DiskFaults):
    """The faults of one run."""

    def begin(self) -> None:
        """Let each fault of this seed come for the first time some time."""
        for name, mean in self.world.options.faults.items():
            self._plan(name, mean, self.chance.fork(name))

    def _plan(self, name: str, mean: int, chance: Chance) -> None:
        delay = chance.between(mean * MILLISECOND // 4, mean * MILLISECOND * 7 // 4)
        self.world.scheduler.after(delay, self._come, name, mean, chance)

    def _come(self, name: str, mean: int, chance: Chance) -> None:
        if self._is_over:
            return
        act: Callable[[Chance], str] = getattr(self, f"_{name}")
        what = act(chance)
        if what:
            self.counts[name] += 1
            self.world.story.tell("fault", "world", name, what)
        self._plan(name, mean, chance)

    def end(self, *, everybody: bool) -> None:
        """Undo everything; unless `everybody`, a minority stays down or cut off."""
        self._is_over = True
        self._reply_trap = False
        world = self.world
        world.network.cuts.clear()
        world.network.slow.clear()
        left_down = self._keep_away() if not everybody else set[int]()
        for node_id, machine in world.machines.items():
            machine.slow_disk = 1
            machine.disk.capacity = None
            machine.disk.fail_sync = machine.disk.fail_write = None
            machine.cut_in(-1, machine.kill)
            if world.options.nodes == 1:
                machine.disk.heal()
            if node_id not in left_down:
                machine.power_on()
                world.restart_later(machine)
                if machine.process is not None:
                    machine.process.paused_until_ns = 0

    def _keep_away(self) -> set[int]:
        """Let a minority stay away, dead or cut off; who must stay down."""
        world, how = self.world, self.world.options.minority
        if any(one.is_recovering for one in world.machines.values()):
            return set()  # a node that recovers needs all others
        count = (world.options.nodes - 1) // 2
        away = self.chance.sample(sorted(world.machines), count)
        leader = self._leader()
        if leader is not None and leader.node_id not in away and self.chance.hit(0.6):
            away[0] = leader.node_id
        world.story.tell("fault", "world", "minority", f"{how} {away}")
        if how == "killed":
            for node_id in away:
                world.machines[node_id].kill()
            return set(away)
        ips = [world.machines[node_id].ip for node_id in away]
        for one in ips:
            for other in self._node_ips:
                if other not in ips:
                    if how in ("cut off", "deaf"):
                        world.network.cuts.add((other, one))
                    if how in ("cut off", "mute"):
                        world.network.cuts.add((one, other))
        return set()
