"""Snapshots on their way to a follower whose entries the leader's log no longer has.

Owns the bridge between the core, which says *send a snapshot* and *a snapshot came*, and
the transfer of the file (`peer_snapshots`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.raft.messages import Message

if TYPE_CHECKING:
    from unimeter.server.cluster import Cluster


class Transfers:
    """The transfers of one node, out and in."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def begin(self, message: Message) -> None:
        """The core wants a follower to have the newest snapshot."""
        self.cluster.node.replica.raft.report_snapshot(message.to, False)

    def link_lost(self, node_id: int) -> None:
        """The link to a node is lost."""

    def close(self) -> None:
        """Give up what is under way."""
