"""A damaged entry met while the node runs: taken from a peer and put back in its place.

Owns the round from "this entry can't be read" to "it is whole again", one entry at a time. The
start of a node repairs what it meets by itself (`opening`); this is for old entries that nobody
had read since: a follower that catches up needs them, or a query that cuts a bucket.

    log or events: rotten ──> ask a peer over the link ──> its entry ──> wal.repair
                               ^   └─ it has none, it is silent ──> ask the next one
                               └── the entry behind, where several are damaged in a row

Meanwhile a follower that needs the entry is sent nothing, and a query that needs it is told
that the node failed. The entry is noted on the disk as well, so the next start looks at it.
What can't be repaired is said once, and tried again now and then: an operator has to see to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.errors import DataError, RottenEntryError
from unimeter.raft.messages import Entry

if TYPE_CHECKING:
    from unimeter.server.cluster import Cluster

ASK_TICKS = 20  # a peer that does not answer within a second is passed over
REFUSED_TICKS = 1200  # after a minute an entry that could not be repaired is tried again


class Mending:
    """The repairs of one running node."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.repaired = 0
        self._asked = 0  # the entry that is asked for; 0 = none
        self._run: list[Entry] = []  # peers' entries before that one, from the damaged one on
        self._ticks = 0
        self._turn = 0  # which peer is asked next
        self._now = 0  # in ticks
        self._refused: dict[int, int] = {}  # what could not be repaired, and when it is tried again

    def tick(self) -> None:
        """Ask for what is damaged, if anything is."""
        log = self.cluster.node.replica.log
        self._now += 1
        # Nothing waits for what can't be repaired now; whoever reads it finds it again.
        log.rotten.difference_update(
            index for index, again in self._refused.items() if self._now < again
        )
        rotten = log.first_rotten()
        if self._asked:
            self._ticks += 1
            if self._ticks < ASK_TICKS:
                return
        self._asked, self._run = 0, []
        if rotten:
            self._ask(rotten)

    def _ask(self, index: int) -> None:
        peers = self.cluster.peers
        reachable = [node for node in self.cluster.members.others if peers.is_up(node)]
        if not reachable:
            return
        self._turn += 1
        node_id = reachable[self._turn % len(reachable)]
        self._asked, self._ticks = index, 0
        peers.fetch(node_id, index)

    def fetched(self, node_id: int, entry: Entry | None) -> None:
        """A peer's answer."""
        node = self.cluster.node
        if entry is None or entry.index != self._asked:
            return
        run, self._asked, self._run = [*self._run, entry], 0, []
        index = run[0].index
        if index not in node.replica.log.rotten:
            return
        try:
            node.wal.repair(*run)
        except DataError as error:
            wants = error.wants if isinstance(error, RottenEntryError) else 0
            if wants and wants <= node.wal.synced_index:
                self._run, self._asked, self._ticks = run, wants, 0
                self.cluster.peers.fetch(node_id, wants)
                return
            self._refuse(index, error)
            return
        node.replica.log.rotten.discard(index)
        self._refused.pop(index, None)
        self.repaired += 1
        self.cluster.say(
            f"entry {index} was damaged and is repaired from node {node_id}; "
            "have a look at this node's disk"
        )
        node.request_turn()

    def _refuse(self, index: int, error: DataError) -> None:
        self.cluster.node.replica.log.rotten.discard(index)
        if index not in self._refused:
            self.cluster.say(f"entry {index} is damaged and can't be repaired: {error}")
        self._refused[index] = self._now + REFUSED_TICKS
