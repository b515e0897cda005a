"""A network that loses, delays and divides, and clocks that jump."""

from __future__ import annotations

from unimeter.sim.chance import Chance
from unimeter.sim.fault_base import LONG_NS, FaultBase
from unimeter.sim.scheduler import MILLISECOND, SECOND


class NetworkFaults(FaultBase):
    """Cuts, resets and slow hosts. What befalls single frames is the `network`'s weather."""

    def _cut(self, pairs: list[tuple[str, str]]) -> None:
        cuts = self.world.network.cuts
        cuts.update(pairs)
        for sender, to in pairs:
            self.world.story.tell("cut", sender, to)
        self._later(LONG_NS, lambda: cuts.difference_update(pairs))

    def _partition(self, chance: Chance) -> str:
        """Some nodes, and perhaps some clients, apart from all others."""
        ips = self._node_ips
        if len(ips) < 2:
            return ""
        group = chance.sample(ips, chance.between(1, len(ips) - 1))
        others = [ip for ip in ips if ip not in group]
        others += [ip for ip in self.world.people.ips if chance.hit(0.5)]
        self._cut([pair for a in group for b in others for pair in ((a, b), (b, a))])
        leader = self._leader()
        if leader is not None and leader.ip in group and 2 * len(group) < len(ips):
            self.world.reach("leader cut off with a minority")
        return f"{group} from {others}"

    def _one_way(self, chance: Chance) -> str:
        ips = self._node_ips
        if len(ips) < 2:
            return ""
        group = chance.sample(ips, chance.between(1, len(ips) - 1))
        self._cut([(a, b) for a in group for b in ips if b not in group])
        return f"from {group}"

    def _partial(self, chance: Chance) -> str:
        """Two hosts can't hear each other, all else can."""
        hosts = self._node_ips + self.world.people.ips
        one, other = chance.pick(self._node_ips), chance.pick(hosts)
        if one == other:
            return ""
        self._cut([(one, other), (other, one)])
        return f"{one} and {other}"

    def _reset(self, chance: Chance) -> str:
        hosts = self._node_ips + self.world.people.ips
        one, other = chance.pick(self._node_ips), chance.pick(hosts)
        count = self.world.network.break_connections(one, other)
        return f"{count} between {one} and {other}" if count else ""

    def _slow_link(self, chance: Chance) -> str:
        ip = chance.pick(self._node_ips)
        self.world.network.slow[ip] = chance.pick((5, 50, 300)) * MILLISECOND
        self._later(LONG_NS, lambda: self.world.network.slow.pop(ip, None))
        return ip

    def _clock_jump(self, chance: Chance) -> str:
        machine = chance.pick(list(self.world.machines.values()))
        jump = chance.pick((-3600, -60, -1, 1, 60, 3600)) * SECOND
        machine.skew_ns += jump
        self.world.reach("clock jumped")
        return f"{machine.name} by {jump // SECOND} s"
