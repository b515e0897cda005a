"""A group of real cores with fakes around them: logs in memory, a wire that is a list.

Nothing happens by itself. `settle` carries everything out until nobody has anything
left to do; a test that wants to stop half-way stalls a disk, cuts a link, or takes
messages off the wire by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    RawNode,
    Ready,
    Role,
    Snapshot,
    SnapshotMeta,
)

DATA = 1  # the kind of the entries that tests propose


def entries(*terms: int, start: int = 1) -> list[Entry]:
    """Entries of these terms from index `start` on, each with a body of its own."""
    return [
        Entry(index, term, DATA, 0, f"{term}/{index}".encode())
        for index, term in enumerate(terms, start)
    ]


def bodies(*texts: str) -> list[Entry]:
    """Entries to propose."""
    return [Entry(0, 0, DATA, 0, text.encode()) for text in texts]


class Host:
    """One node: a core, its disk, what it applied."""

    def __init__(self, config: Config, disk: MemoryStorage) -> None:
        self.config = config
        self.id = config.node_id
        self.disk = disk
        self.raw = RawNode(config, disk)
        self.applied: list[Entry] = []
        self.reads: dict[bytes, int] = {}
        self.appends: list[Message] = []  # orders to write that are not carried out
        self.stalled = False  # a disk that writes nothing

    @property
    def core(self):  # type: ignore[no-untyped-def]
        return self.raw._core

    def handle_ready(self) -> list[Message]:
        """Carry out one Ready; the messages that leave at once."""
        ready = self.raw.ready()
        self.reads.update({state.context: state.index for state in ready.read_states})
        if self.config.async_storage_writes:
            return self._handle_async(ready)
        self._write(ready.hard_state, ready.entries, ready.snapshot)
        self._apply(ready.committed_entries)
        self.raw.advance()
        return list(ready.messages)

    def _handle_async(self, ready: Ready) -> list[Message]:
        leaving = []
        for message in ready.messages:
            if message.to == LOCAL_APPEND_THREAD:
                self.appends.append(message)
            elif message.to == LOCAL_APPLY_THREAD:
                self._apply(message.entries)
                for response in message.responses:
                    assert self.raw.step(response)
            else:
                leaving.append(message)
        return leaving

    def write_one(self) -> list[Message]:
        """Carry out the oldest order to write; its responses, to be sent or stepped."""
        message = self.appends.pop(0)
        state = HardState(message.term, message.vote, message.commit)
        self._write(state if state != HardState() else None, message.entries, message.snapshot)
        return list(message.responses)

    def _write(
        self, state: HardState | None, new: Sequence[Entry], snapshot: Snapshot | None
    ) -> None:
        if snapshot is not None:
            self.disk.apply_snapshot(snapshot)
            assert isinstance(snapshot.data, list)
            self.applied = list(snapshot.data)
        self.disk.append(new)
        if state is not None:
            self.disk.hard_state = state

    def _apply(self, new: Sequence[Entry]) -> None:
        self.applied += new

    def log(self) -> list[Entry]:
        """The whole log as the core sees it, durable or not."""
        log = self.core.log
        first = log.first_index()
        return (
            list(log.slice(first, log.last_index + 1, NO_LIMIT)) if log.last_index >= first else []
        )

    def terms(self) -> list[int]:
        return [entry.term for entry in self.log()]

    def applied_bodies(self) -> list[bytes]:
        return [bytes(entry.body) for entry in self.applied if entry.kind == DATA]

    def compact(self, index: int) -> None:
        """Take a snapshot at an index and drop the log up to it."""
        state = [entry for entry in self.applied if entry.index <= index]
        self.disk.make_snapshot(index, self.raw.voters, state)
        self.disk.compact(index)


class Group:
    """Hosts 1 to `size` and the wire between them."""

    def __init__(self, size: int = 3, **options: object) -> None:
        self.options = options
        self.voters = tuple(range(1, size + 1))
        self.hosts = {node: self._host(node, MemoryStorage()) for node in self.voters}
        self.wire: list[Message] = []
        self.cut: set[tuple[int, int]] = set()  # (sender, receiver)
        self.sent: list[Message] = []  # everything that ever left a node

    def _host(self, node: int, disk: MemoryStorage) -> Host:
        options = {"pre_vote": False, "check_quorum": False, **self.options}
        return Host(Config(node, self.voters, **options), disk)  # type: ignore[arg-type]

    def __getitem__(self, node: int) -> Host:
        return self.hosts[node]

    # Faults

    def isolate(self, *nodes: int) -> None:
        """Cut every link between these nodes and the others, both ways."""
        for node in nodes:
            for other in self.voters:
                if other not in nodes:
                    self.cut |= {(node, other), (other, node)}

    def heal(self) -> None:
        self.cut = set()

    def restart(self, node: int) -> Host:
        """Crash a node and start it from its disk; what was not written is gone."""
        old = self.hosts[node]
        disk = old.disk
        self.hosts[node] = host = self._host(node, disk)
        snapshot = disk.snapshot()
        if snapshot.meta != SnapshotMeta():
            assert isinstance(snapshot.data, list)
            host.applied = list(snapshot.data)
        return host

    # Work

    def settle(self, *only: int) -> None:
        """Carry out everything, among these nodes or all, until nothing is left."""
        nodes = only or self.voters
        busy = True
        while busy:
            busy = False
            for node in nodes:
                busy |= self.work(self.hosts[node])
            busy |= self.deliver(lambda message: message.to in nodes)
            for host in self.hosts.values():
                host.raw.check_invariants()

    def work(self, host: Host) -> bool:
        busy = False
        while host.raw.has_ready():
            busy = True
            self.post(host.handle_ready())
        while host.appends and not host.stalled:
            busy = True
            self.post(host.write_one())
        return busy

    def post(self, messages: Sequence[Message]) -> None:
        """Put messages on the wire; those to the node itself arrive at once."""
        for message in messages:
            if message.sender in (message.to, LOCAL_APPEND_THREAD):
                self.hosts[message.to].raw.step(message)
                continue
            self.sent.append(message)
            if (message.sender, message.to) not in self.cut:
                self.wire.append(message)

    def deliver(self, wanted: Callable[[Message], bool] = lambda message: True) -> bool:
        """Hand over what is on the wire and wanted; whether there was any."""
        waiting = [message for message in self.wire if wanted(message)]
        self.wire = [message for message in self.wire if not wanted(message)]
        for message in waiting:
            if (message.sender, message.to) not in self.cut:
                self.hosts[message.to].raw.step(message)
        return bool(waiting)

    def take(self, kind: MessageType, to: int = 0) -> list[Message]:
        """Take messages of one kind off the wire."""
        taken = [m for m in self.wire if m.type is kind and to in (0, m.to)]
        self.wire = [m for m in self.wire if not any(m is other for other in taken)]
        return taken

    def elect(self, node: int) -> Host:
        """Make a node the leader and let everybody know."""
        self.hosts[node].raw.campaign()
        self.settle()
        assert self.hosts[node].raw.role is Role.LEADER
        return self.hosts[node]

    def win(self, node: int) -> Host:
        """Let a node win an election, and nothing that it does as a leader happen yet."""
        host = self.hosts[node]
        kinds = (MessageType.MSG_VOTE, MessageType.MSG_VOTE_RESP)
        host.raw.campaign()
        while host.raw.role is not Role.LEADER:
            for other in self.hosts.values():
                self.work(other)
            assert self.deliver(lambda message: message.type in kinds) or self.is_leader(node)
        return host

    def is_leader(self, node: int) -> bool:
        return self.hosts[node].raw.role is Role.LEADER

    def propose(self, node: int, *texts: str) -> int:
        return self.hosts[node].raw.propose(bodies(*texts))

    def tick(self, node: int, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.hosts[node].raw.tick()

    def leaders(self) -> list[int]:
        return [node for node, host in self.hosts.items() if host.raw.role is Role.LEADER]


def stored(
    node: int, voters: tuple[int, ...], log: Sequence[Entry], state: HardState, **options: object
) -> Host:
    """A node that starts with this log and state on its disk."""
    disk = MemoryStorage()
    disk.append(log)
    disk.hard_state = state
    options = {"pre_vote": False, "check_quorum": False, **options}
    return Host(Config(node, voters, **options), disk)  # type: ignore[arg-type]
