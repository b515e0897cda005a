"""One asyncio connection: many frames out, replies in any order.

A `Link` is a connection to one node. It owns the request ids and which of them
still waits for a reply. `Links` keeps one link per address and connects once
however many callers ask. A link that is lost fails every request that waits
on it with `LinkLost`; the calls decide what to do.

Frames written in one turn of the loop are joined into one write. While the
transport is full, senders wait: that is the only queue, and it is bounded by
the session windows.

A reply that does not come in time does not end the link as long as other
bytes arrive on it: the server is then alive and busy, and the request is waited
for until its `until`. A link that is silent for the seconds of `silence` while a
request waits is taken for dead.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from unimeter.client.access import reason_of
from unimeter.client.core import Core, Reply, Send, greeting
from unimeter.client.retry import RELEASE
from unimeter.client.routing import parse_address
from unimeter.client.transport import PushHandler, set_options
from unimeter.wire import v2
from unimeter.wire.framer import VERSION_2, ResponseFrame, ResponseFramer, request_frame
from unimeter.wire.messages import PartitionMap, ProtocolError, Request

if TYPE_CHECKING:
    from ssl import SSLContext

FLUSH_BYTES = 16 * 1024  # a frame this large leaves at once: the next takes long to encode


class LinkLost(Exception):
    """An attempt ended without a reply; `was_sent` if any byte of it may have arrived."""

    def __init__(self, reason: str, was_sent: bool) -> None:
        super().__init__(reason)
        self.reason, self.was_sent = reason, was_sent


class Link(asyncio.Protocol):
    """A connection to the node at `address`."""

    def __init__(self, address: str, on_push: PushHandler, on_lost: Callable[[], None]) -> None:
        self.address = address
        self.is_open = False
        self._on_push, self._on_lost = on_push, on_lost
        self._loop = asyncio.get_running_loop()
        self._framer = ResponseFramer()
        self._transport: asyncio.Transport | None = None
        self._request_id = 0
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._frames: list[bytes] = []  # of this turn, not yet written
        self._writable: asyncio.Future[None] | None = None  # set while the transport is full
        self._heard = 0.0  # when bytes last arrived
        self._reason = "closed"

    # --- asyncio.Protocol ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # A cast, not a check: uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        set_options(transport.get_extra_info("socket"))
        self._heard = self._loop.time()
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Called by the loop: hand each reply to who waits for it."""
        self._heard = self._loop.time()
        self._framer.receive_data(data)
        try:
            while (frame := self._framer.next_frame()) is not None:
                self._take(frame)
        except ProtocolError as error:
            self.abort(str(error))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self.abort(str(error) if error else "closed by the server")

    def pause_writing(self) -> None:
        """Called by the loop: the transport is full."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Called by the loop: there is room again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- use -----------------------------------------------------------------

    async def ask(self, request: Request, until: float, silence: float) -> tuple[int, Reply]:
        """Send a request as it is, outside any call: a greeting, a map."""
        packet_type, payload = v2.encode_request(request)
        return packet_type, await self.exchange(packet_type, payload, until, silence)

    async def exchange(
        self, packet_type: int, payload: bytes, until: float, silence: float = math.inf
    ) -> Reply:
        """Send a request and wait for its reply, or raise LinkLost.

        Waits until `until`, and no longer than `silence` seconds without a byte.
        """
        if self._writable is not None:
            await self._wait_for_room(until)
        if not self.is_open:
            raise LinkLost(f"connection to {self.address} lost: {self._reason}", False)
        sent = self._loop.time()
        request_id = self._send(packet_type, payload)
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._replies[request_id] = reply
        timer = Expiry(self, request_id, sent, until, silence)
        try:
            return await reply
        finally:
            timer.cancel()
            self._replies.pop(request_id, None)

    def abort(self, reason: str) -> None:
        """Close at once; everything that waits fails. May be repeated."""
        if not self.is_open:
            return
        self.is_open, self._reason = False, reason
        if self._transport is not None:
            self._transport.abort()
        self.resume_writing()
        replies, self._replies = self._replies, {}
        text = f"connection to {self.address} lost: {reason}"
        for reply in replies.values():
            if not reply.done():
                reply.set_exception(LinkLost(text, True))
        self._on_lost()

    def pause_reading(self) -> None:
        """Leave further bytes with the server."""
        if self._transport is not None and self.is_open:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    @property
    def in_flight(self) -> int:
        """Requests that wait for a reply."""
        return len(self._replies)

    def _send(self, packet_type: int, payload: bytes) -> int:
        self._request_id = self._request_id % 0xFFFF_FFFF + 1
        frame = request_frame(VERSION_2, packet_type, self._request_id, payload)
        if not self._frames:
            self._loop.call_soon(self._flush)
        self._frames.append(frame)
        if len(frame) >= FLUSH_BYTES:
            self._flush()
        return self._request_id

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        # On a closing transport a write would only be warned of; its loss is told to all soon.
        if frames and self.is_open and self._transport and not self._transport.is_closing():
            self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def _take(self, frame: ResponseFrame) -> None:
        if frame.is_push:
            self._on_push(frame)
            return
        reply = self._replies.pop(frame.request_id, None)
        # A reply nobody waits for answers a call that gave up.
        if reply is not None and not reply.done():
            reply.set_result(Reply(frame.status, frame.payload))

    def quiet_since(self, sent: float) -> float:
        """When the link was last alive: bytes came, or our request left."""
        return max(self._heard, sent)

    def expire(self, request_id: int, is_silent: bool) -> None:
        """The reply did not come in time. On a silent link no other will."""
        reply = self._replies.get(request_id)
        if reply is None or reply.done():
            return
        reply.set_exception(LinkLost(f"no reply from {self.address} in time", True))
        if is_silent:
            self.abort("nothing heard for too long")

    async def _wait_for_room(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                while self._writable is not None:
                    await asyncio.shield(self._writable)
        except TimeoutError:
            raise LinkLost(f"{self.address} takes no more bytes", False) from None


class Expiry:
    """The end of one request's patience: at `until`, or when the link falls silent."""

    __slots__ = ("_arguments", "_link", "_loop", "_timer")

    def __init__(
        self, link: Link, request_id: int, sent: float, until: float, silence: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._arguments = (request_id, sent, until, silence)
        self._timer = self._loop.call_at(min(until, sent + silence), self._ring)

    def cancel(self) -> None:
        """The reply came, or nobody waits for it any more."""
        self._timer.cancel()

    def _ring(self) -> None:
        """Silent for long enough, out of time, or to be looked at again later."""
        request_id, sent, until, silence = self._arguments
        now = self._loop.time()
        quiet_since = self._link.quiet_since(sent)
        again = min(until, quiet_since + silence)
        if again > now:
            self._timer = self._loop.call_at(again, self._ring)
        else:
            self._link.expire(request_id, now >= quiet_since + silence or quiet_since <= sent)


async def open_link(
    core: Core, step: Send, on_push: PushHandler, on_lost: Callable[[], None]
) -> Link:
    """Connect and greet, or raise LinkLost."""
    loop = asyncio.get_running_loop()
    address, until = step.address, step.until
    host, port = parse_address(address)
    link = Link(address, on_push, on_lost)
    tls = cast("SSLContext | None", core.tls)
    try:
        async with asyncio.timeout_at(min(until, loop.time() + step.connect)):
            if tls is None:
                await loop.create_connection(lambda: link, host, port)
            else:
                await loop.create_connection(
                    lambda: link, host, port, ssl=tls, server_hostname=host
                )
    except TimeoutError:
        raise LinkLost(f"can't connect to {address}: no answer", False) from None
    except OSError as error:
        reason = reason_of(error, tls)
        raise LinkLost(f"can't connect to {address}: {reason}", False) from error
    try:
        for request in greeting(RELEASE, core.token):
            packet_type, reply = await link.ask(request, until, step.silence)
            core.on_greeting(packet_type, reply, address)
    except BaseException as error:
        link.abort("the greeting failed")
        if isinstance(error, LinkLost) or getattr(error, "retryable", False):
            raise LinkLost(str(error), False) from error  # no request was sent yet
        raise
    return link


class Links:
    """At most one link per address."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._links: dict[str, Link] = {}
        self._opening: dict[str, asyncio.Task[Link]] = {}

    async def get(self, step: Send) -> Link:
        """The link to the step's address, opened if need be, or LinkLost."""
        address = step.address
        link = self._links.get(address)
        if link is not None and link.is_open:
            return link
        opening = self._opening.get(address)
        if opening is None:
            opening = asyncio.ensure_future(self._open(step))
            self._opening[address] = opening
            opening.add_done_callback(lambda task: self._opened(address, task))
        try:
            async with asyncio.timeout_at(step.until):
                return await asyncio.shield(opening)
        except TimeoutError:
            raise LinkLost(f"can't connect to {address}: no answer", False) from None

    async def maybe_map(self, step: Send) -> Reply | None:
        """The map of the step's address; None if it came with the greeting of a new link."""
        is_new = not self.is_open(step.address)
        link = await self.get(step)
        if is_new:
            return None
        return (await link.ask(PartitionMap(), step.until, step.silence))[1]

    def is_open(self, address: str) -> bool:
        """Whether there is a link that can be used at once."""
        link = self._links.get(address)
        return link is not None and link.is_open

    async def _open(self, step: Send) -> Link:
        link = await open_link(self._core, step, self._on_push(step.address), lambda: None)
        self._links[step.address] = link
        return link

    def _opened(self, address: str, task: asyncio.Task[Link]) -> None:
        self._opening.pop(address, None)
        if not task.cancelled():
            task.exception()  # every caller may have given up before it failed

    def _on_push(self, address: str) -> PushHandler:
        def take(frame: ResponseFrame) -> None:
            self._core.on_push(frame.status, frame.payload, address)

        return take

    async def close(self) -> None:
        """Close every link and wait until the attempts to open one have ended."""
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for link in list(self._links.values()):
            link.abort("the client was closed")
        self._links = {}

    def statistics(self) -> dict[str, int]:
        """Links open and requests in flight."""
        links = [link for link in self._links.values() if link.is_open]
        return {"connections": len(links), "in_flight": sum(link.in_flight for link in links)}
