"""Who leads and who follows: term, elections, links to peers, lag.

Of the other nodes only as far as they are heard; nothing here asks one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unimeter.server.metrics.families import counter, gauge, gauges

if TYPE_CHECKING:
    from unimeter.server.cluster import Cluster
    from unimeter.server.server import Server


def families(server: Server) -> Iterator[Any]:
    """Every family of this part."""
    node, elections = server.node, server.node.statistics.elections
    yield gauge("unimeter_term", "Raft term", node.replica.raft.term)
    yield gauge("unimeter_leader", "1 while this node leads", node.leads)
    yield gauge("unimeter_leader_known", "1 while some node is known to lead", bool(node.lead))
    yield counter("unimeter_term_changes", "New terms seen", elections.term_changes)
    yield counter("unimeter_times_led", "Elections won by this node", elections.times_led)
    yield counter("unimeter_leader_changes", "New leaders seen", elections.lead_changes)
    if server.cluster is not None:
        yield from _peers(server.cluster)


def _peers(cluster: Cluster) -> Iterator[Any]:
    own = cluster.node.node_id
    nodes = cluster.standing.nodes()
    up = {str(one.node_id): cluster.peers.is_up(one.node_id) for one in nodes}
    del up[str(own)]
    lag = {str(one.node_id): one.lag for one in nodes}
    yield gauges("unimeter_peer_up", "1 while the peer is reached", "node", up)
    yield gauges("unimeter_replica_lag_entries", "Behind the leader", "node", lag)
    links = dict(sorted(cluster.statistics().items()))
    yield gauges("unimeter_peer_links", "Counters of the links to peers", "what", links)
