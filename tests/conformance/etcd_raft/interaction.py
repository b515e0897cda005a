"""The interaction transcripts: nodes, the messages between them, and the commands.

Every node has a log in memory and a state machine that appends bodies. A message
that left a node waits until a command delivers or drops it; nothing else moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.conformance.etcd_raft.describe import entry_text, message_text, ready_text
from tests.conformance.etcd_raft.transcript import Command

from unimeter.raft import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_LIMIT,
    Compacted,
    Config,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    ProposalDropped,
    RawNode,
    Snapshot,
    SnapshotMeta,
)
from unimeter.raft.messages import LOCAL_TARGETS, RESPONSE_TYPES

_NORMAL = 1  # the kind of a proposed entry; transcripts call both kinds EntryNormal
_QUIET = "none"


def _varint_bytes(value: int) -> int:
    return max((value.bit_length() + 6) // 7, 1)


def protobuf_size(entry: Entry) -> int:
    """Bytes of an entry in etcd's encoding, which its limits count."""
    size = 2 + 1 + _varint_bytes(entry.term) + 1 + _varint_bytes(entry.index)
    if entry.kind == _NORMAL:
        size += 1 + _varint_bytes(len(entry.body)) + len(entry.body)
    return size


class Disk(MemoryStorage):
    """A log whose snapshot is always the state at the last applied entry."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.newest = snapshot
        if snapshot.meta != SnapshotMeta():
            self.apply_snapshot(snapshot)

    def snapshot(self) -> Snapshot:
        return self.newest

    def apply(self, entry: Entry) -> None:
        meta, data = self.newest.meta, self.newest.data
        assert isinstance(data, bytes)
        self.newest = Snapshot(
            SnapshotMeta(entry.index, entry.term, meta.voters), data + bytes(entry.body)
        )


class Node:
    """A core, its disk, and the work that its two threads have not done yet."""

    def __init__(self, config: Config, snapshot: Snapshot) -> None:
        self.id = config.node_id
        self.config = config
        self.is_async = config.async_storage_writes
        self.disk = Disk(snapshot)
        self.raw = RawNode(config, self.disk)
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []

    def write(self, state: HardState | None, entries: object, snapshot: Snapshot | None) -> None:
        if state is not None:
            self.disk.hard_state = state
        if snapshot is not None:
            assert not entries, "a snapshot and entries in one write"
            self.disk.apply_snapshot(snapshot)
        else:
            self.disk.append(entries)  # type: ignore[arg-type]


class Interaction:
    """The nodes and messages of one transcript; `run` does one command and returns its output."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.messages: list[Message] = []
        self.level = "debug"
        self.lines: list[str] = []
        self._commands: dict[str, Callable[[Command], None]] = {
            "add-nodes": self.add_nodes,
            "campaign": lambda c: self._node(c).raw.campaign(),
            "compact": self.compact,
            "deliver-msgs": self.deliver_messages,
            "process-ready": lambda c: self._each(c, "handling Ready", self.process_ready),
            "process-append-thread": lambda c: self._each(
                c, "processing append thread", self.process_append
            ),
            "process-apply-thread": lambda c: self._each(
                c, "processing apply thread", self.process_apply
            ),
            "log-level": self.set_level,
            "raft-log": lambda c: self.print_log(self._node(c)),
            "raft-state": self.print_state,
            "set-randomized-election-timeout": self.set_timeout,
            "stabilize": self.stabilize,
            "status": self.print_status,
            "tick-election": lambda c: self._tick(c, self._node(c).config.election_ticks),
            "tick-heartbeat": lambda c: self._tick(c, self._node(c).config.heartbeat_ticks),
            "tick": lambda c: self._tick(c, int(c.bare[1])),
            "transfer-leadership": self.transfer,
            "send-snapshot": self.send_snapshot,
            "propose": self.propose,
            "report-unreachable": lambda c: self._node(c).raw.report_unreachable(int(c.bare[1])),
            "_breakpoint": lambda c: None,
        }

    def run(self, command: Command) -> str:
        """Do one command; its output, or nothing when output is switched off."""
        self.lines = []
        handler = self._commands.get(command.name)
        if handler is None:
            return f"unsupported command {command.name}"
        handler(command)
        for node in self.nodes:
            node.raw.check_invariants()
        return "\n".join(self.lines)

    # Output

    def say(self, text: str) -> None:
        if self.level != _QUIET:
            self.lines += text.splitlines()

    def fail(self, text: str) -> None:
        """An error is printed at every level."""
        self.lines.append(text)

    @contextmanager
    def indented(self) -> Iterator[None]:
        before, self.lines = self.lines, []
        yield
        self.lines = before + [f"  {line}" for line in self.lines]

    # Arguments

    def _node(self, command: Command, at: int = 0) -> Node:
        return self.nodes[int(command.bare[at]) - 1]

    def _each(self, command: Command, title: str, work: Callable[[Node], None]) -> None:
        """Do the work of one node, or of several with a title each."""
        nodes = [self.nodes[number - 1] for number in command.numbers()]
        for node in nodes:
            if len(nodes) == 1:
                work(node)
                continue
            self.say(f"> {node.id} {title}")
            with self.indented():
                work(node)

    # Commands

    def add_nodes(self, command: Command) -> None:
        index = int(command.value("index", "0"))
        voters = tuple(int(voter) for voter in command.keyed.get("voters", []))
        content = command.value("content", "").encode()
        snapshot = Snapshot(SnapshotMeta(index, 1 if index else 0, voters), content)
        for _ in range(int(command.bare[0])):
            config = _config(command, len(self.nodes) + 1, index)
            self.nodes.append(Node(config, snapshot))

    def compact(self, command: Command) -> None:
        node = self._node(command)
        try:
            node.disk.compact(int(command.bare[1]))
        except Compacted:
            self.fail("requested index is unavailable due to compaction")
            return
        self.print_log(node)

    def deliver_messages(self, command: Command) -> None:
        kind = command.value("type", "")
        handled = 0
        for number in command.numbers():
            handled += self._deliver(number, kind, drop=False)
        for word in command.keyed.get("drop", []):
            handled += self._deliver(int(word), kind, drop=True)
        if not handled:
            self.say("no messages")

    def _waiting(self, to: int, kind: str = "", drop: bool = False) -> list[Message]:
        """Messages to a node. What a node's own threads answered is never dropped."""
        return [
            message
            for message in self.messages
            if message.to == to
            and (not kind or str(message.type) == kind)
            and not (drop and (message.sender == to or message.sender in LOCAL_TARGETS))
        ]

    def _deliver(self, to: int, kind: str, drop: bool) -> int:
        waiting = self._waiting(to, kind, drop)
        self.messages = [m for m in self.messages if not any(m is other for other in waiting)]
        for message in waiting:
            self.say(("dropped: " if drop else "") + message_text(message))
            if not drop and not self.nodes[to - 1].raw.step(message):
                self._explain(self.nodes[to - 1], message)
        return len(waiting)

    def _explain(self, node: Node, message: Message) -> None:
        if message.type in RESPONSE_TYPES and message.sender not in node.raw.voters:
            self.say("raft: cannot step as peer not found")
        elif message.type is MessageType.MSG_PROP:
            self.say("raft proposal dropped")

    def process_ready(self, node: Node) -> None:
        ready = node.raw.ready()
        self.say(ready_text(ready))
        if not node.is_async:
            node.write(ready.hard_state, ready.entries, ready.snapshot)
            for entry in ready.committed_entries:
                node.disk.apply(entry)
        for message in ready.messages:
            if message.to == LOCAL_APPEND_THREAD:
                node.append_work.append(message)
            elif message.to == LOCAL_APPLY_THREAD:
                node.apply_work.append(message)
            else:
                self.messages.append(message)
        if not node.is_async:
            node.raw.advance()

    def process_append(self, node: Node) -> None:
        if not node.append_work:
            self.say("no append work to perform")
            return
        message = node.append_work.pop(0)
        state = HardState(message.term, message.vote, message.commit)
        self._show_work(message)
        node.write(state if state != HardState() else None, message.entries, message.snapshot)
        self.messages += message.responses

    def process_apply(self, node: Node) -> None:
        if not node.apply_work:
            self.say("no apply work to perform")
            return
        message = node.apply_work.pop(0)
        self._show_work(message)
        for entry in message.entries:
            node.disk.apply(entry)
        self.messages += message.responses

    def _show_work(self, message: Message) -> None:
        self.say("Processing:")
        self.say(message_text(replace(message, responses=())))
        self.say("Responses:")
        for response in message.responses:
            self.say(message_text(response))

    def set_level(self, command: Command) -> None:
        self.level = command.bare[0].lower()

    def print_log(self, node: Node) -> None:
        first, last = node.disk.first_index(), node.disk.last_index()
        if last < first:
            self.say(f"log is empty: first index={first}, last index={last}")
            return
        for entry in node.disk.entries(first, last + 1, NO_LIMIT):
            self.say(entry_text(entry))

    def print_state(self, command: Command) -> None:
        for node in self.nodes:
            raw = node.raw
            voter = "(Voter)" if node.id in raw.voters else "(Non-Voter)"
            self.say(f"{node.id}: {raw.role} {voter} Term:{raw.term} Lead:{raw.lead}")

    def print_status(self, command: Command) -> None:
        for node, progress in self._node(command).raw.status().progress.items():
            self.say(f"{node}: {progress}")

    def set_timeout(self, command: Command) -> None:
        core = self._node(command).raw._core
        core.timeout_ticks = int(command.value("timeout", "0"))
        assert core.timeout_ticks > 0

    def stabilize(self, command: Command) -> None:
        before = self.level
        self.level = command.value("log-level", before).lower()
        nodes = [self.nodes[n - 1] for n in command.numbers()] or self.nodes
        while self._stabilize_once(nodes):
            pass
        self.level = before

    def _stabilize_once(self, nodes: list[Node]) -> bool:
        """Let every node do all that it can, kind of work by kind of work."""
        busy = False
        for node in nodes:
            if node.raw.has_ready():
                busy = True
                self._work(node, "handling Ready", self.process_ready)
        for node in nodes:
            if self._waiting(node.id):
                busy = True
                self._work(node, "receiving messages", lambda n: self._deliver(n.id, "", False))
        for node in nodes:
            if node.append_work:
                busy = True
                self._work(node, "processing append thread", self._drain_append)
        for node in nodes:
            if node.apply_work:
                busy = True
                self._work(node, "processing apply thread", self._drain_apply)
        return busy

    def _work(self, node: Node, title: str, work: Callable[[Node], object]) -> None:
        self.say(f"> {node.id} {title}")
        with self.indented():
            work(node)

    def _drain_append(self, node: Node) -> None:
        while node.append_work:
            self.process_append(node)

    def _drain_apply(self, node: Node) -> None:
        while node.apply_work:
            self.process_apply(node)

    def _tick(self, command: Command, ticks: int) -> None:
        for _ in range(ticks):
            self._node(command).raw.tick()

    def transfer(self, command: Command) -> None:
        sender = self.nodes[int(command.value("from", "0")) - 1]
        sender.raw.transfer_leader(int(command.value("to", "0")))

    def send_snapshot(self, command: Command) -> None:
        sender, to = self._node(command), int(command.bare[1])
        snapshot = sender.disk.snapshot()
        message = Message(MessageType.MSG_SNAP, to, sender.id, sender.raw.term, snapshot=snapshot)
        self.messages.append(message)
        self.say(message_text(message))

    def propose(self, command: Command) -> None:
        entry = Entry(0, 0, _NORMAL, 0, command.bare[1].encode())
        try:
            self._node(command).raw.propose([entry])
        except ProposalDropped:
            self.fail("raft proposal dropped")


def _config(command: Command, node_id: int, index: int) -> Config:
    """etcd's defaults for these transcripts, and what the command says."""

    def flag(key: str) -> bool:
        return command.value(key, "false") == "true"

    return Config(
        node_id,
        election_ticks=int(command.value("election-tick", "3")),
        heartbeat_ticks=int(command.value("heartbeat-tick", "1")),
        pre_vote=flag("prevote"),
        check_quorum=flag("checkquorum"),
        max_size_per_message=NO_LIMIT,
        max_committed_size_per_ready=int(command.value("max-committed-size-per-ready", "0")),
        max_inflight_messages=int(command.value("inflight", str((1 << 31) - 1))),
        async_storage_writes=flag("async-storage-writes"),
        votes_wait_for_sync=False,  # etcd sends the request for votes at once
        applied=index,
        entry_size=protobuf_size,
    )
