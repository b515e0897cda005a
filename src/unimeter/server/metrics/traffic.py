"""What clients bring and get: events, outcomes, requests, connections, logins, TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unimeter.server.metrics.families import counter, counters, gauge, gauges
from unimeter.types import Outcome
from unimeter.version import VERSION

if TYPE_CHECKING:
    from unimeter.server.server import Server


def families(server: Server) -> Iterator[Any]:
    """Every family of this part."""
    yield gauges("unimeter_build_info", "1, with the version as a label", "version", {VERSION: 1})
    yield from _ingest(server)
    yield from _requests(server)
    yield from _connections(server)
    yield from _security(server)


def _ingest(server: Server) -> Iterator[Any]:
    counts = server.node.statistics
    outcomes: dict[str, float] = {
        "stored": counts.events_stored,
        "duplicate": counts.events_duplicate,
    }
    outcomes |= {Outcome(kind).name.lower(): seen for kind, seen in counts.refused.items()}
    yield counters("unimeter_events", "Events applied, by what became of them", "outcome", outcomes)
    events = {way: intake.events for way, intake in counts.intakes.items()}
    size = {way: intake.bytes for way, intake in counts.intakes.items()}
    yield counters("unimeter_ingest_events", "Events taken in here, by way in", "port", events)
    yield counters("unimeter_ingest_bytes", "Bytes of requests, by way in", "port", size)
    yield counter("unimeter_alerts", "Threshold crossings", counts.alerts_raised)


def _requests(server: Server) -> Iterator[Any]:
    counts, reads = server.node.statistics, server.node.reads.statistics()
    results: dict[str, float] = {
        "answered": counts.requests_answered,
        "refused": counts.requests_refused,
        "backpressure": counts.requests_backpressure,
        "not_leading": counts.requests_not_leading,
        "forwarded": counts.requests_forwarded,
        "read_timeout": reads["read_timeouts"],
    }
    text = "Requests other than accepted ingest"
    yield counters("unimeter_requests", text, "result", results)
    yield counter("unimeter_edge_scans", "Queries that read stored events", counts.edge_scans)
    yield gauge(
        "unimeter_accepting", "1 while events are taken, 0 in backpressure", not server.node.refusal
    )
    yield gauges("unimeter_queue", "Waiting just now", "queue", queues(server))


def queues(server: Server) -> dict[str, float]:
    """How much stands in each line of the server, most upstream first."""
    waiting: dict[str, float] = {}
    site = server.site.statistics() if server.site is not None else {}
    waiting["http"] = site.get("http_requests_waiting", 0)
    waiting["gateway"] = site.get("gateway_waiting", 0)
    if server.cluster is not None:
        waiting["forwards"] = server.cluster.forwarder.statistics()["forwards_waiting"]
    waiting["scans"] = server.clients.statistics()["scans_waiting"]
    return waiting | server.node.queues()


def _connections(server: Server) -> Iterator[Any]:
    counts, clients = server.node.statistics, server.clients.statistics()
    yield gauge("unimeter_connections", "Open connections", clients["connections"])
    yield gauge("unimeter_connections_slow", "Not reading", clients["connections_slow"])
    yield gauge("unimeter_subscribers", "Hearing alerts", clients["connections_subscribed"])
    yield gauge("unimeter_held_bytes", "Incomplete frames held", clients["held_bytes"])
    yield counter("unimeter_connections_opened", "Accepted", counts.connections_opened)
    cut: dict[str, float] = {
        "bad_magic": counts.closed_bad_magic,
        "slow_reader": counts.closed_slow_reader,
        "too_many": counts.closed_too_many,
    }
    text = "Closed by the node, by reason"
    yield counters("unimeter_connections_cut", text, "reason", cut)


def _security(server: Server) -> Iterator[Any]:
    auth = server.auth
    yield counter("unimeter_logins_refused", "Logins refused, on both ports", auth.logins_refused)
    text = "1 while there is no key, and everybody may do everything"
    yield gauge("unimeter_open", text, not auth.has_key)
    tls = server.tls_statistics()
    if tls:
        yield from _tls(tls)


def _tls(counts: dict[str, int]) -> Iterator[Any]:
    text = "When this node's certificate ends, in Unix time"
    yield gauge("unimeter_tls_certificate_expires_seconds", text, counts["tls_expires"])
    reads: dict[str, float] = {
        "taken": counts["tls_reloads"],
        "failed": counts["tls_reload_failures"],
    }
    text = "Certificates read again while running"
    yield counters("unimeter_tls_reloads", text, "result", reads)
    failed: dict[str, float] = {
        "handshake": counts["handshakes_failed"],
        "plain": counts["refused_plain"],
    }
    text = "Connections that did not come to TLS"
    yield counters("unimeter_tls_refused", text, "reason", failed)
