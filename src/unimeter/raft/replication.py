"""What a leader sends: appends, snapshots, heartbeats; and when an entry is committed.

Owns the sending half of log replication (§5.3) and the one rule of commitment
(§5.4.2). Refuses to look at answers; `leader` does, and calls here.
"""

from __future__ import annotations

from collections.abc import Sequence

from unimeter.raft.core import Core
from unimeter.raft.messages import (
    MSG_APP,
    MSG_HEARTBEAT,
    MSG_SNAP,
    MSG_TIMEOUT_NOW,
    Entry,
    Message,
    payload_size,
)
from unimeter.raft.progress import REPLICATE, Progress
from unimeter.raft.quorum import committed_index
from unimeter.raft.storage import Compacted, SnapshotTemporarilyUnavailable, Unavailable


def maybe_send_append(core: Core, to: int, progress: Progress, send_if_empty: bool = True) -> bool:
    """Send the next entries to a node, or a snapshot if they are gone; False if nothing was sent.

    An append without entries is worth sending for its commit index, or as a probe.
    """
    if progress.is_paused():
        return False
    log = core.log
    previous = progress.next - 1
    entries: Sequence[Entry] = ()
    try:
        previous_term = log.term(previous)
        # With a full window, an empty append: if all that is on its way was lost, the
        # refusal of this one says so.
        if progress.state is not REPLICATE or not progress.inflights.is_full():
            entries = log.entries_from(progress.next, core.config.max_size_per_message)
    except (Compacted, Unavailable):
        return _maybe_send_snapshot(core, to, progress)
    if not entries and not send_if_empty:
        return False
    core.send(
        Message(
            MSG_APP,
            to,
            core.id,
            log_term=previous_term,
            index=previous,
            entries=entries,
            commit=log.committed,
        )
    )
    progress.sent_entries(len(entries), payload_size(entries))
    progress.sent_commit = log.committed
    return True


def _maybe_send_snapshot(core: Core, to: int, progress: Progress) -> bool:
    if not progress.recent_active:
        return False
    try:
        snapshot = core.log.snapshot()
    except SnapshotTemporarilyUnavailable:
        return False
    assert snapshot.meta.index > 0, "entries are compacted, and there is no snapshot of them"
    progress.become_snapshot(snapshot.meta.index)
    if core.trace is not None:
        core.trace("DEBUG", f"{core.id:x} sent snapshot {snapshot.meta} to {to:x} [{progress}]")
    core.send(Message(MSG_SNAP, to, core.id, snapshot=snapshot))
    return True


def broadcast_append(core: Core) -> None:
    for to, progress in core.peers:
        maybe_send_append(core, to, progress)


def broadcast_heartbeat(core: Core) -> None:
    """Tell every peer that this node leads; the answers confirm the reads that wait."""
    context = core.reads.heartbeat_context()
    committed = core.log.committed
    for to, progress in core.peers:
        # Not past what is known to be equal there: a peer may hold other entries behind it.
        commit = min(progress.match, committed)
        core.send(Message(MSG_HEARTBEAT, to, core.id, commit=commit, context=context))
        progress.sent_commit = commit


def send_timeout_now(core: Core, to: int) -> None:
    """Tell a caught-up node to campaign at once, dissertation §3.10."""
    core.send(Message(MSG_TIMEOUT_NOW, to, core.id))


def maybe_commit(core: Core) -> bool:
    """Commit what a majority holds; True if that is news.

    Only an entry of the current term is committed by counting copies; those before it
    are committed along with it. Counting copies of an older one is not enough: a node
    with a higher last term could still be elected and replace it (figure 8).
    """
    log = core.log
    index = committed_index([progress.match for progress in core.progress.values()])
    if index <= log.committed or log.term_or_zero(index) != core.term:
        return False
    log.commit_to(index)
    return True
