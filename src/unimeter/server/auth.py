"""Who is it: from a key, a portal token or a browser's session to a `Principal`.

Owns login for both ports and the question whether anybody is let in without one. Keys come
from two places: the replicated state (`machine.administration`), and a file on this host
(`admin_key_file`) for whoever hands out secrets as files.

    token ─ um_...   a key                its secret's hash is compared
          ─ ump_...  a portal token       signed with a key, by whoever has it
          ─ ums_...  a browser's session  signed by a node, after a login with a key

While there is no key at all, everybody is `ANYBODY`. A member of a cluster has to know that
there is none: one that starts on an empty or old state is open only after a quorum
has confirmed that what it has applied is all there is. Until then it asks to wait.

A session is signed with a secret that is not in the log: the cluster's, or one drawn at the
start where the node is alone (its sessions end with the process). Rejected: the key's
`portal_secret`, which is stored: who steals a backup could then sign in as an administrator.

Every comparison of secrets takes the same time, and a key that is not known costs one too.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from unimeter.errors import BackpressureError, InvalidInputError, UnauthenticatedError
from unimeter.keys import (
    ANYBODY,
    ID_CHARACTERS,
    PORTAL_PREFIX,
    TOKEN_CHARACTERS_MAX,
    KeyRecord,
    Principal,
    Scope,
    check_portal_token,
    check_secret,
    parse_key,
    portal_key_id,
    portal_principal,
    record_of,
)
from unimeter.server.config import Config
from unimeter.server.node import Node
from unimeter.server.platform import Platform

SESSION_PREFIX: Final = "ums"
SESSION_SECONDS: Final = 12 * 3600
WAIT_SECONDS: Final = 0.25
_LOOPBACK: Final = re.compile(r"127(\.[0-9]{1,3}){3}")
_UNKNOWN: Final = KeyRecord("", "", (), bytes(32), bytes(32))  # what unknown keys are compared to

NEEDED = "this node asks for a key: give one (Client(key=...), Authorization: Bearer ...)"
NOT_KNOWN = "this key is not known here"
REVOKED = "this key is revoked"
GONE = "what this request came with is not good any more: its key was revoked, or it has expired"


def is_loopback(host: str) -> bool:
    """Whether only this host can reach that address."""
    host = host.strip("[]").lower()
    return host in ("localhost", "::1") or _LOOPBACK.fullmatch(host) is not None


def check_bind(config: Config, is_open: bool) -> None:
    """Refuse to let other hosts in without a key, unless the operator insists."""
    places = [config.bind, config.advertise.rpartition(":")[0]]
    beyond = [place for place in places if place and not is_loopback(place)]
    if beyond and is_open and not config.insecure:
        raise InvalidInputError(
            f"{beyond[0]} lets other hosts in and there is no key: make one first, with "
            "--bind 127.0.0.1 and `unimeter keys create root --scope admin`, or name a file that "
            "holds one with --admin-key-file, or let everybody in with --insecure"
        )


def read_admin_key(path: str) -> KeyRecord | None:
    """The key in `admin_key_file`; InvalidInputError, which does not repeat it, if it is none."""
    if not path:
        return None
    try:
        data = _key_file(path)
    except OSError as error:
        raise InvalidInputError(f"admin_key_file {path}: {error.strerror}") from None
    try:
        return record_of(data.decode("ascii").strip(), "admin_key_file", [Scope.ADMIN])
    except (UnauthenticatedError, InvalidInputError, UnicodeDecodeError):
        raise InvalidInputError(
            f"admin_key_file {path} holds no key; make one with `unimeter keys new`"
        ) from None


def _key_file(path: str) -> bytes:
    """What stands in a file, without ever waiting for it: it is read in the node's loop."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise InvalidInputError(f"admin_key_file {path} is no regular file")
        if mode & stat.S_IWOTH:
            raise InvalidInputError(
                f"admin_key_file {path} may be changed by every user of this host: chmod 600"
            )
        return file.read(TOKEN_CHARACTERS_MAX)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's session as its cookie says it."""

    key_id: str
    expires: int  # Unix seconds


class Auth:
    """Login at one node."""

    def __init__(
        self, node: Node, platform: Platform, config: Config, *, secret: bytes = b""
    ) -> None:
        """`secret` is the cluster's; without one, sessions last as long as this process."""
        self.node, self.platform, self.config = node, platform, config
        self.say: Callable[[str], None] = lambda sentence: None
        self.static: KeyRecord | None = read_admin_key(config.admin_key_file)
        self.logins_refused = 0
        self._static_generation = 0
        self._complaint = ""  # about the file, as it was last said
        self._session_secret = hmac.digest(
            secret or platform.entropy(32), b"unimeter sessions", "sha256"
        )
        self.is_settled = node.is_alone  # every key is known that was made before the start
        self._is_asking = False

    # --- what is known ---------------------------------------------------------------

    @property
    def generation(self) -> tuple[int, int]:
        """Changes whenever keys do."""
        return self.node.machine.administration.generation, self._static_generation

    @property
    def has_key(self) -> bool:
        """Whether this node knows of any key, good or revoked."""
        return self.static is not None or bool(self.node.machine.administration.keys)

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything: there is no key, and that is certain."""
        if self.has_key:
            return False
        self.settle()
        return self.is_settled

    def settle(self) -> None:
        """Have a quorum confirm, once, that what is applied here is all that there is."""
        if self.is_settled or self._is_asking or not self.node.lead:
            return
        self._is_asking = True
        self.node.reads.after_quorum(self._confirmed, self._ask_later)
        self.node.request_turn()

    def _confirmed(self) -> None:
        self.is_settled, self._is_asking = True, False

    def _ask_later(self) -> None:
        self._is_asking = False

    def reload(self) -> None:
        """Look at `admin_key_file` again; a file that is no good changes nothing."""
        try:
            found = read_admin_key(self.config.admin_key_file)
        except InvalidInputError as error:
            if str(error) != self._complaint:
                self.say(f"{error}; the key that was read before stays good")
            self._complaint = str(error)
            return
        self._complaint = ""
        if found != self.static:
            self.static = found
            self._static_generation += 1
            self.say("admin_key_file holds another key; the former one opens nothing any more")

    def _record(self, key_id: str) -> KeyRecord | None:
        if self.static is not None and self.static.id == key_id:
            return self.static
        found: KeyRecord | None = self.node.machine.administration.keys.get(key_id)
        return found

    # --- login -------------------------------------------------------------------------

    def anybody(self) -> Principal:
        """Who comes without a token; raises unless the node is open."""
        if self.is_open:
            return ANYBODY
        if not self.has_key:
            raise self._not_yet()
        raise UnauthenticatedError(NEEDED)

    def login(self, token: str) -> Principal:
        """Who shows this token; UnauthenticatedError if nobody can tell.

        BackpressureError where this node may not know the key yet. On an open node every
        token is as good as none.
        """
        if self.is_open:
            return ANYBODY
        try:
            if token.startswith(PORTAL_PREFIX + "_"):
                return self._login_portal(token)
            if token.startswith(SESSION_PREFIX + "_"):
                return self._login_session(token)
            return self._login_key(token)
        except UnauthenticatedError:
            self.logins_refused += 1
            raise

    def login_key(self, token: str) -> Principal:
        """Who shows this key; tokens that are made from keys are refused."""
        if not self.is_open and token.startswith((PORTAL_PREFIX + "_", SESSION_PREFIX + "_")):
            self.logins_refused += 1
            raise UnauthenticatedError("a key is asked for here, and not a token made from one")
        return self.login(token)

    def login_session(self, token: str) -> Principal:
        """Who shows this browser's session; keys and portal tokens are refused."""
        if not self.is_open and not token.startswith(SESSION_PREFIX + "_"):
            self.logins_refused += 1
            raise UnauthenticatedError("a cookie holds a session; log in with a key")
        return self.login(token)

    def _login_key(self, token: str) -> Principal:
        ident, secret = parse_key(token)
        record = self._record(ident)
        is_right = check_secret(record or _UNKNOWN, secret)
        if record is None or not is_right:
            raise self._stranger(record, NOT_KNOWN)
        if record.is_revoked:
            raise UnauthenticatedError(REVOKED)
        return record.principal()

    def _login_portal(self, token: str) -> Principal:
        record = self._record(portal_key_id(token))
        try:
            claims = check_portal_token(token, record or _UNKNOWN, self.platform.time_ns())
        except UnauthenticatedError as error:
            raise self._stranger(record, str(error)) from None
        assert record is not None, "what is unknown has signed nothing"
        return portal_principal(record, claims)

    def _stranger(self, record: KeyRecord | None, text: str) -> Exception:
        """What to say to a key that is not known: perhaps it is not known yet."""
        if record is None and not self.is_settled:
            self.settle()
            return self._not_yet()
        return UnauthenticatedError(text)

    def _not_yet(self) -> BackpressureError:
        return BackpressureError(
            "this node does not know all keys yet: it waits for the others", WAIT_SECONDS
        )

    def is_good(self, principal: Principal) -> bool:
        """Whether somebody who was let in would be let in now."""
        if 0 < principal.expires_ns <= self.platform.time_ns():
            return False
        if not principal.key_id:
            return principal is ANYBODY and not self.has_key
        record = self._record(principal.key_id)
        return record is not None and not record.is_revoked

    def check_good(self, principal: Principal) -> None:
        """Raise UnauthenticatedError unless somebody who was let in would be let in now."""
        if not self.is_good(principal):
            raise UnauthenticatedError(GONE)

    # --- a browser's session -----------------------------------------------------------

    def new_session(self, principal: Principal) -> tuple[str, int]:
        """(token, when it expires in Unix seconds) for somebody who has shown a key."""
        record = self._record(principal.key_id)
        assert record is not None, "who is let in by a key has one"
        expires = self.platform.time_ns() // 10**9 + SESSION_SECONDS
        head = f"{SESSION_PREFIX}_{record.id}.{expires}"
        return f"{head}.{self._signature(record, head)}", expires

    def _login_session(self, token: str) -> Principal:
        head, _, signature = token.rpartition(".")
        session = _session_of(head) if len(token) <= TOKEN_CHARACTERS_MAX else None
        record = None if session is None else self._record(session.key_id)
        right = self._signature(record or _UNKNOWN, head)
        is_right = hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace"))
        if session is None or record is None or not is_right:
            raise self._stranger(record, "this session is not known here; log in again")
        if record.is_revoked:
            raise UnauthenticatedError(REVOKED)
        if session.expires * 10**9 <= self.platform.time_ns():
            raise UnauthenticatedError("the session has expired; log in again")
        found = record.principal()
        return Principal(
            found.key_id,
            found.name,
            found.scopes,
            found.account,
            found.metrics,
            session.expires * 10**9,
        )

    def _signature(self, record: KeyRecord, head: str) -> str:
        secret = hmac.digest(self._session_secret, record.verifier, "sha256")
        digest = hmac.digest(secret, head.encode("utf-8", "replace"), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def statistics(self) -> dict[str, int]:
        """Logins that were refused since the start."""
        return {"logins_refused": self.logins_refused}


def _session_of(head: str) -> Session | None:
    """What a session's token says, before anything of it is believed."""
    name, _, expires = head.partition(".")
    ident = name.removeprefix(SESSION_PREFIX + "_")
    if len(ident) != ID_CHARACTERS or not (expires.isascii() and expires.isdigit()):
        return None
    return Session(ident, int(expires)) if len(expires) <= 12 else None
