"""Linearizable reads without a log entry: ReadIndex, dissertation §6.4.

Owns the reads that wait for a majority to confirm that this node still leads.
Refuses leases: a lease trusts clocks not to drift, and this design does not.

    read arrives           remember the commit index, give the read a number
    next heartbeat         carries the newest number
    a majority answered n  this node led after read n arrived: reads 1..n are safe
                           at their commit indexes, once the host has applied that far

Reads are numbered rather than known by the host's own context: one answer confirms
every read before it, and two hosts may choose the same context. The numbers start
again in each term, where a late answer of an earlier term has been refused already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unimeter.raft.messages import NO_NODE
from unimeter.raft.quorum import committed_index

_NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read that may be answered once the host has applied `index`."""

    index: int
    context: bytes


@dataclass(frozen=True, slots=True)
class WaitingRead:
    """A read and the node that asked; `index` is the commit index when it arrived."""

    sender: int
    context: bytes
    index: int = 0


class ReadIndex:
    """The reads of one leader in one term."""

    __slots__ = ("_acks", "_confirmed", "_waiting", "postponed")

    def __init__(self) -> None:
        self._acks: dict[int, int] = {}  # node -> highest number it answered
        self._confirmed = 0  # number of the last read that was released
        self._waiting: list[WaitingRead] = []
        # Reads before this leader has committed an entry of its own term: until then it
        # can't know which entries of earlier terms are committed, §8.
        self.postponed: list[WaitingRead] = []

    def add(self, sender: int, context: bytes, commit: int) -> None:
        self._waiting.append(WaitingRead(sender or NO_NODE, context, commit))

    def heartbeat_context(self) -> bytes:
        """What a heartbeat has to carry so that its answer confirms all that wait."""
        if not self._waiting:
            return b""
        return (self._confirmed + len(self._waiting)).to_bytes(_NUMBER_BYTES, "little")

    def acknowledge(self, node: int, context: bytes) -> None:
        """Note a heartbeat's answer. A number never given out would be the sender's fault."""
        number = int.from_bytes(context, "little")
        if number <= self._confirmed + len(self._waiting):
            self._acks[node] = max(self._acks.get(node, 0), number)

    def release(self, voters: Iterable[int], own_id: int) -> list[WaitingRead]:
        """The reads that a majority has confirmed, this node included."""
        newest = self._confirmed + len(self._waiting)
        confirmed = committed_index(
            [newest if voter == own_id else self._acks.get(voter, 0) for voter in voters]
        )
        count = confirmed - self._confirmed
        if count <= 0:
            return []
        released = self._waiting[:count]
        del self._waiting[:count]
        self._confirmed = confirmed
        return released

    def __len__(self) -> int:
        return len(self._waiting) + len(self.postponed)
