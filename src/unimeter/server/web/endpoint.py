"""One route: what it needs, what it gives, who may use it.

Owns the nouns that the rest is made from. A module of handlers ends with a list:

    ENDPOINTS = [
        Endpoint("GET", "/v1/totals", totals, Scope.READ, "The total of an account",
                 params=(ACCOUNT, METRIC, *RANGE), answers={200: Total}),
    ]

`site` puts it on the router; `openapi` describes it; the test of rights walks it; the metrics
are labelled with `path`. What is not in such a list is not served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from unimeter.keys import Scope
from unimeter.server.web.problems import Problem

if TYPE_CHECKING:
    from unimeter.server.web.call import Call

Handler = Callable[["Call"], Awaitable[Response]]


@dataclass(frozen=True)
class Param:
    """One parameter of a query, a path or a header."""

    name: str
    doc: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    where: str = "query"  # or path, header
    required: bool = False
    example: Any = None


@dataclass(frozen=True)
class Endpoint:
    """A method and a path, and all that is promised of it.

    `scope` None: nobody is asked who they are (probes, static files). `body` and `answers`
    map content types and statuses to msgspec types or JSON schemas; an error that any route can
    give (400, 401, 403, 429, 503) need not be listed.
    """

    method: str
    path: str  # in Starlette's words: /v1/metrics/{code}
    handler: Handler
    scope: Scope | None
    summary: str
    description: str = ""
    tag: str = ""
    params: tuple[Param, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)  # content type -> type or schema
    answers: Mapping[int, Any] = field(default_factory=dict)  # status -> type, schema or None
    is_listed: bool = True  # in the OpenAPI page
    takes_portal: bool = False  # whether a portal token is let in: it only ever reads its account
    failure: Callable[[Problem], Response] = Problem.response  # how a problem is told here
    failure_shape: Mapping[str, Any] | None = None  # of its JSON; None: problem+json

    @property
    def is_strict(self) -> bool:
        """Whether a parameter that is not described is refused: a misspelt one would vanish.

        Clients of other products may send theirs; a page keeps its own in its address.
        """
        is_ours = self.path.startswith("/v1/") and self.tag != "compatible"
        is_twin = self.tag == "dashboard" and self.path.endswith((".json", ".csv"))
        return is_ours or is_twin
