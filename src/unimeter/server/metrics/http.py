"""The HTTP side: requests by route, connections, streams, webhooks.

A route is an endpoint's pattern (``/v1/metrics/{code}``), never a URL. A route that nobody has
asked for has no line yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unimeter.server.metrics.families import counter_rows, gauge, gauge_rows, histogram_rows

if TYPE_CHECKING:
    from unimeter.server.server import Server
    from unimeter.server.web.watch import Watch

NO_ROUTE = "none"  # requests for no route at all are only counted

_ROUTE = ("route", "method")


def families(server: Server) -> Iterator[Any]:
    """Every family of this part."""
    if server.site is None:
        return
    counts = server.site.statistics()
    yield gauge("unimeter_http_connections", "Open HTTP connections", counts["http_connections"])
    yield from _routes(server.site.watch)


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
