"""The node's figures as Prometheus wants them.

Owns the names that dashboards are built on, listed in docs/operating/metrics.md
(a test compares the two), one module for each part of a server:

    traffic   events, outcomes, requests, connections, logins, TLS
    log       entries, syncs, applying, snapshots, the disk, the engine's tables
    cluster   term, elections, peers, lag
    http      requests by route, streams, webhooks
    families  how a family is made

Base units, `_total` for counters, `_seconds`, `_bytes`; labels only from small fixed sets. An
account, a metric's code or a key is never a label: there are millions of them, and a scrape is
no place for customers' names. Of a URL only the route's pattern is one.

Everything is read from `statistics()` when a scrape asks, so serving no scraper
costs nothing.

Rejected: the process-wide default registry. Two servers in one test process
would register the same names twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from unimeter.server.metrics import cluster, http, log, traffic
from unimeter.server.pages import TEXT, Page

if TYPE_CHECKING:
    from unimeter.server.server import Server

PARTS = (traffic, log, cluster, http)


class NodeCollector:
    """Reads one server when a scrape asks."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def collect(self) -> Iterator[Any]:
        """Every family, in the order of the documentation."""
        for part in PARTS:
            yield from part.families(self.server)


def metrics_page(server: Server) -> Callable[[], Page]:
    """The page of /metrics; it says so where `prometheus_client` is not installed."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST as kind
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    except ImportError:
        text = b"install prometheus_client to have metrics\n"
        return lambda: (HTTPStatus.NOT_IMPLEMENTED, TEXT, text)
    registry = CollectorRegistry()
    registry.register(NodeCollector(server))
    ProcessCollector(registry=registry)
    return lambda: (HTTPStatus.OK, kind, generate_latest(registry))
