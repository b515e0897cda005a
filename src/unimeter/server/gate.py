"""One client's standing at the binary port: who it is, what it may, from HELLO to its end.

Owns the principal of a connection and the order in which a frame is held against it:

    header ─> who? ── nobody yet ─> refused, drained, nothing of it is held or done
              scope ─ too small ──> refused, drained
    payload ─> account, metric ──> refused as a whole

and when it is looked at again: when keys have changed, every open connection whose key is no
good any more is told so and closed. A connection that does not log in within LOGIN_SECONDS is
closed, and of those that have not, STRANGERS_MAX stay: the oldest goes first.

For a connection that may do everything, which is every one while there is no key, all of it
costs a look at one attribute for each read.

Version 1 has no way to show a key, so as soon as there is one its frames are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from unimeter.control import Actor
from unimeter.errors import UnauthenticatedError, UnimeterError
from unimeter.keys import ANYBODY, NOBODY, TOKEN_CHARACTERS_MAX, Principal
from unimeter.server import rights
from unimeter.wire.failures import error_of
from unimeter.wire.framer import VERSION_1, RequestHeader
from unimeter.wire.messages import ErrorCode, ErrorReply, Hello, PacketType

if TYPE_CHECKING:
    from unimeter.server.auth import Auth

HELLO_BYTES_MAX: Final = TOKEN_CHARACTERS_MAX + 1024  # of somebody who has not logged in
LOGIN_SECONDS: Final = 10.0
STRANGERS_MAX: Final = 1024
GONE = "the key of this connection is not good any more"
VERSION_1_HAS_NO_KEYS = "this node asks for a key, and version 1 of the protocol can't show one"


class Gate:
    """Who stands at the other end of one connection."""

    __slots__ = ("address", "auth", "is_checked", "is_guarded", "principal")

    def __init__(self, auth: Auth | None, address: str = "") -> None:
        """Without `auth` everybody may do everything: another node, this process, a test."""
        self.auth, self.address = auth, address
        self.principal: Principal = ANYBODY
        self.is_checked = self.is_guarded = False
        if auth is not None and not auth.is_open:
            self._become(NOBODY)

    def _become(self, principal: Principal) -> None:
        self.principal = principal
        self.is_checked = not rights.has_every_right(principal)
        self.is_guarded = not rights.may_ingest_anything(principal)

    @property
    def is_stranger(self) -> bool:
        """Whether nobody has logged in."""
        return self.principal is NOBODY

    # --- a frame -----------------------------------------------------------------------

    def refusal(self, header: RequestHeader) -> ErrorReply | None:
        """Why a frame with this header is not taken; None if it is, as far as that says."""
        kind = header.packet_type
        try:
            if kind == PacketType.HELLO:
                return self._hello_refusal(header)
            if self.principal is NOBODY:
                self._let_in(header.version)
            rights.may(self.principal, kind)
        except UnimeterError as error:
            return error_of(error)
        return None

    def _hello_refusal(self, header: RequestHeader) -> ErrorReply | None:
        if self.principal is not NOBODY or header.length <= HELLO_BYTES_MAX:
            return None
        return ErrorReply(ErrorCode.TOO_LARGE, f"a HELLO may have {HELLO_BYTES_MAX} bytes")

    def _let_in(self, version: int) -> None:
        """Somebody without a key: let in if the node has turned out to be open."""
        assert self.auth is not None
        try:
            self._become(self.auth.anybody())
        except UnauthenticatedError:
            if version == VERSION_1:
                raise UnauthenticatedError(VERSION_1_HAS_NO_KEYS) from None
            raise

    def log_in(self, hello: Hello) -> None:
        """Who says HELLO. Raises if nobody can tell: then it is a stranger again."""
        if self.auth is None:
            return
        self._become(NOBODY)
        token = hello.token.decode("utf-8", "replace")
        self._become(self.auth.login_key(token) if token else self.auth.anybody())

    # --- afterwards --------------------------------------------------------------------

    @property
    def is_good(self) -> bool:
        """Whether this connection would be let in now; a stranger is none of it yet."""
        return self.auth is None or self.is_stranger or self.auth.is_good(self.principal)

    def turn_away(self) -> ErrorReply:
        """Let this connection do nothing more; the reply that says why."""
        self._become(NOBODY)
        return ErrorReply(ErrorCode.UNAUTHENTICATED, GONE)

    def actor(self) -> Actor:
        """Whom the trail names for a change."""
        return Actor(self.principal.key_id, self.principal.name, "binary", self.address)
