"""Leaders that change at the worst time, and snapshots taken in the middle of it."""

from __future__ import annotations

from unimeter.raft.messages import LEADER
from unimeter.sim.chance import Chance
from unimeter.sim.fault_base import LONG_NS
from unimeter.sim.fault_networks import NetworkFaults
from unimeter.sim.machines import Machine
from unimeter.sim.scheduler import MILLISECOND


class RaftFaults(NetworkFaults):
    """Transfers, elections, leaders cut off."""

    def _transfer(self, chance: Chance) -> str:
        leader = self._leader()
        if leader is None or leader.process is None or self.world.options.nodes == 1:
            return ""
        target = chance.pick(sorted(self.world.machines))
        leader.process.loop.call_soon(leader.node.hand_over_lead, target)
        self.world.reach("leadership transferred")
        return f"{leader.name} to n{target}"

    def _elections(self, chance: Chance) -> str:
        """Several stand for election at once."""
        ready = [one for one in self._ready() if one.server is not None and one.server.cluster]
        if len(ready) < 2:
            return ""
        for machine in ready:
            raft = machine.node.replica.raft
            if raft.role is not LEADER and raft.lead:
                raft.forget_leader(raft.lead)
        for machine in chance.sample(ready, 2):
            assert machine.process is not None and machine.server is not None
            cluster = machine.server.cluster
            if cluster is not None and cluster.joining.is_active:
                machine.process.loop.call_soon(machine.node.stand_for_election)
        return "two"

    def _depose_a_slow_leader(self, chance: Chance) -> str:
        """A leader whose syncs take long is cut off, and its entries are overwritten meanwhile."""
        leader = self._leader()
        if leader is None or self.world.options.nodes == 1:
            return ""
        leader.slow_disk = chance.pick((100, 400, 1500))

        def mend() -> None:
            leader.slow_disk = 1

        self._later(LONG_NS, mend)
        others = [ip for ip in self._node_ips if ip != leader.ip]
        pairs = [(leader.ip, other) for other in others] + [(other, leader.ip) for other in others]
        self._later((1 * MILLISECOND, 300 * MILLISECOND), lambda: self._cut(pairs))
        return leader.name

    def _seesaw(self, chance: Chance) -> str:
        """Leaders come and go, each with entries that the next one lacks: the paper's figure 8."""
        if self.world.options.nodes == 1:
            return ""
        self._swing(chance.between(3, 6))
        return "some"

    def _swing(self, left: int) -> None:
        """Cut the leader off for a while with what it has just taken in; the next one after it."""
        leader = self._leader()
        if self._is_over or not left:
            return
        if leader is not None:
            pairs = [(leader.ip, ip) for ip in self._node_ips if ip != leader.ip]
            pairs += [(to, sender) for sender, to in pairs]
            cuts = self.world.network.cuts
            cuts.update(pairs)
            self._later((800 * MILLISECOND, 2500 * MILLISECOND),
                        lambda: cuts.difference_update(pairs))  # fmt: skip
        self._later((700 * MILLISECOND, 1600 * MILLISECOND), lambda: self._swing(left - 1))

    def _snapshot(self, chance: Chance) -> str:
        ready = self._ready()
        if not ready:
            return ""
        machine = chance.pick(ready)
        assert machine.process is not None
        machine.process.loop.call_soon(_snapshot, machine)
        if self.world.network.cuts:
            self.world.reach("snapshot during partition")
        return machine.name


def _snapshot(machine: Machine) -> None:
    """What the upkeep does when the log is long enough."""
    if machine.is_ready:
        machine.node.upkeep.snapshot_log_bytes, usual = 0, machine.node.upkeep.snapshot_log_bytes
        machine.node.tick()
        machine.node.tick()
        machine.node.upkeep.snapshot_log_bytes = usual
