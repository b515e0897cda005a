"""How a client is let in: its key, and TLS.

Owns the checks of `key=` and `tls=` and the portal tokens that a key signs. The key goes into
HELLO on every new connection, before anything else is asked, and into nothing else: no `repr`,
no log line and no exception has it.

    tls=None or False   plain
    tls=True            TLS, trusting whom the system trusts
    tls=TLS(ca=...)     trusting that authority; a certificate of one's own with cert= and key=
    tls=SSLContext      whatever it says
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from unimeter.errors import ClientError, InvalidInputError, UnauthenticatedError
from unimeter.keys import parse_key, sign_portal_token
from unimeter.types import Account

PathText = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class TLS:
    """How to speak TLS to a node."""

    ca: PathText | None = None  # PEM: who signs the nodes' certificates; None = as the system says
    cert: PathText | None = None  # PEM: shown to nodes that ask clients for one
    key: PathText | None = None  # PEM; None = it is in `cert`
    check_hostname: bool = True  # whether the certificate has to name the host one connects to

    def context(self) -> ssl.SSLContext:
        """The context; InvalidInputError for files that are no good."""
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ValueError) as error:
            named = ", ".join(str(one) for one in (self.ca, self.cert, self.key) if one is not None)
            raise InvalidInputError(f"TLS: {named}: {error}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.check_hostname
        return context


class Access:
    """A client's key, and the context that it connects with."""

    __slots__ = ("_key", "context")

    def __init__(self, key: str | None, tls: bool | TLS | ssl.SSLContext | None) -> None:
        self._key = check_key(key)
        self.context = context_of(tls)

    @property
    def token(self) -> bytes:
        """What HELLO shows."""
        return self._key.encode()

    def portal_token(
        self, account: Account, metrics: Iterable[str] | None, expires: datetime | timedelta
    ) -> str:
        """See `Client.portal_token`."""
        if not self._key:
            raise ClientError("a portal token is signed with a key: make the client with key=...")
        if isinstance(expires, timedelta):
            expires = datetime.now(timezone.utc) + expires
        if not isinstance(expires, datetime) or expires.tzinfo is None:
            raise InvalidInputError("expires must be a timedelta, or a datetime with a time zone")
        if expires <= datetime.now(timezone.utc):
            raise InvalidInputError(f"expires is in the past: {expires.isoformat()}")
        if isinstance(metrics, str):
            raise InvalidInputError(f"metrics must be a list of codes, not {metrics!r}")
        if isinstance(account, bool) or not isinstance(account, int | str):
            raise InvalidInputError(f"an account must be an int or a str, not {account!r}")
        return sign_portal_token(self._key, account, metrics or (), int(expires.timestamp()))


def check_key(key: str | None) -> str:
    """A key as it is, or ""; InvalidInputError, which does not repeat it, for what is none."""
    if key is None:
        return ""
    if not isinstance(key, str):
        raise InvalidInputError(f"a key must be a str, not {type(key).__name__}")
    try:
        parse_key(key.strip())
    except UnauthenticatedError as error:
        raise InvalidInputError(str(error)) from None
    return key.strip()


def context_of(tls: bool | TLS | ssl.SSLContext | None) -> ssl.SSLContext | None:
    """The context that `tls=` means."""
    if tls is None or tls is False:
        return None
    if tls is True:
        tls = TLS()
    if isinstance(tls, TLS):
        return tls.context()
    if isinstance(tls, ssl.SSLContext):
        return tls
    raise InvalidInputError(f"tls must be True, a TLS or an ssl.SSLContext, not {tls!r}")


def reason_of(error: BaseException, context: ssl.SSLContext | None) -> str:
    """Why a connection could not be made, with a hint where TLS is the likely cause."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        words = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
        return f"the TLS handshake failed ({words}); does that port speak TLS?"
    if context is not None and isinstance(error, ConnectionResetError | ConnectionAbortedError):
        return f"the TLS handshake failed ({error}); does that port speak TLS?"
    return str(error)
