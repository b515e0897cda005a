"""The HTTP side of a node: every route on one port, in the node's own loop.

Owns the order in which a request is looked at, the same for every route:

    route there? ─> who? (`auth`) ─> may they? (scope) ─> handler ─> answer
      404, 405        401              403                 problem, never a traceback

The port answers from the moment it is taken: the probes at once, everything else "503, come
again" until `attach` says that there is a node.

Rejected: uvicorn's own Server, which wants the loop, the signals and the sockets; its protocol
class does not, and the loop's `create_server` takes it like any other.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.config import Config as UvicornConfig
from uvicorn.server import ServerState

from unimeter.errors import BackpressureError, InvalidInputError, UnimeterError
from unimeter.keys import ANYBODY, Principal
from unimeter.server.mapping import load_mapping
from unimeter.server.web import docs_page, login, openapi, origin, probes
from unimeter.server.web.api import accounts, dry_runs, ingest, keys, lists, status, stream, totals
from unimeter.server.web.api import metrics as metrics_api
from unimeter.server.web.api import webhooks as webhooks_api
from unimeter.server.web.api.known import check_query
from unimeter.server.web.api.places import placed
from unimeter.server.web.bodies import Bodies
from unimeter.server.web.call import Call
from unimeter.server.web.compatible import openmeter, otlp, stripe
from unimeter.server.web.crowd import Crowd
from unimeter.server.web.dashboard import pages, usage, views
from unimeter.server.web.dashboard.history import History
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.gateway import ADDRESS, Gateway
from unimeter.server.web.problems import Problem, bad, problem_of
from unimeter.server.web.protocol import KEEP_ALIVE_SECONDS, HttpProtocol
from unimeter.server.web.watch import Watch

if TYPE_CHECKING:
    from unimeter.server.server import Server

CLOSE_SECONDS = 2.0
SETTLE_SECONDS = 2.0  # an election, and a round trip to the others


class Site:
    """The routes of one server, and their connections."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.loop, self.config = server, loop, server.config
        self.gateway: Gateway  # from `attach` on
        self.is_attached = False
        self.history = History()
        self.is_trying = False  # a dry run is under way
        self.bodies = Bodies()
        self.crowd = Crowd(server.shares.http)
        self.mappings = load_mapping(self.config.mapping_file)
        self.failures = login.Failures(server.platform.monotonic)
        self.watch = Watch(server)
        self.endpoints: list[Endpoint] = [
            *probes.endpoints(server.health_page, server.ready_page, server.metrics_page),
            *api_endpoints(),
        ]
        self.app = Starlette(
            routes=[self._route(endpoint) for endpoint in self.endpoints],
            exception_handlers={HTTPException: self._no_route},
        )
        self.app.router.redirect_slashes = False  # a path is what it is: else 404
        self._uvicorn = UvicornConfig(
            self.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            http=HttpProtocol,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._uvicorn.load()
        self._state = ServerState()
        self.tick()

    # --- life ------------------------------------------------------------------------

    def connection(self) -> HttpProtocol:
        """The protocol of a new socket: asyncio calls this."""
        met_tls = self.server.met_tls
        return HttpProtocol(self._uvicorn, self._state, self.loop, self.crowd, met_tls)

    def attach(self) -> None:
        """There is a node: answer from now on."""
        self.gateway = Gateway(self.server.clients)
        self.is_attached = True

    def keys_changed(self) -> None:
        """End the streams and bodies of whoever would not be let in any more."""
        for connection in list(self._state.connections):
            assert isinstance(connection, HttpProtocol)
            connection.look_at_key(self.server.auth.is_good)

    def tick(self) -> None:
        """Once a second: the date of the answers, clients that are too slow, and a reading."""
        if self.is_attached:
            self.history.sample(self.server.node)
        for connection in list(self._state.connections):
            assert isinstance(connection, HttpProtocol)
            connection.look()
        seconds = self.server.platform.time_ns() // 10**9
        date = email.utils.formatdate(seconds, usegmt=True).encode()
        self._state.default_headers = [(b"date", date)]

    async def close(self) -> None:
        """Answer what is under way, then close every connection."""
        for connection in list(self._state.connections):
            connection.shutdown()
        deadline = self.loop.time() + CLOSE_SECONDS
        while self._state.connections and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        self.abort()

    def abort(self) -> None:
        """Close every connection now."""
        if self.is_attached:
            self.gateway.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()

    @cached_property
    def description(self) -> dict[str, Any]:
        """The OpenAPI document of every route."""
        return openapi.document(self.endpoints)

    def openapi(self) -> bytes:
        """The same as JSON."""
        return json.dumps(self.description, ensure_ascii=False).encode()

    def docs(self) -> bytes:
        """The same as a page."""
        return docs_page.page(self.description, f"/static/{pages.version()}").encode()

    def statistics(self) -> dict[str, int]:
        """Open connections, and requests under way."""
        waiting = self.gateway.statistics() if self.is_attached else {}
        return {
            "http_connections": len(self._state.connections),
            "http_requests_waiting": len(self._state.tasks),
            **self.bodies.statistics(),
            **self.crowd.statistics(),
            **waiting,
        }

    # --- one request -----------------------------------------------------------------

    def _route(self, endpoint: Endpoint) -> Route:
        async def answer(request: Request) -> Response:
            try:
                return await self._answer(endpoint, request)
            except InvalidInputError as error:
                return endpoint.failure(placed(request, error))
            except Exception as error:
                return endpoint.failure(self._failed(error))

        route = Route(endpoint.path, answer, methods=[endpoint.method])
        route.app = self.watch.around(endpoint, route.app)
        return route

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        principal = ANYBODY
        if "host" not in request.headers and request.scope["http_version"] == "1.1":
            raise bad("Host", "is missing", "the header that HTTP/1.1 asks for")
        if endpoint.scope is not None:
            if endpoint.path != "/metrics":
                self.check_ready()
            principal = await self._who(request, endpoint)
            principal.check(endpoint.scope)
            self._remember(request, principal)
        else:
            origin.check_page(request)
        if endpoint.is_strict:
            check_query(endpoint, request.query_params)
        ADDRESS.set(login.address_of(request))
        call = Call(self, request, principal)
        try:
            return await endpoint.handler(call)
        finally:
            call.close()

    async def _who(self, request: Request, endpoint: Endpoint) -> Principal:
        """Who asks. A node that has just started may have to learn first which keys there are."""
        try:
            return self.identify(request, endpoint)
        except BackpressureError:
            deadline = self.loop.time() + SETTLE_SECONDS
            while not self.server.auth.is_settled and self.loop.time() < deadline:
                await asyncio.sleep(0.02)
            return self.identify(request, endpoint)

    def _remember(self, request: Request, principal: Principal) -> None:
        """Keep who asks with the connection, so that a stream can be ended."""
        connection = request.scope.get("state", {}).get("connection")
        if connection is not None:
            connection.let_in(principal)

    def check_ready(self) -> None:
        """Raise while there is no node to ask."""
        if not self.is_attached:
            text = "the node is not ready: it replays its log, or stops"
            raise Problem(503, "wait", text, headers={"Retry-After": "1"})

    def identify(self, request: Request, endpoint: Endpoint) -> Principal:
        """Who asks; UnauthenticatedError if that can't be told."""
        if not self.is_attached:
            return ANYBODY  # of /metrics, which says nothing yet
        return login.identify(self.server.auth, self.failures, request, endpoint)

    def _failed(self, error: Exception) -> Problem:
        if isinstance(error, AssertionError):
            self.server.node.fail(error)  # a broken invariant stops the process
        elif not isinstance(error, UnimeterError | Problem):
            self.server.platform.log.error(error)
        return problem_of(error)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        self.watch.no_route(error.status_code)
        if error.status_code == 405:
            allowed = ", ".join(self._methods(request.scope["path"]))
            text = f"{request.method} is not for this path, which takes {allowed}"
            return Problem(405, "method", text, headers={"Allow": allowed}).response()
        return Problem(404, "no-route", "there is nothing at this path; see /docs").response()

    def _methods(self, path: str) -> list[str]:
        """Every method that some route takes at a path."""
        found: set[str] = set()
        for route in self.app.routes:
            assert isinstance(route, Route)
            if route.path_regex.match(path):
                found |= route.methods or set()
        return sorted(found)


def api_endpoints() -> Sequence[Endpoint]:
    """Every route but the probes."""
    return [
        *ingest.ENDPOINTS,
        *docs_page.ENDPOINTS,
        *openapi.ENDPOINTS,
        *accounts.ENDPOINTS,
        *lists.ENDPOINTS,
        *metrics_api.ENDPOINTS,
        *status.ENDPOINTS,
        *totals.ENDPOINTS,
        *keys.ENDPOINTS,
        *stream.ENDPOINTS,
        *openmeter.ENDPOINTS,
        *otlp.ENDPOINTS,
        *stripe.ENDPOINTS,
        *dry_runs.ENDPOINTS,
        *webhooks_api.ENDPOINTS,
        *views.ENDPOINTS,
        *usage.ENDPOINTS,
        *pages.ENDPOINTS,
    ]
