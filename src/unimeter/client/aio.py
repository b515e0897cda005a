"""`AsyncClient`: the asyncio SDK, many calls on one connection.

The methods are those of `async_surface.py`. Concurrent calls share one
connection to a node: each sends its frame at once and waits for the reply that
carries its request id. Frames of one loop turn leave in one write.

    ingest() ─┐                                      ┌─> reply 7
    ingest() ─┼─> window: session and sequence ─> connection ─> reply 8
    query()  ─┘   (full: wait in line)               └─> reply 9

All decisions are the `Core`'s. This module waits: for a place in a session's
window, for a reply, for the pause before a resend, and for nothing longer than
the call's deadline.

Rejected: a connection per call. Sixteen batches that travel together share the
server's write and its sync; one after the other they would wait for sixteen.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from unimeter.client import chance, checks
from unimeter.client.access import TLS, Access
from unimeter.client.async_surface import AsyncSurface
from unimeter.client.core import (
    Answer,
    Batch,
    Call,
    Core,
    Pause,
    Refresh,
    ingest_reply,
)
from unimeter.client.outcomes import Tally
from unimeter.client.retry import (
    CONNECT_SECONDS,
    TIMEOUT_SECONDS,
    check_read_from,
    check_timeout,
)
from unimeter.client.routing import parse_seeds, partition_of
from unimeter.client.sessions import Ticket
from unimeter.client.streams import Link, LinkLost, Links
from unimeter.client.subscription import AsyncWatch, LinkStream, Subscription
from unimeter.errors import ClientError, DeadlineExceededError, UnimeterError
from unimeter.types import (
    Account,
    DeliveryMode,
    Event,
    IngestResult,
)
from unimeter.wire.messages import (
    AlertPushEnable,
    PartitionMap,
    Request,
    Response,
)
from unimeter.wire.messages import Watch as WatchRequest

__all__ = ["AsyncClient", "Subscription"]

BATCHES_AHEAD = 4  # of one divided call: enough to keep the server busy while one is encoded


class AsyncClient(AsyncSurface):
    """A connection to a node or cluster, for programs with an event loop.

        async with AsyncClient(["localhost:7001"]) as client:
            await client.ingest([Event(42, "api_calls")])

    Belongs to one event loop. Connects at the first call, or at `connect()` and
    `async with`, which raise `ConnectionError` early.
    """

    # All that a client takes from its host beside the loop; the simulator has its own.
    _identity = staticmethod(chance.identity)
    _fraction = staticmethod(chance.fraction)

    def __init__(
        self,
        seeds: str | Sequence[str] = "localhost:7001",
        *,
        timeout: float = TIMEOUT_SECONDS,
        read_from: str = "leader",
        key: str | None = None,
        tls: bool | TLS | ssl.SSLContext | None = None,
    ) -> None:
        """Remember where to connect; `timeout` is the deadline of calls that name none.

        `read_from="any"` spreads reads over all nodes of a cluster, by account. Both
        ways a client reads its own writes. `key` is shown to every node (`unimeter keys`);
        `tls` is True, a `TLS` or an `ssl.SSLContext`.
        """
        super().__init__()
        self._timeout = check_timeout(timeout)
        read_from_any = check_read_from(read_from) == "any"
        self._access = Access(key, tls)
        self._core = Core(
            parse_seeds(seeds),
            self._identity,
            self._fraction,
            read_from_any=read_from_any,
            token=self._access.token,
            tls=self._access.context,
        )
        self._links = Links(self._core)
        self._waiting: deque[asyncio.Future[None]] = deque()  # for a place in a window
        self._subscriptions: dict[LinkStream[Any], None] = {}  # oldest first
        self._closed = False
        self._pid = os.getpid()

    # --- life ----------------------------------------------------------------

    async def connect(self, timeout: float = CONNECT_SECONDS) -> None:
        """Reach a node now, or raise `ConnectionError` after `timeout` seconds."""
        await self._ask(PartitionMap(), 0, timeout)

    async def close(self) -> None:
        """Close every connection and subscription; calls under way fail."""
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self._links.close()

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def statistics(self) -> dict[str, int]:
        """Connections, requests in flight, sessions, callers waiting for a window."""
        return {
            **self._links.statistics(),
            **self._core.sessions.statistics(),
            "waiting": len(self._waiting),
        }

    @property
    def cluster_id(self) -> bytes:
        """The 16 bytes that name the log this client last spoke to; empty before the first call."""
        return self._core.cluster_id

    def portal_token(
        self, account: Account, metrics: Iterable[str] | None, expires: datetime | timedelta
    ) -> str:
        """A token for a customer's own page: it reads this account until `expires`.

        Signed here with the client's key, which needs the scope read; no node is asked. No
        `metrics` = all. It ends before `expires` only with the key itself.
        """
        return self._access.portal_token(account, metrics, expires)

    # --- what AsyncSurface asks of us ----------------------------------------

    async def _ingest(
        self, events: Sequence[Event], is_sync: bool, timeout: float | None
    ) -> IngestResult:
        self._check_usable()
        refused = checks.check_events(events)
        is_sync = is_sync or any(e.delivery_mode == DeliveryMode.SYNC for e in events)
        deadline = self._deadline(timeout)
        tally = Tally(events, refused)
        batches = self._plan(events, refused)
        if len(batches) == 1:
            answers = [await self._settle(batches[0], is_sync, deadline)]
        else:
            answers = await self._send_all(batches, is_sync, deadline)
        errors = []
        for batch, answer in zip(batches, answers, strict=True):
            if isinstance(answer, Answer):
                tally.add(batch.indexes, ingest_reply(answer), answer.position)
            else:
                errors.append(answer)
        if errors:
            tally.explain(errors[0])
            raise errors[0]
        return tally.result()

    async def _subscribe(
        self, request: AlertPushEnable, buffer_size: int, timeout: float | None
    ) -> Subscription:
        self._check_usable()
        subscription = Subscription(self._core, request, buffer_size, self._subscriptions)
        await subscription.start(self._deadline(timeout))
        return subscription

    async def _watch(self, request: WatchRequest, timeout: float | None) -> AsyncWatch:
        self._check_usable()
        watch = AsyncWatch(self._core, request, self._subscriptions)
        await watch.start(self._deadline(timeout))
        return watch

    def _address(self) -> str:
        return self._core.router.order(0)[0]

    # --- batches -------------------------------------------------------------

    def _plan(self, events: Sequence[Event], refused: Mapping[int, object]) -> list[Batch]:
        indexes: Sequence[int] = range(len(events))
        if refused:
            indexes = [index for index in indexes if index not in refused]
            events = [events[index] for index in indexes]
        return self._core.plan(events, indexes, self._time_ns())

    async def _send_all(
        self, batches: list[Batch], is_sync: bool, deadline: float
    ) -> list[Answer | UnimeterError]:
        """Send batches in order, a few at a time; each has an answer or an error in the end."""
        results: dict[int, Answer | UnimeterError] = {}
        todo = iter(enumerate(batches))

        async def work() -> None:
            for number, batch in todo:
                results[number] = await self._settle(batch, is_sync, deadline)

        await asyncio.gather(*(work() for _ in range(min(BATCHES_AHEAD, len(batches)))))
        return [results[number] for number in range(len(batches))]

    async def _settle(self, batch: Batch, is_sync: bool, deadline: float) -> Answer | UnimeterError:
        """Send one batch; return its answer, or the error that ended it."""
        try:
            ticket = await self._wait_for_ticket(deadline)
            call = None
            try:
                now = asyncio.get_running_loop().time()
                call = self._core.ingest(batch, ticket, is_sync, now, deadline)
                return await self._carry_out(call)
            finally:
                (call.ticket if call is not None else ticket).resolve()
                self._wake_next()
        except UnimeterError as error:
            return error

    async def _wait_for_ticket(self, deadline: float) -> Ticket:
        """Wait in line for a sequence number."""
        ticket = None if self._waiting else self._core.sessions.maybe_take()
        is_first = False
        while ticket is None:
            await self._wait_in_line(is_first, deadline)
            is_first = True  # a newcomer may be quicker; then we are next
            ticket = self._core.sessions.maybe_take()
        return ticket

    async def _wait_in_line(self, is_first: bool, deadline: float) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if is_first:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        try:
            async with asyncio.timeout_at(deadline):
                await place
        except TimeoutError:
            raise DeadlineExceededError(
                "every session's window was full until the deadline; nothing was sent"
            ) from None
        finally:
            self._leave_line(place)

    def _leave_line(self, place: asyncio.Future[None]) -> None:
        """Out of the line; a turn that came too late is passed on."""
        if place in self._waiting:
            self._waiting.remove(place)
        elif sys.exc_info()[0] is not None:
            self._wake_next()

    def _wake_next(self) -> None:
        """A number was given back: let the first in line try."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return

    # --- one call ------------------------------------------------------------

    async def _ask(
        self, request: Request, account: Account, timeout: float | None
    ) -> tuple[Response, int]:
        self._check_usable()
        now = asyncio.get_running_loop().time()
        call = self._core.call(request, partition_of(account), now, self._deadline(timeout))
        answer = await self._carry_out(call)
        return answer.response, answer.position

    async def _carry_out(self, call: Call) -> Answer:
        """Do what the call says until it is over."""
        loop = asyncio.get_running_loop()
        while True:
            step = call.step(loop.time())
            if isinstance(step, Pause):
                await asyncio.sleep(step.until - loop.time())
                self._check_usable()
                continue
            try:
                if isinstance(step, Refresh):
                    reply = await self._links.maybe_map(step)
                else:
                    link: Link = await self._links.get(step)
                    reply = await link.exchange(
                        call.packet_type, call.payload, step.until, step.silence
                    )
            except LinkLost as lost:
                was_sent = lost.was_sent and not isinstance(step, Refresh)
                call.on_lost(lost.reason, loop.time(), was_sent)
                continue
            if isinstance(step, Refresh):
                if reply is not None:
                    call.on_map(reply, loop.time())
                continue
            assert reply is not None
            answer = call.on_reply(reply, loop.time())
            if answer is not None:
                return answer

    # --- checks --------------------------------------------------------------

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._timeout if timeout is None else check_timeout(timeout)
        return asyncio.get_running_loop().time() + seconds

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientError("this AsyncClient is closed; make a new one")
        if os.getpid() != self._pid:
            raise ClientError(
                "this AsyncClient was made before a fork and its session belongs to the parent "
                "process; make a new one in the child"
            )
