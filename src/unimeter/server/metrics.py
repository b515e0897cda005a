"""The node's figures as Prometheus wants them.

Owns the names that dashboards are built on, listed in docs/operating/metrics.md
(a test compares the two). Base units, `_total` for counters, `_seconds`,
`_bytes`; labels only from small fixed sets. An account is never a label: there
are millions of them, and a scrape is no place for customers' names.

Everything is read from `Statistics` when a scrape asks, so serving no scraper
costs nothing.

Rejected: the process-wide default registry. Two servers in one test process
would register the same names twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from unimeter.server.clients import Clients
from unimeter.server.cluster import Cluster
from unimeter.server.node import Node
from unimeter.server.pages import TEXT, Page


class NodeCollector:
    """Reads one node when a scrape asks."""

    def __init__(self, node: Node, clients: Clients, cluster: Cluster | None = None) -> None:
        self.node, self.clients, self.cluster = node, clients, cluster

    def collect(self) -> Iterable[Any]:
        """Every family, in the order of the documentation."""
        yield from self._traffic()
        yield from self._log()
        yield from self._replication()
        yield from self._state()
        yield from self._connections()

    def _traffic(self) -> Iterable[Any]:
        counts = self.node.statistics
        events = counter("unimeter_events", "Events ingested, by what became of them", "outcome")
        events.add_metric(["stored"], counts.events_stored)
        events.add_metric(["duplicate"], counts.events_duplicate)
        events.add_metric(["refused"], counts.events_refused)
        yield events
        requests = counter("unimeter_requests", "Requests other than accepted ingest", "result")
        requests.add_metric(["answered"], counts.requests_answered)
        requests.add_metric(["refused"], counts.requests_refused)
        requests.add_metric(["backpressure"], counts.requests_backpressure)
        yield requests
        yield single("unimeter_alerts", "Threshold crossings", counts.alerts_raised)
        yield single("unimeter_edge_scans", "Queries that read stored events", counts.edge_scans)

    def _log(self) -> Iterable[Any]:
        node = self.node
        counts, wal = node.statistics, node.wal
        yield single("unimeter_entries", "Log entries appended", counts.entries_appended)
        yield single("unimeter_log_bytes", "Bytes appended to the log", counts.bytes_appended)
        syncs = counter("unimeter_syncs", "Syncs of the log, by thread", "thread")
        syncs.add_metric(["loop"], counts.syncs_inline)
        syncs.add_metric(["sync"], counts.syncs_handed)
        yield syncs
        seconds = counts.sync_seconds
        yield histogram("unimeter_sync_seconds", "Write and sync of one group", seconds)
        yield histogram("unimeter_entry_events", "Events in one log entry", counts.entry_events)
        yield gauge("unimeter_log_index", "Index of the last entry", wal.last_index)
        yield gauge("unimeter_synced_index", "Index of the last durable entry", wal.synced_index)
        yield gauge("unimeter_applied_index", "Index of the last entry applied", self._applied)
        yield gauge("unimeter_inflight_bytes", "Appended and not applied", node.inflight_bytes)
        yield gauge("unimeter_disk_free_bytes", "Free on the volume", node.upkeep.free_bytes)
        yield gauge(
            "unimeter_accepting", "1 while events are taken, 0 in backpressure", not node.refusal
        )
        snapshots = counter("unimeter_snapshots", "Snapshots ended, by result", "result")
        snapshots.add_metric(["written"], counts.snapshots_written)
        snapshots.add_metric(["failed"], counts.snapshots_failed)
        yield snapshots
        yield gauge(
            "unimeter_snapshot_index",
            "Index of the newest snapshot",
            node.opened.snapshots.last_index,
        )
        yield gauge(
            "unimeter_log_since_snapshot_bytes",
            "Log that a restart would replay",
            node.upkeep.log_bytes_since_snapshot,
        )

    def _replication(self) -> Iterable[Any]:
        """Term, role and positions; of the peers, as far as they are heard."""
        raft, reads = self.node.replica.raft, self.node.reads.statistics()
        yield gauge("unimeter_term", "Raft term", raft.term)
        yield gauge("unimeter_leader", "1 while this node leads", self.node.leads)
        yield gauge("unimeter_commit_index", "Index of the last committed entry", raft.commit)
        yield gauge("unimeter_reads_waiting", "Waiting for a position", reads["reads_waiting"])
        yield single(
            "unimeter_requests_not_leading",
            "Taken in and refused because another node leads",
            self.node.statistics.requests_not_leading,
        )
        if self.cluster is None:
            return
        yield single(
            "unimeter_requests_forwarded",
            "Sent on to the node that leads",
            self.node.statistics.requests_forwarded,
        )
        up = labelled_gauge("unimeter_peer_up", "1 while the peer is reached", "node")
        lag = labelled_gauge("unimeter_replica_lag_entries", "Behind the leader", "node")
        for status in self.cluster.standing.nodes():
            lag.add_metric([str(status.node_id)], status.lag)
            if status.node_id != self.node.node_id:
                up.add_metric([str(status.node_id)], self.cluster.peers.is_up(status.node_id))
        yield up
        yield lag
        links = labelled_gauge("unimeter_peer_links", "Counters of the links to peers", "what")
        for name, value in sorted(self.cluster.statistics().items()):
            links.add_metric([name], value)
        yield links

    @property
    def _applied(self) -> int:
        return self.node.machine.applied

    def _state(self) -> Iterable[Any]:
        """The engine's sizes: whatever it counts, as gauges of one family."""
        family = labelled_gauge("unimeter_state", "Sizes of the engine's tables", "what")
        with self.node.lock:
            sizes = self.node.machine.statistics()
        for name, value in sorted(sizes.items()):
            family.add_metric([name], value)
        yield family

    def _connections(self) -> Iterable[Any]:
        counts, clients = self.node.statistics, self.clients.statistics()
        yield gauge("unimeter_connections", "Open connections", clients["connections"])
        yield gauge("unimeter_connections_slow", "Not reading", clients["connections_slow"])
        yield gauge("unimeter_subscribers", "Hearing alerts", clients["connections_subscribed"])
        yield gauge("unimeter_held_bytes", "Incomplete frames held", clients["held_bytes"])
        yield single("unimeter_connections_opened", "Accepted", counts.connections_opened)
        closed = counter("unimeter_connections_cut", "Closed by the node, by reason", "reason")
        closed.add_metric(["bad_magic"], counts.closed_bad_magic)
        closed.add_metric(["slow_reader"], counts.closed_slow_reader)
        closed.add_metric(["too_many"], counts.closed_too_many)
        yield closed


def single(name: str, text: str, value: float) -> Any:
    """A counter without labels."""
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, text, value=value)


def counter(name: str, text: str, label: str) -> Any:
    """A counter with one label."""
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, text, labels=[label])


def gauge(name: str, text: str, value: float) -> Any:
    """A gauge without labels."""
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value=value)


def labelled_gauge(name: str, text: str, label: str) -> Any:
    """A gauge with one label."""
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, labels=[label])


def histogram(name: str, text: str, seen: Any) -> Any:
    """A histogram without labels."""
    from prometheus_client.core import HistogramMetricFamily

    return HistogramMetricFamily(name, text, buckets=seen.buckets(), sum_value=seen.total)


def metrics_page(
    node: Node, clients: Clients, cluster: Cluster | None = None
) -> Callable[[], Page]:
    """The page of /metrics; it says so where `prometheus_client` is not installed."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST as kind
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    except ImportError:
        text = b"install prometheus_client to have metrics\n"
        return lambda: (HTTPStatus.NOT_IMPLEMENTED, TEXT, text)
    registry = CollectorRegistry()
    registry.register(NodeCollector(node, clients, cluster))
    ProcessCollector(registry=registry)
    return lambda: (HTTPStatus.OK, kind, generate_latest(registry))
