"""How replicas agree: Raft as a function of its inputs, in the image of etcd's library.

A node is a `RawNode`. It is told of time (`tick`), of messages (`step`) and of what the
host wants stored (`propose`), and hands out in `Ready` what to write, to send and to
apply, with the order in which that is safe. No clock, disk, socket, thread or chance
is in here, so the simulator runs this code and no model of it.

Read on in this order: `messages` the nouns, `ready` the contract with a host,
`rawnode` the face, `raft` terms and dispatch, then `leader`, `follower`, `election`,
`replication`, and below them `core`, `log`, `unstable`, `progress`, `read_index`.

The protocol is that of Ongaro's paper and dissertation: elections with pre-vote and
a leader that steps down without a majority, pipelined appends, snapshots, reads by
ReadIndex (no leases), transfer of leadership. Membership is fixed. The behaviour is
checked against transcripts of etcd's library (tests/conformance/etcd_raft).
"""

from __future__ import annotations

from unimeter.raft.config import Config
from unimeter.raft.messages import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_LIMIT,
    NO_NODE,
    NOOP,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
    SnapshotMeta,
    SoftState,
)
from unimeter.raft.progress import Progress, ProgressState
from unimeter.raft.rawnode import ProposalDropped, RawNode, Status
from unimeter.raft.read_index import ReadState
from unimeter.raft.ready import Ready
from unimeter.raft.storage import (
    Compacted,
    MemoryStorage,
    SnapshotTemporarilyUnavailable,
    Storage,
    Unavailable,
)

__all__ = [
    "RawNode",
    "Config",
    "Ready",
    "Storage",
    "MemoryStorage",
    "Entry",
    "Message",
    "MessageType",
    "Snapshot",
    "SnapshotMeta",
    "HardState",
    "SoftState",
    "ConfState",
    "Role",
    "Status",
    "Progress",
    "ProgressState",
    "ReadState",
    "ProposalDropped",
    "Compacted",
    "Unavailable",
    "SnapshotTemporarilyUnavailable",
    "LOCAL_APPEND_THREAD",
    "LOCAL_APPLY_THREAD",
    "NO_LIMIT",
    "NO_NODE",
    "NOOP",
]
