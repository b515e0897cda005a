"""The HTTP side: requests by route, connections, streams, webhooks.

A route is an endpoint's pattern (``/v1/metrics/{code}``), never a URL. A route that nobody has
asked for has no line yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unimeter.server.metrics.families import (
    counter,
    counter_rows,
    counters,
    gauge,
    gauge_rows,
    gauges,
    histogram_rows,
)

if TYPE_CHECKING:
    from unimeter.server.server import Server
    from unimeter.server.web.watch import Watch

NO_ROUTE = "none"  # requests for no route at all are only counted

_ROUTE = ("route", "method")


def families(server: Server) -> Iterator[Any]:
    """Every family of this part."""
    yield from _streams(server)
    yield from _webhooks(server)
    if server.site is None:
        return
    counts = server.site.statistics()
    yield gauge("unimeter_http_connections", "Open HTTP connections", counts["http_connections"])
    text = "Connections that made room for another, without a key or idle"
    yield counter("unimeter_http_turned_out", text, counts["http_turned_out"])
    text = "Connections for which there was no room"
    yield counter("unimeter_http_refused", text, counts["http_refused"])
    yield gauge("unimeter_http_body_bytes", "Bodies held just now", counts["http_body_bytes"])
    text = "Bodies refused because too much was held"
    yield counter("unimeter_http_bodies_refused", text, counts["http_bodies_refused"])
    yield from _routes(server.site.watch)


def _streams(server: Server) -> Iterator[Any]:
    """Readers that hear alerts and totals as they change, by HTTP and on the binary port."""
    counts = server.clients.pumps.statistics()
    yield gauge("unimeter_streams", "Open streams", counts["live_streams"])
    sent: dict[str, float] = {
        "alert": counts["live_alerts_sent"],
        "total": counts["live_totals_sent"],
        "overflow": counts["live_overflows"],
    }
    yield counters("unimeter_stream_items", "Sent to streams, by kind", "kind", sent)
    seconds = counts["live_microseconds"] / 1e6
    yield counter("unimeter_stream_seconds", "Spent on streams, on the loop", seconds)


def _webhooks(server: Server) -> Iterator[Any]:
    """Deliveries of the node that leads; the others have none under way."""
    counts = server.clients.webhooks.statistics()
    ended: dict[str, float] = {
        "delivered": counts["webhook_delivered"],
        "failed": counts["webhook_failed"],
    }
    yield counters("unimeter_webhook_attempts", "Attempts, by what came of them", "result", ended)
    states: dict[str, float] = {
        "active": counts["webhook_senders"] - counts["webhook_paused"],
        "paused": counts["webhook_paused"],
    }
    yield gauges("unimeter_webhooks", "Webhooks, by state", "state", states)
    yield gauge("unimeter_webhook_in_flight", "Under way just now", counts["webhook_inflight"])
    yield gauge("unimeter_webhook_retrying", "Alerts tried again", counts["webhook_retrying"])
    text = "Alerts that the slowest active webhook is behind"
    yield gauge("unimeter_webhook_lag_alerts", text, counts["webhook_lag"])


def _routes(watch: Watch) -> Iterator[Any]:
    seen = [((one.route, one.method), one) for one in watch.seen()]
    requests = [
        ((*key, status), number)
        for key, one in seen
        for status, number in sorted(one.requests.items())
    ]
    text = "Requests answered, by class of status"
    yield counter_rows("unimeter_http_requests", text, (*_ROUTE, "status"), requests)
    seen = [(key, one) for key, one in seen if one.route != NO_ROUTE]
    seconds = [(key, one.seconds) for key, one in seen]
    text = "From the head of a request to the end of its answer"
    yield histogram_rows("unimeter_http_request_seconds", text, _ROUTE, seconds)
    for name, text, what in (
        ("unimeter_http_request_bytes", "Bytes of bodies that came", "bytes_in"),
        ("unimeter_http_response_bytes", "Bytes of bodies that went", "bytes_out"),
    ):
        yield counter_rows(name, text, _ROUTE, [(key, getattr(one, what)) for key, one in seen])
    under_way = [(key, float(one.in_flight)) for key, one in seen]
    yield gauge_rows("unimeter_http_in_flight", "Requests under way", _ROUTE, under_way)
