"""TLS: contexts from the files that the configuration names, made again when the files change.

    tls_cert, tls_key   what this node shows, to clients on both ports and to peers
    tls_ca              who signs the others: peers (`peer_tls`), and clients (`tls_clients`)

Owns what is accepted: TLS 1.2 and later, OpenSSL's own ciphers. A new connection gets the newest
context; those that stand keep theirs. Files that are no good when they are read again change
nothing, and the operator is told once.

Between nodes any certificate that `tls_ca` signed is good, whatever name is in it: peers are
configured by address, and which node it is the secret inside the connection proves. So the
authority is to be the cluster's own. Rejected: a name for each node in `peers`; it would have to
be right in every node's configuration, and proves nothing that the secret does not.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from unimeter.errors import InvalidInputError
from unimeter.server.certificate import expires_at

if TYPE_CHECKING:
    from unimeter.server.config import Config

HANDSHAKE_SECONDS: Final = 10.0
SHUTDOWN_SECONDS: Final = 2.0  # for the other side's goodbye
HELLO: Final = 0x16  # the first byte of a TLS connection

Stamp = tuple[tuple[str, int, int, int], ...]


def check_tls(config: Config) -> None:
    """Raise InvalidInputError where the options of TLS contradict each other."""
    if not config.tls_cert:
        for name in ("tls_key", "tls_clients", "peer_tls"):
            if getattr(config, name):
                raise InvalidInputError(f"{name} is given and tls_cert is not; name a certificate")
        return
    for name in ("tls_clients", "peer_tls"):
        if getattr(config, name) and not config.tls_ca:
            raise InvalidInputError(
                f"{name} needs tls_ca: the file with the authority that signs the others"
            )
    if config.peer_tls and not config.peers:
        raise InvalidInputError("peer_tls is given and peers is not; name all nodes with --peers")


def server_context(config: Config) -> ssl.SSLContext:
    """For the ports of clients."""
    context = _context(config, ssl.PROTOCOL_TLS_SERVER)
    if config.tls_clients:
        _trust(context, config)
    return context


def peer_server_context(config: Config) -> ssl.SSLContext:
    """For the peers' port: both sides show a certificate."""
    context = _context(config, ssl.PROTOCOL_TLS_SERVER)
    _trust(context, config)
    return context


def peer_client_context(config: Config) -> ssl.SSLContext:
    """For dialling a peer."""
    context = _context(config, ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # see the head of this file
    _trust(context, config)
    return context


def _context(config: Config, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key or None, _no_password)
    except (OSError, ValueError) as error:
        files = " and ".join(name for name in (config.tls_cert, config.tls_key) if name)
        raise InvalidInputError(f"TLS: {files}: {reason_of(error)}") from None
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted; give one without a password")


def _trust(context: ssl.SSLContext, config: Config) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(config.tls_ca)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"tls_ca {config.tls_ca}: {reason_of(error)}") from None


def reason_of(error: BaseException) -> str:
    """What went wrong with TLS, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class Tls:
    """The contexts of one node, as new as the files."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        """Raises InvalidInputError for files that are no good."""
        self._config, self._say = config, say
        self._stamp = self._look()
        self.reloads = self.reload_failures = 0
        self.expires = 0  # when this node's certificate ends, in Unix seconds
        self.server: ssl.SSLContext
        self.peer_server: ssl.SSLContext | None = None
        self.peer_client: ssl.SSLContext | None = None
        self._make()

    def _make(self) -> None:
        """All of them or none."""
        config = self._config
        server = server_context(config)
        if config.peer_tls:
            self.peer_server, self.peer_client = (
                peer_server_context(config),
                peer_client_context(config),
            )
        self.server = server
        self.expires = expires_at(Path(config.tls_cert).read_text(encoding="latin-1"))

    def _look(self) -> Stamp:
        """What the files are just now, without reading them."""
        found = []
        for name in (self._config.tls_cert, self._config.tls_key, self._config.tls_ca):
            try:
                stat = os.stat(Path(name)) if name else None
            except OSError:
                stat = None
            if stat is not None:
                found.append((name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def server_context(self) -> ssl.SSLContext:
        """For a client that has just come."""
        return self.server

    def peer_server_context(self) -> ssl.SSLContext:
        """For a peer that has just dialled."""
        assert self.peer_server is not None, "peer_tls is on"
        return self.peer_server

    def peer_client_context(self) -> ssl.SSLContext:
        """For dialling a peer."""
        assert self.peer_client is not None, "peer_tls is on"
        return self.peer_client

    def reload(self, *, is_forced: bool = False) -> None:
        """Read the files again if they have changed, or `is_forced`."""
        stamp = self._look()
        if stamp == self._stamp and not is_forced:
            return
        self._stamp = stamp
        try:
            self._make()
        except InvalidInputError as error:
            self.reload_failures += 1
            self._say(f"{error}; the certificate that was read before stays in use")
        else:
            self.reloads += 1
            self._say("the TLS certificate was read again; new connections get it")

    def statistics(self) -> dict[str, int]:
        """How often the files were read again."""
        return {"tls_reloads": self.reloads, "tls_reload_failures": self.reload_failures}
