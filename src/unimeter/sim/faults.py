"""What goes wrong, when, and how much may go wrong at once.

Owns the schedule of faults and their budget. Each fault that a seed has comes again and
again, at drawn times; each is undone after a while, and all are when the world heals.

The budget is what the promises are about: crashes, power cuts and partitions may hit every
node at once, for they lose nothing that was synced. What destroys durable bytes (rot, a
misdirected write, a lost disk) may be outstanding on a minority of the disks only, so that
a good copy of every committed entry is left; a disk is lost only while all others are there,
because `unimeter recover` needs them. A node that is alone has nobody to repair it: its
damage is found, refused, and made good by the operator, who has a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from unimeter.raft.messages import LEADER
from unimeter.sim.chance import Chance
from unimeter.sim.machines import Machine
from unimeter.sim.scheduler import MILLISECOND, SECOND
from unimeter.sim.transport import SimTransport
from unimeter.types import Membership

if TYPE_CHECKING:
    from unimeter.sim.world import World

SHORT_NS = (20 * MILLISECOND, 1500 * MILLISECOND)  # how long a fault lasts
LONG_NS = (200 * MILLISECOND, 5000 * MILLISECOND)
DARK_NS = (100 * MILLISECOND, 3000 * MILLISECOND)  # without power

REPLY_BYTES_MIN = 40  # a shorter one acknowledges nothing
REFUSALS_MAX = 3  # starts that a damaged disk refuses; then the operator takes a new one


class Faults:
    """The faults of one run."""

    def __init__(self, world: World, chance: Chance) -> None:
        self.world, self.chance = world, chance
        self.counts: Counter[str] = Counter()
        self._is_over = False
        self._reply_trap = False

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

    # --- helpers ----------------------------------------------------------------------

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

    # --- ends of processes -----------------------------------------------------------------

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

    @property
    def _node_ips(self) -> list[str]:
        return [machine.ip for machine in self.world.machines.values()]

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

    # --- network -------------------------------------------------------------------------------

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

    # --- disks -----------------------------------------------------------------------------------

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
        machine = self._victim(chance, self._ready())
        if machine is None:
            return ""
        starts = machine.starts

        def fails(path: str) -> bool:
            if machine.starts != starts:
                return False
            machine.disk.fail_sync = None
            machine.disk_erred = True
            self.world.reach("sync failed")
            if self.chance.hit(0.5):  # what the kernel took for clean goes, while it matters
                self._later(SHORT_NS, lambda: self._dark(machine, 0.0))
            return True

        machine.disk.fail_sync = fails
        return machine.name

    def _write_fails(self, chance: Chance) -> str:
        machine = self._victim(chance, self._ready())
        if machine is None:
            return ""
        starts = machine.starts

        def fails(path: str) -> bool:
            if machine.starts != starts:
                return False
            machine.disk.fail_write = None
            machine.disk_erred = True
            self.world.reach("write failed")
            return True

        machine.disk.fail_write = fails
        return machine.name

    def _may_damage(self, machine: Machine) -> bool:
        """Whether this disk may lose durable bytes: a minority is damaged at most."""
        machines = self.world.machines.values()
        damaged = [one for one in machines if one.damage or one.is_recovering]
        return machine in damaged or len(damaged) < max(1, (len(machines) - 1) // 2)

    def _rot(self, chance: Chance) -> str:
        candidates = [one for one in self.world.machines.values() if one.was_ready]
        machine = self._victim(chance, candidates)
        if machine is None or not self._may_damage(machine):
            return ""
        what = machine.disk.rot(chance=chance)
        machine.was_damaged |= bool(what)
        return f"{machine.name} {what}" if what else ""

    def _misdirect(self, chance: Chance) -> str:
        candidates = [one for one in self.world.machines.values() if one.was_ready]
        machine = self._victim(chance, candidates)
        if machine is None or not self._may_damage(machine):
            return ""
        what = machine.disk.misdirect(chance=chance)
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

    # --- Raft --------------------------------------------------------------------------

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
