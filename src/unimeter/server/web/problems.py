"""What went wrong with a request, as RFC 9457 wants it: application/problem+json.

    {"type": "urn:unimeter:problem:invalid-input",
     "title": "Invalid input", "status": 400, "detail": "what was wrong and what to do",
     "errors": [{"path": "$[3].value", "index": 3, "field": "value", "reason": "...",
                 "expected": "an integer from -2^63 to 2^63-1"}]}

Owns which status and which type stands for which exception of the package, once for all
routes. A failure of our own says its class and nothing else: no traceback leaves the process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from unimeter import errors

CONTENT_TYPE = "application/problem+json"
POSITION = "Unimeter-Position"
_INDEX = re.compile(r"\$(?:\.events)?\[([0-9]+)\]")
_BRACKETS = re.compile(r"\[[^\]]*\]")
TYPE_PREFIX = "urn:unimeter:problem:"
RETRY_SECONDS = 1

_OF_CLASS: tuple[tuple[type[Exception], HTTPStatus, str], ...] = (
    # Subclasses first: the first match wins.
    (errors.NotFoundError, HTTPStatus.NOT_FOUND, "not-found"),
    (errors.AlreadyExistsError, HTTPStatus.CONFLICT, "already-exists"),
    (errors.RangeUnavailableError, HTTPStatus.GONE, "range-unavailable"),
    (errors.SessionExpiredError, HTTPStatus.SERVICE_UNAVAILABLE, "outcome-unknown"),
    (errors.UnauthenticatedError, HTTPStatus.UNAUTHORIZED, "unauthenticated"),
    (errors.ForbiddenError, HTTPStatus.FORBIDDEN, "forbidden"),
    (errors.ClientError, HTTPStatus.BAD_REQUEST, "invalid-input"),
    (errors.BackpressureError, HTTPStatus.SERVICE_UNAVAILABLE, "wait"),
    (errors.ConnectionError, HTTPStatus.SERVICE_UNAVAILABLE, "outcome-unknown"),
    (errors.DeadlineExceededError, HTTPStatus.GATEWAY_TIMEOUT, "outcome-unknown"),
)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a request: where, and what would be right."""

    path: str  # JSON path of the item, such as $[3].value; a parameter's name; line 17
    reason: str
    expected: str = ""
    index: int | None = None  # of the event in its batch
    field: str = ""


class Problem(Exception):
    """Raised by a handler: the request is answered with it."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        faults: Sequence[Fault] = (),
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`kind` ends the type's URN; `more` are members of this problem's own."""
        super().__init__(detail)
        self.status, self.kind, self.detail, self.faults = status, kind, detail, faults
        self.headers, self.more = dict(headers or {}), dict(more or {})

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        found: dict[str, Any] = {
            "type": TYPE_PREFIX + self.kind,
            "title": self.kind.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
        }
        if self.faults:
            found["errors"] = [
                {name: value for name, value in asdict(fault).items() if value not in ("", None)}
                for fault in self.faults
            ]
        return found | self.more

    def response(self) -> Response:
        """The HTTP response."""
        body = json.dumps(self.body(), ensure_ascii=False).encode()
        return Response(body, self.status, self.headers, CONTENT_TYPE)


def bad(path: str, reason: str, expected: str = "", index: int | None = None) -> Problem:
    """A 400 about one place of the request."""
    fault = fault_at(path, reason, expected, index)
    wanted = f"; expected {expected}" if expected else ""
    return Problem(400, "invalid-input", f"{path}: {reason}{wanted}", [fault])


def fault_at(path: str, reason: str, expected: str = "", index: int | None = None) -> Fault:
    """A fault; the index and the field are in the path: $[3].value is field `value` of 3."""
    found = _INDEX.match(path)
    if index is None and found is not None:
        index = int(found[1])
    name = _BRACKETS.sub("", path).rpartition(".")[2].removeprefix("$")
    return Fault(path, reason, expected, index, name)


def position_ahead(wanted: int, applied: int) -> Problem:
    """A 412: the request names a position of the log that is not reached here."""
    text = (
        f"position {wanted} is asked for and this node has {applied}; "
        "send a position that an answer of this cluster gave"
    )
    expected = f"a position up to {applied}, or a later one once it is reached"
    fault = Fault(POSITION, f"is {wanted}", expected, field=POSITION)
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return Problem(412, "position-ahead", text, [fault], headers=headers)


def problem_of(error: Exception) -> Problem:
    """The problem that stands for an exception of the package."""
    if isinstance(error, Problem):
        return error
    for error_class, status, kind in _OF_CLASS:
        if isinstance(error, error_class):
            headers = {}
            if status is HTTPStatus.UNAUTHORIZED:
                headers["WWW-Authenticate"] = 'Bearer realm="unimeter"'
            if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
                wait = getattr(error, "retry_after", 0.0)
                headers["Retry-After"] = str(max(RETRY_SECONDS, round(wait)))
            return Problem(int(status), kind, str(error), headers=headers)
    return Problem(500, "internal", f"the node failed: {type(error).__name__}; see its log")
