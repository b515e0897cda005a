"""An asyncio stream: alerts or changes over any reconnect, alerts each once and in order.

The same contract as the blocking `alert_stream`, on a link of its own. The
place of the last item received (`feeds`) is named again at every reconnect, and an alert that
is not above it is dropped.

    link ─ push ─> inbox (buffer_size) ─> async for

Any node will do, since positions are the same on all. A link whose node knows no
leader, or does not answer when it was quiet for long, is left for another node.

When the inbox is full the link stops reading, so alerts wait in the socket and
then at the server. Nothing is dropped for a slow consumer; `dropped()` is kept
for programs written for the published SDK and is always 0. What was received
but not yet handed out is not part of `position`, so a process that saves
`position` (or `offsets()`) after handling an alert goes on with the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Generic, TypeVar

from unimeter.client.core import Core, Send, decode
from unimeter.client.feeds import AlertFeed, Change, Feed, WatchFeed
from unimeter.client.retry import PING_SECONDS, PONG_SECONDS, RETRYABLE_CODES, TIMEOUT_SECONDS
from unimeter.client.streams import Link, LinkLost, open_link
from unimeter.errors import ConnectionError, InvalidInputError, ServerError, UnimeterError
from unimeter.types import AlertRecord
from unimeter.wire import v2
from unimeter.wire.failures import exception_of
from unimeter.wire.framer import ResponseFrame
from unimeter.wire.messages import AlertPushEnable, ErrorReply, PartitionMap
from unimeter.wire.messages import Watch as WatchRequest

T = TypeVar("T")
WATCH_ITEMS = 64  # received and not taken; then nothing more is read


class LinkStream(Generic[T]):
    """A stream of items. Iterate with ``async for``; `close()` ends the iteration."""

    def __init__(
        self,
        core: Core,
        feed: Feed[T],
        buffer_size: int,
        known: dict[LinkStream[Any], None],
    ) -> None:
        if isinstance(buffer_size, bool) or not isinstance(buffer_size, int) or buffer_size < 1:
            raise InvalidInputError(f"buffer_size must be an int from 1 up, not {buffer_size!r}")
        self._core, self._feed, self._known = core, feed, known
        self._buffer_size = buffer_size
        self._inbox: deque[tuple[T, Any]] = deque()
        self._place = feed.place  # once the last item handed out was handled
        self._address = ""
        self._avoid = ""  # where the link was lost
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._news = asyncio.Event()  # an alert, an error or the end
        self._keeper: asyncio.Task[None] | None = None
        self._error: UnimeterError | None = None
        self._closed = False

    # --- use -----------------------------------------------------------------

    def __aiter__(self) -> LinkStream[T]:
        return self

    async def __anext__(self) -> T:
        while not self._inbox:
            if self._closed:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        item, self._place = self._inbox.popleft()
        if self._link is not None and len(self._inbox) < self._buffer_size:
            self._link.resume_reading()
        return item

    def dropped(self) -> int:
        """Always 0: a slow consumer slows the stream and loses nothing."""
        return 0

    async def close(self) -> None:
        """End the stream. Items already received can still be taken."""
        if self._closed:
            return
        self._closed = True
        self._known.pop(self, None)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link is not None:
            self._link.abort("the subscription was closed")
        self._news.set()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- keeping it alive ----------------------------------------------------

    async def start(self, deadline: float) -> None:
        """Return once the server has confirmed; later alerts can't be missed."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._connect()
        except TimeoutError:
            raise ConnectionError("no node confirmed the subscription in time") from None
        self._known[self] = None
        self._keeper = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        """Connect again whenever the link is lost."""
        try:
            while True:
                await self._watch()
                self._left(self._address)
                await self._connect()
        except UnimeterError as error:
            self._error = error
            self._news.set()

    async def _watch(self) -> None:
        """Return when the link is lost; end one whose node is silent or knows no leader."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                await self._is_it_there()

    async def _is_it_there(self) -> None:
        """Ask the node of a quiet link for its map. A full inbox is quiet by our own doing.

        A node that is the only one is asked as well: one that was started again while it could
        not be reached knows nothing of this link, and would be silent on it for ever.
        """
        link, now = self._link, asyncio.get_running_loop().time()
        if link is None:
            return
        if len(self._inbox) >= self._buffer_size or now - link.quiet_since(0.0) < PING_SECONDS:
            return
        try:
            reply = (await link.ask(PartitionMap(), now + PONG_SECONDS, PONG_SECONDS))[1]
            is_good = self._core.on_pong(reply, self._address) or not self._core.has_alternative()
        except (LinkLost, ServerError):
            is_good = False
        if not is_good:
            link.abort("it is silent or knows no leader")

    def _left(self, address: str) -> None:
        """Another node first, this time."""
        self._core.router.failed(address, asyncio.get_running_loop().time())
        self._avoid = address

    async def _connect(self) -> None:
        """Connect and enable, as often as it takes."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            now = loop.time()
            step = self._core.stream_attempt(now, now + TIMEOUT_SECONDS, self._avoid)
            try:
                await self._enable(step)
                return
            except LinkLost:
                failures += 1
                self._left(step.address)
                await asyncio.sleep(self._core.pause_after(failures))

    async def _enable(self, step: Send) -> None:
        """Ask for what follows the last item received, on a new link."""
        self._lost.clear()
        self._address = step.address
        self._link = link = await open_link(self._core, step, self._take, self._lost.set)
        packet_type, payload = v2.encode_request(self._feed.request())
        # Items that come together with the reply are taken before it: they move the request on.
        is_from_now = self._feed.is_from_now
        reply = await link.exchange(packet_type, payload, step.until, step.silence)
        response = decode(packet_type, reply)[1]
        if isinstance(response, ErrorReply):
            link.abort("subscription refused")
            if response.code in RETRYABLE_CODES:
                raise LinkLost(response.text, False)
            raise exception_of(response)
        place = self._feed.confirmed(response)
        if place is None:
            raise ServerError(f"unexpected reply to a subscription: {response!r}")
        self._core.router.answered(step.address)
        self._avoid = ""
        if is_from_now:
            self._place = place

    def _take(self, frame: ResponseFrame) -> None:
        """A push arrived."""
        if frame.status not in self._feed.pushes:
            knows_leader = self._core.on_push(frame.status, frame.payload, self._address)
            if not knows_leader and self._link is not None and self._core.has_alternative():
                self._link.abort("it knows no leader")
            return
        taken = self._feed.take(frame, self._address)
        if taken is None:
            self._mark()
            return
        self._inbox.append(taken)
        self._news.set()
        if len(self._inbox) >= self._buffer_size and self._link is not None:
            self._link.pause_reading()

    def _mark(self) -> None:
        """The stream stands further on, without an item: true once all items are handed out."""
        if not self._inbox:
            self._place = self._feed.place


class Subscription(LinkStream[AlertRecord]):
    """A stream of alerts."""

    def __init__(
        self,
        core: Core,
        request: AlertPushEnable,
        buffer_size: int,
        known: dict[LinkStream[Any], None],
    ) -> None:
        super().__init__(core, AlertFeed(request), buffer_size, known)

    async def __aenter__(self) -> Subscription:
        return self

    @property
    def position(self) -> int:
        """Position of the last alert handed out; `subscribe(after=...)` goes on from it."""
        return int(self._place)

    def offsets(self) -> dict[str, int]:
        """`position` in the form that `subscribe(since_offset=...)` takes."""
        return {self._address: self.position}


class AsyncWatch(LinkStream[Change]):
    """Alerts, each once and in order, and totals as they change."""

    def __init__(
        self,
        core: Core,
        request: WatchRequest,
        known: dict[LinkStream[Any], None],
    ) -> None:
        super().__init__(core, WatchFeed(request), WATCH_ITEMS, known)

    async def __aenter__(self) -> AsyncWatch:
        return self

    @property
    def position(self) -> str:
        """Where the stream stands: ``client.watch(after=...)`` goes on behind it.

        Save it after handling an item. It is also the id of ``GET /v1/stream``.
        """
        return str(self._place)
