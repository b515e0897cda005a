"""A group of real cores in a bad world, all of it drawn from one seed.

The network loses, repeats, reorders and delays without bound: a message may reach a
later incarnation of its receiver. Disks write step by step, and a crash keeps any
beginning of the steps that were ordered: entries removed back to front, entries
appended one by one, the hard state. The state machine lives in memory and comes
back from the last snapshot.

Checked after every step, each by a method that says so: election safety, leader
completeness, log matching, state machine safety, durability behind every
acknowledgement and vote, a majority of disks behind every commit, reads that see
everything committed before them. At the end the world is healed and must converge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from random import Random

from unimeter.raft import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_LIMIT,
    Config,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    ProposalDropped,
    RawNode,
    Role,
)

T = MessageType
DATA = 1


class Node:
    """One node over all its incarnations; `raw` is None while it is down."""

    def __init__(self, node_id: int) -> None:
        self.id = node_id
        self.disk = MemoryStorage()
        self.raw: RawNode | None = None
        self.appends: list[Message] = []
        self.applies: list[Message] = []
        self.applied: list[Entry] = []
        self.was_leader_of = 0

    @property
    def applied_index(self) -> int:
        return self.applied[-1].index if self.applied else 0

    def steps(self, message: Message) -> Iterator[None]:
        """The write of one order, a step at a time."""
        disk = self.disk
        if message.snapshot is not None:
            disk.apply_snapshot(message.snapshot)
            self.load_state()
            yield
        if message.entries:
            first = message.entries[0].index
            while disk.last_index() >= max(first, disk.first_index()):
                disk._entries.pop()
                yield
        for entry in message.entries:
            disk.append([entry])
            yield
        state = HardState(message.term, message.vote, message.commit)
        if state != HardState():
            disk.hard_state = state
            yield

    def load_state(self) -> None:
        """Take the state of the newest snapshot, if that is ahead."""
        data = self.disk.snapshot().data or ()
        assert isinstance(data, tuple)
        if len(data) and data[-1].index > self.applied_index:
            self.applied = list(data)


class World:
    """All of it. `hits` counts the situations that were reached."""

    def __init__(self, seed: int, **options: object) -> None:
        self.random = random = Random(seed)
        size = random.choice((3, 3, 5))
        self.voters = tuple(range(1, size + 1))
        self.nodes = {node: Node(node) for node in self.voters}
        self.options: dict[str, object] = {
            "election_ticks": 4,
            "pre_vote": random.random() < 0.5,
            "check_quorum": random.random() < 0.5,
            "max_size_per_message": random.choice((0, 80, 1000)),
            "max_committed_size_per_ready": random.choice((1, 80, 1000)),
            "max_inflight_messages": random.choice((1, 2, 8)),
            "async_storage_writes": True,
            **options,
        }
        self.network: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.loss = random.choice((0.0, 0.05, 0.2))
        self.repeat = random.choice((0.0, 0.1))
        self.in_order = random.choice((0.3, 0.9))
        self.proposed = 0
        self.hits: Counter[str] = Counter()
        # What the checks remember.
        self.leaders: dict[int, int] = {}  # term -> node
        self.entries: dict[tuple[int, int], tuple[int, bytes]] = {}  # -> term before, body
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.commit = 0  # highest index that any leader committed
        self.votes: dict[tuple[int, int], int] = {}  # (node, term) -> vote
        self.reads: dict[bytes, int] = {}  # context -> commit index when it was asked
        for node in self.nodes.values():
            self.start(node)

    # What happens

    def start(self, node: Node) -> None:
        node.applied = []
        node.load_state()
        config = Config(
            node.id,
            self.voters,
            random_ticks=self.random.randrange,
            applied=node.applied_index,
            **self.options,  # type: ignore[arg-type]
        )
        node.raw = RawNode(config, node.disk)

    def crash(self, node: Node) -> None:
        """Lose memory, and all but a beginning of what was being written."""
        left = self.random.randrange(6)
        steps = (step for message in node.appends for step in node.steps(message))
        for _ in islice(steps, left):
            self.hits["crash after a step of a write"] += 1
        node.raw, node.appends, node.applies = None, [], []
        self.hits["crash"] += 1
        self.check_disk(node)

    def handle_ready(self, node: Node) -> None:
        assert node.raw is not None
        if not node.raw.has_ready():
            return
        ready = node.raw.ready()
        for state in ready.read_states:
            self.check_read(state.context, state.index)
        for message in ready.messages:
            if message.to == LOCAL_APPEND_THREAD:
                node.appends.append(message)
            elif message.to == LOCAL_APPLY_THREAD:
                node.applies.append(message)
            else:
                self.post(node, message)

    def write(self, node: Node) -> None:
        """Carry out one order to write and deliver its responses."""
        if not node.appends:
            return
        message = node.appends.pop(0)
        last = node.disk.last_index()
        for _ in node.steps(message):
            pass
        if message.entries and message.entries[0].index <= last:
            self.hits["suffix overwritten"] += 1
        self.hits["snapshot stored"] += message.snapshot is not None
        self.check_disk(node)
        for response in message.responses:
            if response.to == node.id:
                self.step(node, response)
            else:
                self.post(node, response)

    def apply(self, node: Node) -> None:
        if not node.applies:
            return
        message = node.applies.pop(0)
        for entry in message.entries:
            if entry.index > node.applied_index:
                self.check_applied(node, entry)
                node.applied.append(entry)
            else:
                self.hits["applied with a snapshot already"] += 1
        for response in message.responses:
            self.step(node, response)

    def step(self, node: Node, message: Message) -> None:
        assert node.raw is not None
        if message.type is T.MSG_STORAGE_APPEND_RESP and message.term < node.raw.term:
            self.hits["late completion"] += 1
        node.raw.step(message)
        self.check_node(node)

    def post(self, node: Node, message: Message) -> None:
        self.check_durable_behind(node, message)
        self.hits[f"{message.type}"] += 1
        if (message.sender, message.to) in self.cut or self.random.random() < self.loss:
            self.report(message, False)
            return
        self.network.append(message)
        if self.random.random() < self.repeat:
            self.network.append(message)

    def deliver(self) -> None:
        """Hand over one message, more or less in order."""
        if not self.network:
            return
        ordered = self.random.random() < self.in_order
        message = self.network.pop(0 if ordered else self.random.randrange(len(self.network)))
        node = self.nodes[message.to]
        self.report(message, node.raw is not None)
        if node.raw is not None:
            self.step(node, message)

    def report(self, message: Message, arrived: bool) -> None:
        """Tell the sender of a snapshot how it went, as `ready` asks of a host."""
        sender = self.nodes[message.sender].raw if message.type is T.MSG_SNAP else None
        if sender is not None:
            sender.report_snapshot(message.to, arrived)

    def compact(self, node: Node) -> None:
        """Take a snapshot of the state, and drop some of the log that it covers."""
        index = node.applied_index
        if index <= node.disk.snapshot().meta.index or index > node.disk.last_index():
            return
        node.disk.make_snapshot(index, self.voters, tuple(node.applied))
        keep = self.random.choice((0, 0, 2))
        if index - keep >= node.disk.first_index():
            node.disk.compact(index - keep)

    def propose(self, node: Node) -> None:
        assert node.raw is not None
        self.proposed += 1
        body = str(self.proposed).encode() * self.random.choice((1, 1, 10))
        try:
            node.raw.propose([Entry(0, 0, DATA, 0, body)] * self.random.choice((1, 1, 3)))
        except ProposalDropped:
            self.hits["proposal dropped"] += 1

    def read(self, node: Node) -> None:
        assert node.raw is not None
        context = f"{node.id}/{len(self.reads)}".encode()
        self.reads[context] = self.commit
        node.raw.read_index(context)

    def partition(self) -> None:
        """Cut some links, each way by itself; or one node, entirely or one way; or none."""
        pairs = [(a, b) for a in self.voters for b in self.voters if a != b]
        alone = self.random.choice(self.voters)
        leaders = [n.id for n in self.nodes.values() if n.raw and n.raw.role is Role.LEADER]
        if leaders and self.random.random() < 0.5:
            alone = self.random.choice(leaders)
        kind = self.random.randrange(6)
        self.cut = {
            (a, b)
            for a, b in pairs
            if (kind in (1, 2) and alone in (a, b))
            or (kind == 3 and a == alone)
            or (kind == 4 and b == alone)
            or (kind == 5 and self.random.random() < 0.3)
        }

    # The course of events

    def run(self, steps: int) -> None:
        """Anything may fail, for that many steps."""
        actions = (
            [self.act_deliver] * 40
            + [self.act_ready] * 24
            + [self.act_write] * 14
            + [self.act_apply] * 8
            + [self.act_tick] * 12
            + [self.act_propose] * 6
            + [self.act_other] * 3
        )
        for _ in range(steps):
            self.random.choice(actions)(self.nodes[self.random.choice(self.voters)])

    def act_deliver(self, node: Node) -> None:
        self.deliver()

    def act_ready(self, node: Node) -> None:
        if node.raw is not None:
            self.handle_ready(node)
            self.check_node(node)

    def act_write(self, node: Node) -> None:
        if node.raw is not None:
            self.write(node)

    def act_apply(self, node: Node) -> None:
        if node.raw is not None:
            self.apply(node)

    def act_tick(self, node: Node) -> None:
        if node.raw is not None:
            node.raw.tick()
            self.check_node(node)

    def act_propose(self, node: Node) -> None:
        if node.raw is not None:
            self.random.choice((self.propose, self.propose, self.read))(node)

    def act_other(self, node: Node) -> None:
        chosen = self.random.randrange(6)
        if node.raw is None:
            self.start(node)
        elif chosen == 0:
            self.crash(node)
        elif chosen <= 2:
            self.partition()
        elif chosen == 3:
            node.raw.transfer_leader(self.random.choice(self.voters))
        else:
            self.compact(node)

    def converge(self, rounds: int = 300) -> None:
        """Heal the world; it must elect a leader, commit something new and agree."""
        self.cut, self.loss, self.repeat, self.in_order = set(), 0.0, 0.0, 1.0
        for node in self.nodes.values():
            if node.raw is None:
                self.start(node)
        for _ in range(rounds):
            self.drain()
            leaders = [n for n in self.nodes.values() if n.raw and n.raw.role is Role.LEADER]
            if len(leaders) == 1 and leaders[0].raw and self.is_settled(leaders[0]):
                return
            for node in self.nodes.values():
                self.act_tick(node)
        raise AssertionError(f"no agreement after {rounds} ticks of a healed world")

    def is_settled(self, leader: Node) -> bool:
        """Whether everybody has applied an entry of this leader's term; else propose one."""
        assert leader.raw is not None
        ends = {node.applied_index for node in self.nodes.values()}
        last = leader.applied[-1] if leader.applied else None
        if len(ends) == 1 and last and last.term == leader.raw.term and last.kind == DATA:
            return True
        if len(ends) == 1:
            self.propose(leader)
        return False

    def drain(self) -> None:
        busy = True
        while busy:
            busy = False
            for node in self.nodes.values():
                assert node.raw is not None
                busy |= node.raw.has_ready() or bool(node.appends or node.applies)
                self.handle_ready(node)
                self.write(node)
                self.apply(node)
            busy |= bool(self.network)
            for _ in range(len(self.network)):
                self.deliver()

    # The checks

    def check_node(self, node: Node) -> None:
        """Election safety, and what is due when a leader appears or commits."""
        raw = node.raw
        assert raw is not None
        if raw.role is not Role.LEADER:
            return
        assert self.leaders.setdefault(raw.term, node.id) == node.id, f"two leaders of {raw.term}"
        log = raw._core.log
        if node.was_leader_of != raw.term:
            node.was_leader_of = raw.term
            self.hits["leader"] += 1
            self.check_complete(node)
        if raw.commit > self.commit:
            self.commit = raw.commit
            self.check_majority(log.term(raw.commit))

    def check_complete(self, node: Node) -> None:
        """Leader completeness: whatever was committed is in the new leader's log."""
        assert node.raw is not None
        log = node.raw._core.log
        assert log.last_index >= self.commit, f"committed to {self.commit}, has {log.last_index}"
        for index in range(max(log.first_index(), 1), log.last_index + 1):
            if index in self.committed:
                assert log.term(index) == self.committed[index][0], f"lost entry {index}"

    def check_majority(self, term: int) -> None:
        """Behind a commit stand a majority of disks, the down ones included."""
        holding = 0
        for node in self.nodes.values():
            disk = node.disk
            if disk.last_index() >= self.commit:
                holding += self.commit < disk.first_index() or disk.term(self.commit) == term
        assert holding * 2 > len(self.voters), f"entry {self.commit} is on {holding} disks"

    def check_disk(self, node: Node) -> None:
        """Log matching on disks; a term that only rises, and one vote in it."""
        disk = node.disk
        state = disk.hard_state
        if state.vote:
            known = self.votes.setdefault((node.id, state.term), state.vote)
            assert known == state.vote, f"node {node.id} voted twice in term {state.term}"
        first, last = disk.first_index(), disk.last_index()
        if first > last:
            return
        before = disk.term(first - 1)
        for entry in disk.entries(first, last + 1, NO_LIMIT):
            held = (before, bytes(entry.body))
            known_entry = self.entries.setdefault((entry.index, entry.term), held)
            assert known_entry == held, f"entry {entry.index} of term {entry.term} is two"
            before = entry.term

    def check_durable_behind(self, node: Node, message: Message) -> None:
        """A vote and an acknowledgement are on the disk before they are on the wire."""
        disk = node.disk
        if message.reject or message.type not in (T.MSG_VOTE_RESP, T.MSG_APP_RESP):
            return
        state = disk.hard_state
        if message.type is T.MSG_VOTE_RESP:
            assert (state.term, state.vote) == (message.term, message.to) or (
                state.term > message.term
            ), "a vote that is not durable"
        else:
            assert state.term >= message.term, "an acknowledgement in a term that is not durable"
            if message.term == state.term:
                assert disk.last_index() >= message.index, "an acknowledged entry not durable"

    def check_applied(self, node: Node, entry: Entry) -> None:
        """State machine safety: the same entry at each index, in order, on every node."""
        assert entry.index == node.applied_index + 1, "applied out of order"
        assert entry.index <= node.disk.last_index(), "applied before it was durable here"
        held = (entry.term, bytes(entry.body))
        assert self.committed.setdefault(entry.index, held) == held, f"two entries {entry.index}"
        assert entry.index <= self.commit, "applied and not committed"

    def check_read(self, context: bytes, index: int) -> None:
        """A read sees whatever was committed before it was asked."""
        assert index >= self.reads[context], "a stale read"
        self.hits["read"] += 1


def run_seed(seed: int, steps: int = 2500, **options: object) -> World:
    """One seed, from its first draw to agreement."""
    world = World(seed, **options)
    world.run(steps)
    for node in world.nodes.values():
        if node.raw is not None:
            node.raw.check_invariants()
    world.converge()
    return world
