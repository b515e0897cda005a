"""What a node is told when it starts, and the rules that this must keep.

Owns the limits of the core, each with its unit. Refuses defaults that hide a
choice of deployment: who a node is and who votes has to be said. Randomness is
injected (`random_ticks`), so that the simulator draws every election from its own
seed; the core has no clock either, a tick is whatever the host calls one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unimeter.errors import InvalidInputError
from unimeter.raft.messages import LOCAL_TARGETS, NO_LIMIT, Entry, entry_size

Trace = Callable[[str, str], None]  # (level, text)


def _no_random_ticks(ticks: int) -> int:
    """No spread: for a group of one, and for tests that set every timeout themselves."""
    return 0


@dataclass(slots=True)
class Config:
    """How one node takes part in its group. Sizes are bytes, times are ticks."""

    node_id: int
    # Empty: taken from the storage, or from the first snapshot that a leader sends.
    voters: tuple[int, ...] = ()
    # A follower that hears nothing from a leader for election_ticks to 2 * election_ticks - 1
    # campaigns; a leader that hears nothing from a majority for election_ticks steps down.
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    # Both on by default: together they end the livelock of an asymmetric partition
    # (a node that hears nobody but is heard would depose every leader).
    pre_vote: bool = True
    check_quorum: bool = True
    max_size_per_message: int = 1024 * 1024  # one MsgApp; at least one entry goes in any case
    # Entries handed out for applying and not yet reported applied; 0: max_size_per_message.
    max_committed_size_per_ready: int = 0
    max_uncommitted_size: int = 0  # bodies a leader appends before they commit; 0: no limit
    max_inflight_messages: int = 256  # MsgApps with entries to one peer without an answer
    max_inflight_bytes: int = 0  # bodies in them; 0: no limit
    async_storage_writes: bool = False
    # With asynchronous writes: a request for votes leaves after the candidate's own log and
    # vote are durable. Else a candidate that crashes, loses entries it had not synced and
    # starts again in the same term could win with votes that were given to its longer log.
    votes_wait_for_sync: bool = True
    forward_proposals: bool = True  # a follower sends proposals on to the leader it knows
    applied: int = 0  # last index in the host's state, when it restarts
    random_ticks: Callable[[int], int] = _no_random_ticks  # n -> 0..n-1
    # Counts an entry for the limits on messages and on entries being applied.
    entry_size: Callable[[Entry], int] = entry_size
    trace: Trace | None = None

    def check(self) -> None:
        """Raise InvalidInputError for the first rule that is broken."""
        _require(self.node_id > 0, f"node_id must be above 0, not {self.node_id}")
        _require(self.node_id not in LOCAL_TARGETS, f"node_id {self.node_id} is reserved")
        _require(len(set(self.voters)) == len(self.voters), f"voters repeat: {self.voters}")
        _require(all(voter > 0 for voter in self.voters), f"voters must be above 0: {self.voters}")
        _require(self.heartbeat_ticks > 0, "heartbeat_ticks must be above 0")
        _require(
            self.election_ticks > self.heartbeat_ticks,
            f"election_ticks ({self.election_ticks}) must be above heartbeat_ticks "
            f"({self.heartbeat_ticks}), about ten times it",
        )
        _require(self.max_size_per_message >= 0, "max_size_per_message must not be negative")
        _require(self.max_inflight_messages > 0, "max_inflight_messages must be above 0")
        _require(
            self.max_inflight_bytes == 0 or self.max_inflight_bytes >= self.max_size_per_message,
            "max_inflight_bytes must be 0 (no limit) or at least max_size_per_message",
        )
        _require(self.applied >= 0, "applied must not be negative")

    @property
    def committed_size_limit(self) -> int:
        return self.max_committed_size_per_ready or self.max_size_per_message

    @property
    def uncommitted_size_limit(self) -> int:
        return self.max_uncommitted_size or NO_LIMIT

    @property
    def inflight_bytes_limit(self) -> int:
        return self.max_inflight_bytes or NO_LIMIT


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise InvalidInputError(f"raft: {rule}")
