"""The nouns of the protocol: entries, messages, the persistent state, a snapshot's head.

Owns the vocabulary that nodes of one group share, in the words of the Raft paper
and of etcd's library, whose transcripts run against this package. Refuses to know
bytes: how a message looks on a wire is the host's, and so is what an entry means.
Raft itself makes one kind of entry, the empty one that begins a leader's term
(`NOOP`); every other kind is opaque.

    host:  kind, timestamp_ns, body   ──►   raft:  index, term   ──►   log

A `Message` is one class with all the fields, most of them unused in any one type.
A class for each type was rejected: a reply is built from a request field by field
on the hot path, the transcripts print all of them the same way, and a host encodes
one shape instead of twenty.

Which fields a type uses:

    MsgApp          index/log_term of the entry before, entries, commit
    MsgAppResp      index acknowledged; rejected: index refused, reject_hint and its log_term
    MsgVote         index/log_term of the candidate's last entry; context for a transfer
    MsgSnap         snapshot
    MsgHeartbeat    commit, context of the newest read that waits
    MsgReadIndex    context; its reply has the index too
    MsgStorage...   see `ready`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

NO_NODE: Final = 0  # "nobody": no leader known, no vote cast
# Targets of the messages to the host's own storage, with asynchronous storage writes.
LOCAL_APPEND_THREAD: Final = (1 << 64) - 1
LOCAL_APPLY_THREAD: Final = (1 << 64) - 2

NOOP: Final = 0  # the kind of the empty entry that begins a leader's term
NO_LIMIT: Final = (1 << 64) - 1
# What an entry costs beside its body, in the limits on messages and on entries being
# applied: about the header that a log and a wire give it.
ENTRY_OVERHEAD: Final = 32


@dataclass(slots=True)
class Entry:
    """One entry of the log. Nobody changes one, so the nodes of a simulator may share it.

    A proposer sets `kind`, `timestamp_ns` and `body`; index and term are the leader's.
    """

    index: int
    term: int
    kind: int
    timestamp_ns: int
    body: bytes | memoryview


def entry_size(entry: Entry) -> int:
    """Bytes of an entry as the limits on messages and on entries being applied count them."""
    return len(entry.body) + ENTRY_OVERHEAD


def payload_size(entries: Sequence[Entry]) -> int:
    """Bytes of bodies: what bounds a leader's uncommitted tail and the bytes in flight."""
    size = 0
    for entry in entries:
        size += len(entry.body)
    return size


class Role(IntEnum):
    """What a node is in its term."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3

    def __str__(self) -> str:
        return _ROLE_NAMES[self]


_ROLE_NAMES = ("StateFollower", "StateCandidate", "StateLeader", "StatePreCandidate")


class HardState(NamedTuple):
    """What must be durable before a reply that rests on it: §5.1 and §5.4.1 of the paper.

    The commit index need not be; it is written along because it saves work after a restart.
    """

    term: int = 0
    vote: int = NO_NODE
    commit: int = 0


class SoftState(NamedTuple):
    """What a host may want to show; never stored."""

    lead: int
    role: Role


class ConfState(NamedTuple):
    """The voters of a group, ascending."""

    voters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """Which entry a snapshot includes last, and the voters at it."""

    index: int = 0
    term: int = 0
    voters: tuple[int, ...] = ()


@dataclass(slots=True)
class Snapshot:
    """A state at an index. `data` is the host's: a handle, a path, or nothing at all."""

    meta: SnapshotMeta
    data: object | None = None


class MessageType(IntEnum):
    """etcd's numbers; `str()` gives etcd's names, which transcripts and metrics use."""

    MSG_HUP = 0
    MSG_BEAT = 1
    MSG_PROP = 2
    MSG_APP = 3
    MSG_APP_RESP = 4
    MSG_VOTE = 5
    MSG_VOTE_RESP = 6
    MSG_SNAP = 7
    MSG_HEARTBEAT = 8
    MSG_HEARTBEAT_RESP = 9
    MSG_UNREACHABLE = 10
    MSG_SNAP_STATUS = 11
    MSG_CHECK_QUORUM = 12
    MSG_TRANSFER_LEADER = 13
    MSG_TIMEOUT_NOW = 14
    MSG_READ_INDEX = 15
    MSG_READ_INDEX_RESP = 16
    MSG_PRE_VOTE = 17
    MSG_PRE_VOTE_RESP = 18
    MSG_STORAGE_APPEND = 19
    MSG_STORAGE_APPEND_RESP = 20
    MSG_STORAGE_APPLY = 21
    MSG_STORAGE_APPLY_RESP = 22

    def __str__(self) -> str:
        return "".join(word.capitalize() for word in self.name.split("_"))


@dataclass(slots=True)
class Message:
    """One message, to a peer or to the host's own storage. Its receiver must not change it."""

    type: MessageType
    to: int = NO_NODE
    sender: int = NO_NODE
    term: int = 0  # 0: local, or not bound to a term (MsgProp, MsgReadIndex, MsgStorageApply)
    log_term: int = 0
    index: int = 0
    entries: Sequence[Entry] = ()
    commit: int = 0
    vote: int = NO_NODE
    snapshot: Snapshot | None = None
    reject: bool = False
    reject_hint: int = 0
    context: bytes = b""
    # Only in MsgStorageAppend and MsgStorageApply: to be delivered after the work is done.
    responses: Sequence[Message] = ()


# Reading a member of an enumeration by its class costs a call in Python 3.11.
MSG_HUP: Final = MessageType.MSG_HUP
MSG_BEAT: Final = MessageType.MSG_BEAT
MSG_PROP: Final = MessageType.MSG_PROP
MSG_APP: Final = MessageType.MSG_APP
MSG_APP_RESP: Final = MessageType.MSG_APP_RESP
MSG_VOTE: Final = MessageType.MSG_VOTE
MSG_VOTE_RESP: Final = MessageType.MSG_VOTE_RESP
MSG_SNAP: Final = MessageType.MSG_SNAP
MSG_HEARTBEAT: Final = MessageType.MSG_HEARTBEAT
MSG_HEARTBEAT_RESP: Final = MessageType.MSG_HEARTBEAT_RESP
MSG_UNREACHABLE: Final = MessageType.MSG_UNREACHABLE
MSG_SNAP_STATUS: Final = MessageType.MSG_SNAP_STATUS
MSG_CHECK_QUORUM: Final = MessageType.MSG_CHECK_QUORUM
MSG_TRANSFER_LEADER: Final = MessageType.MSG_TRANSFER_LEADER
MSG_TIMEOUT_NOW: Final = MessageType.MSG_TIMEOUT_NOW
MSG_READ_INDEX: Final = MessageType.MSG_READ_INDEX
MSG_READ_INDEX_RESP: Final = MessageType.MSG_READ_INDEX_RESP
MSG_PRE_VOTE: Final = MessageType.MSG_PRE_VOTE
MSG_PRE_VOTE_RESP: Final = MessageType.MSG_PRE_VOTE_RESP
MSG_STORAGE_APPEND: Final = MessageType.MSG_STORAGE_APPEND
MSG_STORAGE_APPEND_RESP: Final = MessageType.MSG_STORAGE_APPEND_RESP
MSG_STORAGE_APPLY: Final = MessageType.MSG_STORAGE_APPLY
MSG_STORAGE_APPLY_RESP: Final = MessageType.MSG_STORAGE_APPLY_RESP
FOLLOWER: Final = Role.FOLLOWER
CANDIDATE: Final = Role.CANDIDATE
LEADER: Final = Role.LEADER
PRE_CANDIDATE: Final = Role.PRE_CANDIDATE

# Made by a node for itself; such a type from a peer is refused.
LOCAL_TYPES: Final = (
    MSG_HUP,
    MSG_BEAT,
    MSG_UNREACHABLE,
    MSG_SNAP_STATUS,
    MSG_CHECK_QUORUM,
    MSG_STORAGE_APPEND,
    MSG_STORAGE_APPEND_RESP,
    MSG_STORAGE_APPLY,
    MSG_STORAGE_APPLY_RESP,
)
# Answers to something this node asked; one from a stranger is refused.
RESPONSE_TYPES: Final = (
    MSG_APP_RESP,
    MSG_VOTE_RESP,
    MSG_HEARTBEAT_RESP,
    MSG_UNREACHABLE,
    MSG_READ_INDEX_RESP,
    MSG_PRE_VOTE_RESP,
    MSG_STORAGE_APPEND_RESP,
    MSG_STORAGE_APPLY_RESP,
)
LOCAL_TARGETS: Final = (LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD)
