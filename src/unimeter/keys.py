"""API keys: what one looks like, what is kept of it, and what it may do.

    um_4fk2p9x0ab3d_0kq7...52 characters
    │  │            └ secret, 256 random bits in base 32
    │  └ id, 60 random bits: public, in the audit trail and in `unimeter keys list`
    └ so that a scanner of repositories can recognise one

The secret is known to whoever made the key and to nobody else: a node keeps two hashes of
it. `verifier` recognises the key at login; `portal_secret` checks the tokens that a
program signs with its key for its own customers, which it does without asking a node. Whoever
steals the stored state can therefore sign portal tokens, which only read, until the key is
revoked; nobody can log in with it. Secrets have 256 random bits, so one hash is
enough: the slow hashes that passwords need would cost a login, not an attacker.

A `Principal` is who asks, after login: every request on either port is held against one.

    "who are you?"  server.auth      ─> Principal
    "may you?"      Principal.check  ─> ForbiddenError, with what is missing

Rejected: sending the key's hash instead of the key. It would be as good as the key for whoever
hears it; TLS is what keeps a key from being heard.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from unimeter.errors import ForbiddenError, InvalidInputError, UnauthenticatedError
from unimeter.types import Account

PREFIX: Final = "um"
PORTAL_PREFIX: Final = "ump"
ID_CHARACTERS: Final = 12
SECRET_BYTES: Final = 32
TOKEN_CHARACTERS_MAX: Final = 4096  # of anything that somebody claims to be a key or a token
NAME_CHARACTERS_MAX: Final = 64
PORTAL_METRICS_MAX: Final = 32
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_SECRET: Final = re.compile("[a-z2-7]{52}")  # as `new_key` makes them: nobody can guess one
_TOKEN: Final = re.compile(r"\b(um[ps]?_)[\w.\-]+")


class Scope(enum.StrEnum):
    """What a key is for. ADMIN includes the other two."""

    INGEST = "ingest"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What a node keeps of a key. `account`, `metric`: all that it may touch; None = any."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    verifier: bytes = field(repr=False)  # both are empty where a list shows the key
    portal_secret: bytes = field(repr=False)
    account: Account | None = None
    metric: str | None = None
    created_ns: int = 0  # the log's clock
    revoked_ns: int = 0  # 0 = it is good

    @property
    def is_revoked(self) -> bool:
        """Whether it opens nothing any more."""
        return self.revoked_ns > 0

    def principal(self) -> Principal:
        """Who comes with this key."""
        metrics = None if self.metric is None else frozenset([self.metric])
        return Principal(self.id, self.name, frozenset(self.scopes), self.account, metrics)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the key's id and name, and what they may. An empty id = nobody in particular."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    account: Account | None = None
    metrics: frozenset[str] | None = None
    expires_ns: int = 0  # of a portal token or a browser's session; 0 = never

    @property
    def is_restricted(self) -> bool:
        """Whether some accounts or metrics are closed to it."""
        return self.account is not None or self.metrics is not None

    def has(self, scope: Scope) -> bool:
        """Whether its scopes include this one."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def sees(self, account: Account | None, metric: str | None) -> bool:
        """Whether this account and metric are open to it; None stands for all of them."""
        if self.account is not None and (account is None or not same(account, self.account)):
            return False
        return self.metrics is None or (metric is not None and metric in self.metrics)

    def sees_account(self, account: Account) -> bool:
        """Whether this account is open to it, in the metrics that are."""
        return self.account is None or same(account, self.account)

    def check(self, scope: Scope) -> None:
        """Raise ForbiddenError unless its scopes include this one."""
        if not self.has(scope):
            held = ", ".join(sorted(self.scopes)) or "none"
            raise ForbiddenError(f"this needs a key with the scope {scope}; this one has {held}")

    def check_sees(self, account: Account | None, metric: str | None) -> None:
        """Raise ForbiddenError unless this account and metric are open to it."""
        if self.sees(account, metric):
            return
        if self.account is not None and (account is None or not same(account, self.account)):
            raise ForbiddenError(
                f"this key is for the account {self.account!r} only; name it in the request"
            )
        assert self.metrics is not None
        names = ", ".join(sorted(self.metrics))
        raise ForbiddenError(f"this key is for the metric {names} only; name it in the request")


def same(one: Account, other: Account) -> bool:
    """Whether two accounts are one: 1 and True, or 42 and "42", are not."""
    return type(one) is type(other) and one == other


ANYBODY: Final = Principal("", "anybody", frozenset(Scope))
"""Whoever comes while there is no key."""

NOBODY: Final = Principal("", "nobody", frozenset())
"""Who has not shown a key yet."""


# --- keys --------------------------------------------------------------------------


def new_key(entropy: Callable[[int], bytes]) -> str:
    """A new key, from as many random bytes as are asked for."""
    number = int.from_bytes(entropy(8), "big")
    ident = "".join(_ALPHABET[number >> 5 * at & 31] for at in range(ID_CHARACTERS))
    secret = base64.b32encode(entropy(SECRET_BYTES)).decode().rstrip("=").lower()
    return f"{PREFIX}_{ident}_{secret}"


def parse_key(text: str) -> tuple[str, str]:
    """(id, secret); UnauthenticatedError for what is no key, without repeating it."""
    parts = text.split("_") if len(text) <= TOKEN_CHARACTERS_MAX else []
    if len(parts) != 3 or parts[0] != PREFIX or len(parts[1]) != ID_CHARACTERS or not parts[2]:
        raise UnauthenticatedError("this is not a key: one looks like um_<id>_<secret>")
    return parts[1], parts[2]


def verifier_of(secret: str) -> bytes:
    """What recognises the key at login, 32 bytes."""
    return hashlib.sha256(b"unimeter key\0" + secret.encode()).digest()


def portal_secret_of(secret: str) -> bytes:
    """What signs and checks portal tokens, 32 bytes."""
    return hmac.digest(secret.encode(), b"unimeter portal", "sha256")


def record_of(
    key: str,
    name: str,
    scopes: Iterable[Scope | str],
    account: Account | None = None,
    metric: str | None = None,
) -> KeyRecord:
    """What a node should keep of a new key; InvalidInputError for what can't be."""
    ident, secret = parse_key(key)
    if not _SECRET.fullmatch(secret):
        raise InvalidInputError("a key's secret is 52 random characters: make one (new_key)")
    try:
        wanted = tuple(sorted({Scope(scope) for scope in scopes}))
    except ValueError:
        raise InvalidInputError(f"scopes are {', '.join(Scope)}; not {list(scopes)!r}") from None
    if not wanted:
        raise InvalidInputError(f"a key needs a scope: {', '.join(Scope)}")
    if not name or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise InvalidInputError(f"a key needs a name of 1 to {NAME_CHARACTERS_MAX} characters")
    if Scope.ADMIN in wanted and (account is not None or metric is not None):
        raise InvalidInputError("a key with the scope admin can't be for one account or metric")
    return KeyRecord(
        ident, name, wanted, verifier_of(secret), portal_secret_of(secret), account, metric
    )


def without_tokens(text: str) -> str:
    """A text to be written down, without the keys and tokens that stand in it by mistake."""
    return _TOKEN.sub(r"\1...", text)


def check_secret(record: KeyRecord, secret: str) -> bool:
    """Whether `secret` is this key's, in constant time."""
    return hmac.compare_digest(record.verifier, verifier_of(secret))


# --- portal tokens ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PortalClaims:
    """What a portal token says: who signed it, what may be read, until when (Unix seconds)."""

    key_id: str
    account: Account
    metrics: tuple[str, ...]  # empty = all
    expires: int


def sign_portal_token(key: str, account: Account, metrics: Iterable[str], expires: int) -> str:
    """A token that may read one account until `expires` (Unix seconds), signed by `key`."""
    ident, secret = parse_key(key)
    names = list(metrics)
    if len(names) > PORTAL_METRICS_MAX:
        raise InvalidInputError(f"a portal token names at most {PORTAL_METRICS_MAX} metrics")
    return _signed(portal_secret_of(secret), ident, {"a": account, "m": names, "e": expires})


def _signed(portal_secret: bytes, ident: str, claims: dict[str, Any]) -> str:
    body = _encode(json.dumps(claims, separators=(",", ":"), sort_keys=True).encode())
    signed = f"{PORTAL_PREFIX}_{ident}.{body}"
    return f"{signed}.{_encode(hmac.digest(portal_secret, signed.encode(), 'sha256'))}"


def portal_key_id(token: str) -> str:
    """The id of the key that claims to have signed a token; UnauthenticatedError if none can."""
    head = token.partition(".")[0] if len(token) <= TOKEN_CHARACTERS_MAX else ""
    prefix, _, ident = head.partition("_")
    if prefix != PORTAL_PREFIX or len(ident) != ID_CHARACTERS:
        raise UnauthenticatedError("this is not a portal token")
    return ident


def check_portal_token(token: str, record: KeyRecord, now_ns: int) -> PortalClaims:
    """What a token says, once its signature and time are good; else UnauthenticatedError.

    Another key's record is refused like a wrong signature, in the same words and time: whoever
    tries ids learns none.
    """
    parts = token.split(".")
    ident = portal_key_id(token)
    if len(parts) != 3 or not token.isascii():
        raise UnauthenticatedError("this is not a portal token")
    right = _encode(hmac.digest(record.portal_secret, ".".join(parts[:2]).encode(), "sha256"))
    if not hmac.compare_digest(right, parts[2]) or ident != record.id:
        raise UnauthenticatedError("no key that is known here signed this portal token")
    found = _claims_of(record.id, parts[1])
    if found.expires * 10**9 <= now_ns:
        raise UnauthenticatedError("the portal token has expired; have a new one made")
    return found


def _claims_of(key_id: str, body: str) -> PortalClaims:
    """What was signed. Whoever has the key may have signed anything."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        account, metrics, expires = claims["a"], claims["m"], claims["e"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnauthenticatedError("the portal token says nothing that can be read") from None
    is_account = isinstance(account, str) or (type(account) is int and 0 <= account < 2**64)
    is_list = isinstance(metrics, list) and all(isinstance(code, str) for code in metrics)
    if not (is_account and is_list and type(expires) is int and 0 <= expires < 2**40):
        raise UnauthenticatedError("the portal token says nothing that can be read")
    return PortalClaims(key_id, account, tuple(metrics), expires)


def portal_principal(record: KeyRecord, claims: PortalClaims) -> Principal:
    """Who comes with a portal token: never more than the key that signed it may read."""
    if record.is_revoked:
        raise UnauthenticatedError("the key that signed this portal token is revoked")
    signer = record.principal()
    signer.check(Scope.READ)
    metrics = frozenset(claims.metrics) if claims.metrics else None
    if signer.account is not None and not same(signer.account, claims.account):
        raise ForbiddenError("the portal token names an account that its key may not read")
    if signer.metrics is not None:
        metrics = signer.metrics if metrics is None else metrics & signer.metrics
    return Principal(
        record.id,
        f"portal of {record.name}",
        frozenset([Scope.READ]),
        claims.account,
        metrics,
        claims.expires * 10**9,
    )


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
