"""A damaged entry met while the node runs: taken from a peer and put back in its place.

Owns the round from "this entry can't be read" to "it is whole again", one entry at a time. The
start of a node repairs what it meets by itself (`opening`); this is for old entries that nobody
had read since: a follower that catches up needs them, or a query that cuts a bucket.

    log or events: rotten ──> ask a peer over the link ──> its entry ──> wal.repair
                                   └─ it has none, it is silent ──> ask the next one

Meanwhile a follower that needs the entry is sent nothing, and a query that needs it is told
that the node failed. The entry is noted on the disk as well, so the next start looks at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.errors import DataError
from unimeter.raft.messages import Entry

if TYPE_CHECKING:
    from unimeter.server.cluster import Cluster

ASK_TICKS = 20  # a peer that does not answer within a second is passed over


class Mending:
    """The repairs of one running node."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.repaired = 0
        self._asked = 0  # the entry that is asked for; 0 = none
        self._ticks = 0
        self._turn = 0  # which peer is asked next

    def tick(self) -> None:
        """Ask for what is damaged, if anything is."""
        rotten = self.cluster.node.replica.log.first_rotten()
        if self._asked:
            self._ticks += 1
            if self._ticks < ASK_TICKS:
                return
        self._asked = 0
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
        if (
            entry is None
            or entry.index != self._asked
            or entry.index not in node.replica.log.rotten
        ):
            return
        self._asked = 0
        try:
            node.wal.repair(entry)
        except DataError as error:
            self.cluster.say(f"entry {entry.index} is damaged and can't be repaired: {error}")
            node.replica.log.rotten.discard(entry.index)  # the next reader finds it again
            return
        node.replica.log.rotten.discard(entry.index)
        self.repaired += 1
        self.cluster.say(
            f"entry {entry.index} was damaged and is repaired from node {node_id}; "
            "have a look at this node's disk"
        )
        node.request_turn()
