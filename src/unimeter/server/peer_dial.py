"""Dialling one peer, again and again: when, how often, and what to tell the operator.

Owns the pauses. A connection that was lost after it had worked is dialled again at
once: if the peer's process is gone, its host refuses, and that is the quickest
certain news of it (`on_down(..., is_gone=True)`). Whatever fails is tried again after
a pause that doubles from 0.05 to 2 seconds, each time a random part of it less, so that
nodes which lost each other together do not meet in step. A peer that has just dialled
us is there, so a pause after a failed connect ends then.

An unreachable peer is mentioned once a minute, with the reason.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

from unimeter.server.log import Notice
from unimeter.server.peer_link import PeerLink
from unimeter.server.tls import reason_of

if TYPE_CHECKING:
    from unimeter.server.peers import Peers


TLS_HINT = "(do both nodes have peer_tls, and the same tls_ca?)"


class Dialler:
    """The outgoing side towards one peer."""

    def __init__(self, peers: Peers, node_id: int, host: str, port: int) -> None:
        self.node_id, self.host, self.port = node_id, host, port
        self.attempts = self.failures = 0
        self.reason = ""  # of the last failure
        self._peers = peers
        self._wake = asyncio.Event()
        self._in_a_row = 0  # failures since it last worked
        self._said_at = float("-inf")

    @property
    def address(self) -> str:
        """host:port of the peer."""
        return f"{self.host}:{self.port}"

    def wake(self) -> None:
        """The peer is there: do not wait any longer."""
        self._wake.set()

    async def run(self) -> None:
        """Keep a connection to the peer until cancelled."""
        was_lost = False
        while True:
            self.attempts += 1
            self._wake.clear()
            link = PeerLink(self._peers, self.node_id)
            error = await self._connect(link)
            if error is not None:
                self._failed(self._describe(error))
                if was_lost and is_refusal(error):
                    self._peers.gone(self.node_id)
                    was_lost = False
                await self._pause(can_wake=True)
                continue
            await asyncio.shield(link.ended)  # others wait for it too
            # A process that is being ended may still take a connection, and drop it at once:
            # that a link was lost is remembered until a dial is refused.
            was_lost = was_lost or bool(link.since)
            if not self._is_worth_another(link):
                await self._pause(can_wake=False)

    async def _connect(self, link: PeerLink) -> BaseException | None:
        """Connect `link`; the error if that fails."""
        try:
            async with asyncio.timeout(self._peers.timing.connect_seconds):
                await self._dial(link)
        except (OSError, TimeoutError) as error:
            return error
        return None

    def _describe(self, error: BaseException) -> str:
        is_cut = isinstance(error, ConnectionResetError | ConnectionAbortedError)
        if is_cut and self._peers.dial_context is not None:
            return f"it closed the connection during the TLS handshake {TLS_HINT}"
        return describe(error)

    async def _dial(self, link: PeerLink) -> None:
        loop, context = self._peers.loop, self._peers.dial_context
        if context is None:
            await loop.create_connection(lambda: link, self.host, self.port)
        else:
            await loop.create_connection(
                lambda: link, self.host, self.port, ssl=context, server_hostname=self.host
            )

    def _is_worth_another(self, link: PeerLink) -> bool:
        """The link has ended: whether it had worked, so that one dials again at once."""
        lived = self._peers.loop.time() - link.since if link.since else 0.0
        if link.since and lived >= self._peers.timing.settled_seconds:
            self._in_a_row = 0
            return True
        self._failed(link.closed_because)
        return False

    def _failed(self, reason: str) -> None:
        self.failures += 1
        self._in_a_row += 1
        self.reason = reason
        now = self._peers.loop.time()
        if now - self._said_at >= self._peers.timing.mention_seconds:
            self._said_at = now
            text = f"peer {self.node_id} at {self.address} can't be reached: {reason}"
            peer, event = self.node_id, "peer_unreachable"
            self._peers.say(Notice(text, event=event, level="warning", peer=peer, reason=reason))

    async def _pause(self, can_wake: bool) -> None:
        """Wait; `can_wake`: unless the peer, which was not there, shows itself."""
        timing = self._peers.timing
        doubled = timing.pause_seconds_min * 2.0 ** min(self._in_a_row - 1, 30)
        pause = min(doubled, timing.pause_seconds_max) * (1 - self._peers.random() / 2)
        if not can_wake:
            await asyncio.sleep(pause)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()


def is_refusal(error: BaseException) -> bool:
    """Whether the host answered that nobody listens: asyncio joins several errors into a text."""
    if isinstance(error, ConnectionRefusedError):
        return True
    return isinstance(error, OSError) and f"[Errno {errno.ECONNREFUSED}]" in str(error)


def describe(error: BaseException) -> str:
    """A short reason."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {reason_of(error)} {TLS_HINT}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
