"""For whoever watches the process: /health, /ready, /metrics. They answer before the node does.

    /health   200 while the process works, 503 once it is stopping after a failure
    /ready    200 when requests are answered: after replay, before shutdown
    /metrics  the node's counters in the Prometheus text format

No key is asked for at the first two: a probe has none. What they say is a word.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from unimeter.keys import Scope
from unimeter.server.pages import Page
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Handler


def endpoints(
    health: Callable[[], Page], ready: Callable[[], Page], metrics: Callable[[], Page]
) -> list[Endpoint]:
    """The three routes; each function gives its page."""

    def served(page: Callable[[], Page]) -> Handler:
        async def handler(call: Call) -> Response:
            if call.principal.is_restricted:
                call.principal.check_sees(None, None)  # the counters are everybody's
            status, kind, body = page()
            return Response(body, status, media_type=kind)

        return handler

    return [
        Endpoint("GET", "/health", served(health), None, "Is the process alive", tag="probes"),
        Endpoint("GET", "/ready", served(ready), None, "Are requests answered", tag="probes"),
        Endpoint("GET", "/metrics", served(metrics), Scope.READ, "For Prometheus", tag="probes"),
    ]
