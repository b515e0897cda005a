"""The world of one run: machines, network, clients, what befalls them, and who checks.

Owns the phases of a run and the only list of what is checked when:

    safety     clients work, faults happen, after every step the promises are checked
    healing    faults end, a majority (or all) of the machines are mended
    liveness   every call ends within its bound
    the end    all are mended; replicas agree, everything equals the model, disks verify

The first broken promise ends the run. Refuses to know how a fault is done (`faults`), what a
client wants (`workload`) and what the right answer is (`auditor`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from unimeter.engine.applied import Applied
from unimeter.errors import DataError, DiskFullError, FatalStorageError
from unimeter.raft.messages import Entry
from unimeter.server.members import Members, members_of
from unimeter.server.node import Node
from unimeter.sim import replica_checks
from unimeter.sim.auditor import Auditor
from unimeter.sim.chance import Chance
from unimeter.sim.claims import ClaimsAreDurable, CommitsAreRight
from unimeter.sim.disk import shown
from unimeter.sim.failures import CheckFailed
from unimeter.sim.faults import Faults
from unimeter.sim.machines import Machine
from unimeter.sim.network import Network, Weather
from unimeter.sim.options import Options
from unimeter.sim.people import People
from unimeter.sim.platform import DATA_DIR, START_NS
from unimeter.sim.process import Process
from unimeter.sim.receivers import Receivers
from unimeter.sim.scheduler import MILLISECOND, SECOND, Scheduler
from unimeter.sim.situations import Situations
from unimeter.sim.story import Story
from unimeter.sim.transport import SimTransport
from unimeter.storage.verify import verify

RESTART_NS = (50 * MILLISECOND, 1500 * MILLISECOND)  # a supervisor starts what has stopped
STEPS_BETWEEN_LOOKS = 8  # whether a phase is over; a look costs as much as a step
STEPS_MAX = 3_000_000  # of one run; more is a circle
AUDITED_STARTS = 0.03  # of all: a whole audit takes a hundred times as long as a hash
AUDITED_ENDS = 0.5  # besides, all that an entry touches is audited as it is counted
LIVENESS_SECONDS = 120  # virtual, for all calls together once the world is healed


class World:
    """Everything there is."""

    def __init__(self, chance: Chance, options: Options, story: Story) -> None:
        self.chance, self.options, self.story = chance, options, story
        self.scheduler = Scheduler()
        story.clock = lambda: self.scheduler.now_ns
        self.network = Network(self.scheduler, chance.fork("network"), story)
        self.network.weather = options.weather
        self.failure: BaseException | None = None
        self.reached: Counter[str] = Counter()
        self.is_healed = False
        self._graves: list[Any] = []  # of the dead: nothing of them may be finalised meanwhile
        self._operator_acts = 0
        self.machines = {
            n: Machine(self, n, options, chance.fork(f"machine {n}"))
            for n in range(1, options.nodes + 1)
        }
        skews = chance.fork("clocks")
        for machine in self.machines.values():
            machine.skew_ns = skews.between(-options.skew_ns, options.skew_ns)
        self.auditor = Auditor(session_window=options.session_window)
        self.log = replica_checks.LogMatching()
        self.durable = replica_checks.AcknowledgedIsDurable(self.log, self.machines)
        self.claims = ClaimsAreDurable(self.machines)
        self.situations = Situations(self)
        self.equal = replica_checks.ReplicasEqual()
        self.snapshots = replica_checks.SnapshotsEqual()
        self.checks: list[replica_checks.ReplicaCheck] = [
            replica_checks.OneLeaderPerTerm(),
            replica_checks.CommitNeverMovesBack(),
            self.log,
            replica_checks.LeaderCompleteness(self.log),
            self.equal,
            self.snapshots,
            self.durable,
            self.claims,
            CommitsAreRight(self.log, self.machines),
            self.situations,
        ]
        blank = replica_checks.ReplicaCheck.turn
        self._turns = [one.turn for one in self.checks if type(one).turn is not blank]
        self.receivers = Receivers()
        self.people = People(self, chance.fork("people"))
        self.faults = Faults(self, chance.fork("faults"))
        self._by_ip = {machine.ip: machine for machine in self.machines.values()}
        self.network.on_write = self._written
        self._refusals: Counter[int] = Counter()

    # --- the run ----------------------------------------------------------------------

    def run(self) -> None:
        """Live through all phases; raises what broke first."""
        for machine in self.machines.values():
            machine.start()
        self.people.begin()
        self.faults.begin()
        end = self.scheduler.now_ns + self.options.safety_ms * MILLISECOND
        self._until(lambda: self.scheduler.now_ns >= end or self.people.is_done)
        self._heal(everybody=not self.options.minority)
        self._live(lambda: self.people.is_done, "a call of a client has not ended")
        self._heal(everybody=True)
        self._live(self._is_settled, "the nodes have not come to rest at one state")
        self._check_end()

    def _until(self, condition: Any) -> None:
        steps = 0
        step = self.scheduler.step
        while not condition():
            for _ in range(STEPS_BETWEEN_LOOKS):
                if not step():
                    raise AssertionError("nothing is going to happen any more")
                if self.failure is not None:
                    raise self.failure
            steps += STEPS_BETWEEN_LOOKS
            if steps > STEPS_MAX:
                raise CheckFailed("World", f"{STEPS_MAX} steps and no end")

    def _heal(self, *, everybody: bool) -> None:
        self.is_healed = True
        self.faults.end(everybody=everybody)
        self.story.tell("heal", "world", "everybody" if everybody else "a majority")
        calm = Weather()
        calm.latency_ns = self.options.weather.latency_ns
        self.network.weather = calm
        self.people.healed()

    def _live(self, condition: Any, sentence: str) -> None:
        bound = self.scheduler.now_ns + LIVENESS_SECONDS * SECOND
        self._until(lambda: condition() or self.scheduler.now_ns > bound)
        if not condition():
            raise CheckFailed(
                "Liveness", f"{LIVENESS_SECONDS} s after the world was healed {sentence}"
            )

    def _is_settled(self) -> bool:
        """Whether all nodes run, are active, have counted everything and are at rest."""
        machines = self.machines.values()
        if not all(machine.is_ready for machine in machines):
            return False
        newest = max(self.log.committed, default=0)
        return all(
            m.node.machine.applied == newest
            and m.node.replica.raft.last_index == newest
            and m.node.idle
            and (m.server.cluster is None or m.server.cluster.joining.is_active)
            and not self.receivers.missing(m.node)
            for m in machines
            if m.server is not None
        )

    # --- what happens ---------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """A promise is broken: the first one counts."""
        if self.failure is None:
            self.failure = error

    def reach(self, situation: str) -> None:
        """Something happened that runs are for."""
        self.reached[situation] += 1
        self.story.tell("reach", "world", situation)

    def said(self, machine: Machine, sentence: str) -> None:
        """A node told its operator something."""
        self.story.tell("said", machine.name, shown(sentence))
        self.situations.said(machine, sentence)
        if "was damaged and is" in sentence and not machine.was_damaged:
            self.fail(
                CheckFailed("PowerCutIsNoRot", f"{machine.name}, on a whole disk: {sentence}")
            )

    def after_turn(self, machine: Machine) -> None:
        """A node's loop has turned."""
        if machine.is_ready:
            machine.look_at_membership()
            if self.failure is None:
                try:
                    for turn in self._turns:
                        turn(machine)
                except CheckFailed as failure:
                    self.fail(failure)

    def counted(self, machine: Machine, node: Node, entry: Entry, applied: Applied) -> None:
        """A node counted an entry; called with the node's lock held, before any reply."""
        if machine.process is None or self.failure is not None:
            return
        try:
            self._catch_up(machine, node, entry.index - 1)
            is_first = self._audit_entry(machine, entry)
            self.auditor.check_applied(machine.name, applied, entry.index)
            if is_first:  # the others are compared with it, state by state
                self.auditor.check_touched(machine.name, node.machine, entry.index)
        except CheckFailed as failure:
            self.fail(failure)

    def _catch_up(self, machine: Machine, node: Node, upto: int) -> None:
        """Entries that a start replayed and that nobody had counted before: a lone node's."""
        first = self.auditor.position + 1
        if upto >= first:
            for entry in node.wal.read(first, upto):
                self._audit_entry(machine, entry)

    def _audit_entry(self, machine: Machine, entry: Entry) -> bool:
        """Tell the checkers of an entry; whether nobody had counted it before."""
        for one in self.checks:
            one.applied(machine, entry)
        if entry.index <= self.auditor.position:
            return False
        self.auditor.committed(entry.index, entry.term, entry.kind, entry.timestamp_ns, entry.body)
        self.story.tell("commit", machine.name, entry.index, entry.term, entry.kind)
        self.situations.committed(entry, self.auditor.expected(entry.index))
        return True

    def acknowledged(self, position: int) -> None:
        """A client has been told that the batch at a position is stored."""
        if position:  # version 1 is told none
            self._check(lambda one: one.acknowledged(position))

    def _written(self, end: SimTransport, data: bytes) -> None:
        """A process gives bytes to a socket."""
        machine = self._by_ip.get(end.process.ip)
        if machine is None:
            return
        if end.peer.process.ip in self._by_ip:
            if self.failure is None:
                try:
                    self.claims.sent(machine, data)
                except CheckFailed as failure:
                    self.fail(failure)
        else:
            self.faults.on_reply(end, data)

    def node_ready(self, machine: Machine) -> None:
        """A node has opened its directory: what it recovered is what the log says."""
        if not machine.damage:
            self._refusals[machine.node_id] = 0
        self._check(lambda one: one.ready(machine))
        state = machine.node.machine
        try:
            self._catch_up(machine, machine.node, state.applied)
            self.equal.note(machine.name, state.applied, state.state_hash())
        except CheckFailed as failure:
            self.fail(failure)
        if self.chance.hit(AUDITED_STARTS):
            self._audit(machine)

    def node_gone(self, machine: Machine) -> None:
        """A process is about to be forgotten."""
        for one in self.checks:
            one.gone(machine)

    def _audit(self, machine: Machine) -> None:
        try:
            self.auditor.check_machine(machine.name, machine.node.machine)
        except CheckFailed as failure:
            self.fail(failure)

    def node_failed(self, machine: Machine, error: BaseException) -> None:
        """A node stopped by itself. Only a disk that failed may bring it to that."""
        if isinstance(error, FatalStorageError) and machine.disk_erred:
            self.reach("a node stopped because its disk failed")
        elif isinstance(error, DiskFullError) and machine.disk.capacity is not None:
            self.reach("a start failed because the disk was full")
        elif isinstance(error, DataError) and machine.was_damaged:
            self.reach("damage was refused at a start")
            self.situations.damage_found(machine)
            self._refusals[machine.node_id] += 1
            self.faults.damage_refused(machine, self._refusals[machine.node_id])
        else:
            self.fail(error)
            return
        self.restart_later(machine)

    def restart_later(self, machine: Machine) -> None:
        """A supervisor starts it again."""
        delay = self.chance.between(*RESTART_NS)
        self.scheduler.after(delay, machine.start)

    def bury(self, server: Any, process: Process) -> None:
        """Keep what is left of a process: its finalisers must not run in the midst of a run."""
        self._graves.append((server, process))

    def _check(self, look: Any) -> None:
        if self.failure is not None:
            return
        try:
            for one in self.checks:
                look(one)
        except CheckFailed as failure:
            self.fail(failure)

    # --- what operators know ------------------------------------------------------------

    def members_of(self, node_id: int) -> Members:
        """The cluster as a node is told of it."""
        members = members_of(self.machines[node_id]._config())
        assert members is not None
        return members

    def operator_time_ns(self) -> int:
        """An operator's clock is right, and no two acts are at one moment."""
        self._operator_acts += 1
        return START_NS + self.scheduler.now_ns + self._operator_acts * SECOND

    # --- the end ----------------------------------------------------------------------------

    def _check_end(self) -> None:
        """All nodes are at rest at the same index: everything is compared."""
        for machine in self.machines.values():
            applied = machine.node.machine.applied
            self.equal.note(machine.name, applied, machine.node.machine.state_hash())
            machine.node.replica.check_invariants()
        if self.chance.hit(AUDITED_ENDS):
            self._audit(next(iter(self.machines.values())))  # all have the same state
        if self.failure is not None:
            raise self.failure
        self.people.check_end()
        for machine in self.chance.sample(list(self.machines.values()), 1):
            self._verify(machine)
        if self.failure is not None:
            raise self.failure

    def _verify(self, machine: Machine) -> None:
        """Recount from the stored events (P6)."""
        report = verify(DATA_DIR, disk=machine.disk.clone(), at_index=None)
        if not report.ok and not machine.damage:
            raise CheckFailed("RecountEqual", f"{machine.name}: {report.problems[0]}")
        if not report.ok:
            self.reach("damage was found by verify")
