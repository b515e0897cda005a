"""Snapshots on their way to a follower whose entries the leader's log no longer has.

Owns the bridge between the core, which says *send a snapshot* and *a snapshot came*, and
the transfer of the file (`peer_snapshots`), which survives lost links and restarts.

    leader    core: MsgSnap ──> file ══chunks══> taken ──> (the follower's own answer)
                                     ╰─ refused, given up ──> core: it failed, probe again
    follower  file is whole ──> restored in a thread ──> core: MsgSnap ──> log, state

That the file arrived is not told to the leader's core: the follower's state is the file's
only once it is restored and in effect, and then its answer to MsgSnap says so. A follower
that connects again without having answered is probed anew.

Refuses to choose a snapshot: it is the newest in effect, which the core was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.errors import DataError
from unimeter.raft.messages import Message, Snapshot
from unimeter.raft.progress import ProgressState
from unimeter.server.peer_snapshots import Worker
from unimeter.storage.incoming import OutgoingFile, remove_stale_parts
from unimeter.storage.install import Received

if TYPE_CHECKING:
    from unimeter.server.cluster import Cluster

ANSWER_TICKS = 600  # half a minute to restore a state; only a follower's lost answer waits so long


class Transfers:
    """The transfers of one node, out and in."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._worker = Worker(cluster.loop, cluster.node.platform, "unimeter-restore")
        # Who has the file and has not been heard of by the core since, and for how many ticks.
        self._unanswered: dict[int, int] = {}
        self._restoring: Message | None = None
        self.sent = self.installed = self.failed = 0

    # --- out ---------------------------------------------------------------------

    def begin(self, message: Message) -> None:
        """The core wants a follower to have the newest snapshot."""
        assert message.snapshot is not None
        to, index = message.to, message.snapshot.meta.index
        try:
            path = message.snapshot.data
            assert isinstance(path, str), "the log's own snapshots are files"
            reader = OutgoingFile(self.cluster.node.opened.disk, path)
        except (OSError, DataError) as error:
            self.cluster.say(f"snapshot {index} for node {to} can't be read: {error}")
            self._report_failed(to)
            return

        def done(reason: str) -> None:
            reader.close()
            if reason:
                self.cluster.say(f"node {to} did not take snapshot {index}: {reason}")
                self.failed += 1
                self._report_failed(to)
            else:
                self.sent += 1
                self._unanswered[to] = 0

        self.cluster.say(f"sending snapshot {index} to node {to} ({reader.size:,} bytes)")
        self.cluster.peers.send_snapshot(message, reader, done)

    def _report_failed(self, node_id: int) -> None:
        self._unanswered.pop(node_id, None)
        self.cluster.node.replica.raft.report_snapshot(node_id, False)
        self.cluster.node.request_turn()

    def link_up(self, node_id: int) -> None:
        """A node that had the file and connects again may have lost it before using it."""
        if node_id in self._unanswered:
            self._report_failed(node_id)

    def tick(self) -> None:
        """Look after whose answer was lost: probe behind the snapshot, as if it had come."""
        for node_id in list(self._unanswered):
            self._unanswered[node_id] += 1
            if self._unanswered[node_id] > ANSWER_TICKS:
                del self._unanswered[node_id]
                self.cluster.node.replica.raft.report_snapshot(node_id, True)
                self.cluster.node.request_turn()

    def heard(self, node_id: int) -> None:
        """The core has heard from a node: is the file that it was sent its state now?

        The core goes on by itself only where its log reaches back to that file. If retention
        has removed more meanwhile, it waits to be told, and then sends a newer one.
        """
        if node_id not in self._unanswered:
            return
        progress = self.cluster.node.replica.raft.status().progress.get(node_id)
        if progress is not None and progress.state is ProgressState.SNAPSHOT:
            if progress.match < progress.pending_snapshot:
                return
            self.cluster.node.replica.raft.report_snapshot(node_id, True)
            self.cluster.node.request_turn()
        del self._unanswered[node_id]

    # --- in ----------------------------------------------------------------------

    def take(self, message: Message, path: str) -> str:
        """A whole file is here: restore it aside, then let the core decide; "" = taken."""
        assert message.snapshot is not None
        if self._restoring is not None:
            return "another snapshot is being restored"
        self._restoring = message
        opened = self.cluster.node.opened
        self._worker.do(
            lambda: opened.restore_snapshot(path),
            lambda received: self._restored(message, path, received),
        )
        return ""

    def _restored(self, message: Message, path: str, received: Received | Exception) -> None:
        self._restoring = None
        node = self.cluster.node
        if node.failure is not None:
            return
        assert message.snapshot is not None
        if isinstance(received, Exception):
            self.cluster.say(f"a snapshot that came can't be used: {received}")
            node.opened.disk.remove(path)
            return
        message.snapshot = Snapshot(message.snapshot.meta, received)
        index = received.head.index
        node.receive_snapshot(message)
        if node.opened.disk.exists(path):
            node.opened.disk.remove(path)  # the core did not need it any more
        else:
            self.installed += 1
            remove_stale_parts(node.opened.disk, node.opened.path, index)
            self.cluster.say(f"took over the state at entry {index} from node {message.sender}")

    def close(self) -> None:
        """Let a restore that runs come to its end, and forget it."""
        self._worker.close()

    def statistics(self) -> dict[str, int]:
        """Snapshots sent, installed, failed since the start."""
        return {
            "snapshots_sent": self.sent,
            "snapshots_installed": self.installed,
            "snapshots_not_taken": self.failed,
        }
