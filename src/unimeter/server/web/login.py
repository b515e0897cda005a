"""Who makes a request: from its headers to a `Principal`, and what guessing costs.

Owns where a token may stand, in this order:

    Authorization: Bearer <key or token>     and Basic, with the key as the user's name
    ?token=                                  a portal token, where the route takes one
    Cookie: unimeter_session=                a browser that logged in by POST /v1/session

A cookie comes with a request whoever had the browser send it, so one that changes something
also needs the header `X-Unimeter-Request`, which another site's page can't set. It holds a
session and nothing else: a key or a portal token in it is refused, or a portal token would get by
what is closed to it. Who needs no key is looked at by `origin`.

Failed logins are counted for each address. Beyond FAILURES_MAX in FAILURE_SECONDS the answer
is 429 in place of 401. A right key is let in all the same: it is looked at first, so
nobody behind the same proxy can lock others out, and a secret of 256 bits is not guessed.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

from unimeter.errors import ForbiddenError, UnauthenticatedError
from unimeter.keys import ANYBODY, PORTAL_PREFIX, Principal
from unimeter.server.web import origin
from unimeter.server.web.problems import Problem

if TYPE_CHECKING:
    from unimeter.server.auth import Auth
    from unimeter.server.web.endpoint import Endpoint

COOKIE: Final = "unimeter_session"
REQUEST_HEADER: Final = "x-unimeter-request"
FAILURES_MAX: Final = 20  # of one address in FAILURE_SECONDS: a program with an old key is told so
FAILURE_SECONDS: Final = 60.0
ADDRESSES_MAX: Final = 4096  # whose failures are remembered; then the oldest is forgotten
COOKIE_CHARACTERS_MAX: Final = 8192


class Failures:
    """Failed logins of the last while, by address."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[str, list[float]] = OrderedDict()  # [since when, how many]

    def note(self, address: str) -> float:
        """One more; the seconds to wait if there were too many, else 0."""
        now = self._clock()
        found = self._known.pop(address, None)
        if found is None or now - found[0] >= FAILURE_SECONDS:
            found = [now, 0.0]
        found[1] += 1
        self._known[address] = found
        if len(self._known) > ADDRESSES_MAX:
            self._known.popitem(last=False)
        return 0.0 if found[1] <= FAILURES_MAX else found[0] + FAILURE_SECONDS - now

    def __len__(self) -> int:
        return len(self._known)


def identify(auth: Auth, failures: Failures, request: Request, endpoint: Endpoint) -> Principal:
    """Who asks. Raises UnauthenticatedError, ForbiddenError, or a Problem for too many tries."""
    token = shown_token(request, endpoint)
    try:
        principal = _who(auth, request, endpoint, token)
    except UnauthenticatedError as error:
        raise refused(failures, request, error, is_wrong=bool(token)) from None
    if principal is ANYBODY:
        origin.check_host(request, auth.config)
        origin.check_page(request)
    return principal


def _who(auth: Auth, request: Request, endpoint: Endpoint, token: str) -> Principal:
    if token:
        return _checked(auth.login(token), token, endpoint)
    cookie = shown_cookie(request)
    return _by_cookie(auth, request, cookie) if cookie else auth.anybody()


def refused(
    failures: Failures, request: Request, error: UnauthenticatedError, *, is_wrong: bool
) -> Exception:
    """The refusal of a login; `is_wrong`: something was shown, and it was not good."""
    seconds = failures.note(address_of(request)) if is_wrong else 0.0
    if not seconds:
        return error
    text = "too many logins failed from this address; wait, and check the key"
    return Problem(429, "too-many", text, headers={"Retry-After": str(int(seconds) + 1)})


def _checked(principal: Principal, token: str, endpoint: Endpoint) -> Principal:
    if token.startswith(PORTAL_PREFIX + "_") and principal.key_id and not endpoint.takes_portal:
        raise ForbiddenError("a portal token opens the pages made for it only; this needs a key")
    return principal


def _by_cookie(auth: Auth, request: Request, cookie: str) -> Principal:
    principal = auth.login_session(cookie)
    origin.check_page(request)
    if request.method not in origin.SAFE and REQUEST_HEADER not in request.headers:
        raise ForbiddenError(
            "a change asked for by a browser's session needs the header X-Unimeter-Request: 1"
        )
    return principal


def shown_token(request: Request, endpoint: Endpoint) -> str:
    """The key or token that a request carries; "" if it has none."""
    header = request.headers.get("authorization", "")
    if header:
        return _of_header(header)
    return request.query_params.get("token", "") if endpoint.takes_portal else ""


def _of_header(header: str) -> str:
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value
    if scheme.lower() == "basic":
        try:
            name = base64.b64decode(value, validate=True).decode("ascii").partition(":")[0]
        except (binascii.Error, UnicodeDecodeError, ValueError):
            name = ""
        if name:
            return name
    raise UnauthenticatedError("Authorization must be `Bearer <key>`")


def shown_cookie(request: Request) -> str:
    """The session that a browser carries; "" if it has none."""
    header = request.headers.get("cookie", "")
    if COOKIE not in header or len(header) > COOKIE_CHARACTERS_MAX:
        return ""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def session_cookie(value: str, seconds: int, *, is_secure: bool) -> str:
    """The Set-Cookie header of a session; no value ends it."""
    parts = [f"{COOKIE}={value}", "Path=/", f"Max-Age={seconds}", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*parts, "Secure"] if is_secure else parts)


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client is not None else ""
