"""Keys, sessions and the trail by HTTP.

    POST   /v1/session     a browser shows a key and gets a cookie for 12 hours
    GET    /v1/session     who am I
    DELETE /v1/session     forget the cookie
    GET    /v1/keys        all keys, without what would open anything
    POST   /v1/keys        make one; the answer is the only place where the key stands
    DELETE /v1/keys/{id}   revoke it
    GET    /v1/audit       who changed what, newest first

The key is made here and only its record goes on to the log. (The SDK and the command line make it
themselves, so there it never travels at all.)
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from unimeter.accounts import EXACT_MAX, account_of_json
from unimeter.control import AUDIT_COLUMNS, AuditRecord
from unimeter.errors import UnauthenticatedError
from unimeter.keys import (
    ANYBODY,
    NAME_CHARACTERS_MAX,
    TOKEN_CHARACTERS_MAX,
    KeyRecord,
    Principal,
    Scope,
    new_key,
    record_of,
)
from unimeter.server.web.answers import answer, rows
from unimeter.server.web.api.params import FORMAT
from unimeter.server.web.api.schemas import AccountName, MetricCode
from unimeter.server.web.api.times import time_text
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Param
from unimeter.server.web.login import refused, session_cookie
from unimeter.server.web.problems import bad
from unimeter.wire import messages as m

AUDIT_PAGE = 1000
KEY_COLUMNS = ("id", "name", "scopes", "account", "metric", "created", "revoked")


_ID_WANTED = "the id of a key, as GET /v1/keys shows it"


class SessionBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a browser logs in with."""

    key: Annotated[str, Meta(min_length=1, max_length=TOKEN_CHARACTERS_MAX)]


class KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a new key should be."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=3)]
    account: AccountName | None = None
    metric: MetricCode | None = None


# --- sessions -----------------------------------------------------------------------


async def log_in(call: Call) -> Response:
    """POST /v1/session."""
    body = await call.small_json(SessionBody)
    call.site.check_ready()
    auth = call.site.server.auth
    try:
        principal = auth.login_key(body.key)
    except UnauthenticatedError as error:
        raise refused(call.site.failures, call.request, error, is_wrong=True) from None
    if principal is ANYBODY:
        return answer(_who(call, principal))
    token, expires = auth.new_session(principal)
    seconds = expires - call.site.server.platform.time_ns() // 10**9
    cookie = session_cookie(token, seconds, is_secure=_is_secure(call))
    shown = _who(call, principal) | {"expires": time_text(expires * 10**9)}
    return answer(shown, headers={"Set-Cookie": cookie, "Cache-Control": "no-store"})


async def log_out(call: Call) -> Response:
    """DELETE /v1/session."""
    cookie = session_cookie("", 0, is_secure=_is_secure(call))
    return answer(None, headers={"Set-Cookie": cookie})


async def who_am_i(call: Call) -> Response:
    """GET /v1/session."""
    return answer(_who(call, call.principal), headers={"Cache-Control": "no-store"})


def _who(call: Call, principal: Principal) -> dict[str, Any]:
    return {
        "is_open": call.site.server.auth.is_open,
        "key": principal.key_id,
        "name": principal.name,
        "scopes": sorted(str(scope) for scope in principal.scopes),
        "account": principal.account,
        "metrics": None if principal.metrics is None else sorted(principal.metrics),
        "expires": time_text(principal.expires_ns) if principal.expires_ns else None,
    }


def _is_secure(call: Call) -> bool:
    return call.request.url.scheme == "https"


# --- keys ---------------------------------------------------------------------------


async def list_keys(call: Call) -> Response:
    """GET /v1/keys."""
    response, position = await call.site.gateway.ask(m.KeyList(), call.principal)
    assert isinstance(response, m.KeyListReply)
    return rows(call, KEY_COLUMNS, map(_key_cells, response.keys), position=position)


def _key_cells(record: KeyRecord) -> tuple[Any, ...]:
    return (
        record.id,
        record.name,
        [str(scope) for scope in record.scopes],
        record.account,
        record.metric,
        time_text(record.created_ns),
        time_text(record.revoked_ns),
    )


async def make_key(call: Call) -> Response:
    """POST /v1/keys."""
    body = await call.json(KeyBody)
    key = new_key(call.site.server.platform.entropy)
    account = None if body.account is None else account_of_json(body.account)
    record = record_of(key, body.name, body.scopes, account, body.metric)
    _, position = await call.site.gateway.ask(m.KeyPut(record), call.principal)
    shown = dict(zip(KEY_COLUMNS[:5], _key_cells(record)[:5], strict=True))
    headers = {"Cache-Control": "no-store", "Location": f"/v1/keys/{record.id}"}
    return answer({"key": key, **shown}, position, status=201, headers=headers)


async def revoke_key(call: Call) -> Response:
    """DELETE /v1/keys/{id}."""
    ident = call.path("id")
    if len(ident) > TOKEN_CHARACTERS_MAX or not ident.isascii():
        raise bad("id", "is no key's id", _ID_WANTED)
    if ident.startswith("um_"):
        raise bad("id", "is a key; name its id, which stands behind um_", _ID_WANTED)
    _, position = await call.site.gateway.ask(m.KeyRevoke(ident), call.principal)
    return answer(None, position)


# --- the trail -----------------------------------------------------------------------


async def audit(call: Call) -> Response:
    """GET /v1/audit."""
    limit = call.integer("limit", 100, 1, AUDIT_PAGE)
    before = call.integer("before", 0, 0, EXACT_MAX)
    response, position = await call.site.gateway.ask(m.AuditList(before, limit), call.principal)
    assert isinstance(response, m.AuditListReply)
    following = response.records[-1].index if response.more else None
    more = {"before": following} if following else {}
    lines = map(AuditRecord.cells, response.records)
    return rows(call, AUDIT_COLUMNS, lines, position=position, more=more)


_BEFORE = Param("before", "Only records of entries before this index; 0 = from the newest on.",
                {"type": "integer", "minimum": 0}, example=0)  # fmt: skip
_LIMIT = Param("limit", "How many records at most.",
               {"type": "integer", "minimum": 1, "maximum": AUDIT_PAGE}, example=100)  # fmt: skip
_ID = Param(
    "id",
    "The key's id.",
    {"type": "string", "pattern": "^[a-z2-7]{12}$"},
    where="path",
    required=True,
    example="4fk2p7x2ab3d",
)

ENDPOINTS = [
    Endpoint("POST", "/v1/session", log_in, None, "Log a browser in with a key", tag="keys",
             body={"application/json": SessionBody},
             answers={200: {"type": "object"}, 401: None, 429: None}),
    Endpoint("GET", "/v1/session", who_am_i, Scope.READ, "Who am I", tag="keys",
             answers={200: {"type": "object"}}, takes_portal=True),
    Endpoint("DELETE", "/v1/session", log_out, None, "Log a browser out", tag="keys",
             answers={204: None}),
    Endpoint("GET", "/v1/keys", list_keys, Scope.ADMIN, "List keys", tag="keys",
             params=(FORMAT,), answers={200: {"type": "object"}}),
    Endpoint("POST", "/v1/keys", make_key, Scope.ADMIN, "Make a key", tag="keys",
             body={"application/json": KeyBody}, answers={201: {"type": "object"}, 409: None}),
    Endpoint("DELETE", "/v1/keys/{id}", revoke_key, Scope.ADMIN, "Revoke a key", tag="keys",
             params=(_ID,), answers={204: None, 404: None, 409: None}),
    Endpoint("GET", "/v1/audit", audit, Scope.ADMIN, "Who changed what", tag="keys",
             params=(_BEFORE, _LIMIT, FORMAT), answers={200: {"type": "object"}}),
]  # fmt: skip
