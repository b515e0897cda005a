"""`Client`: the blocking SDK, on plain sockets.

A call writes one frame and reads one frame on a socket of its own, in the
calling thread: no event loop and no hand-over, because a query of 50 µs would
spend more on those than on the work. Threads that call at the same time use a
connection each; an idle one is used again by the next call, last in first out.
What the connections share (sessions, routes, the position) is the `Core`,
behind one lock that is never held while waiting.

    thread A ─ connection 1 ─┐
    thread B ─ connection 2 ─┼─> node          core (lock): session 1: sequences 7, 8
    idle:      connection 3 ─┘

A client belongs to the process that made it. After a fork, parent and child
would use the same session numbers and the server would take one's batch for a
resend of the other's. So any use in another process raises.

Rejected: a thread with an event loop. It made a call three times as long.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from unimeter.client import chance, checks
from unimeter.client.access import TLS, Access
from unimeter.client.alert_stream import SocketAlertStream, SocketStream, SocketWatch
from unimeter.client.core import (
    Answer,
    Batch,
    Call,
    Core,
    Pause,
    Refresh,
    Send,
    ingest_reply,
)
from unimeter.client.outcomes import Tally
from unimeter.client.pool import Pool
from unimeter.client.retry import (
    CONNECT_SECONDS,
    TIMEOUT_SECONDS,
    check_read_from,
    check_timeout,
)
from unimeter.client.routing import parse_seeds, partition_of
from unimeter.client.sessions import Ticket
from unimeter.client.stream import Watch
from unimeter.client.surface import AlertStream, Surface
from unimeter.client.transport import AttemptError
from unimeter.errors import ClientError, DeadlineExceededError, UnimeterError
from unimeter.types import Account, DeliveryMode, Event, IngestResult
from unimeter.wire.messages import AlertPushEnable, PartitionMap, Request, Response
from unimeter.wire.messages import Watch as WatchRequest

WINDOW_WAIT_SECONDS = 0.05  # between looks at the deadline while every window is full


class Client(Surface):
    """A connection to a node or cluster, for programs with threads.

        with Client(["localhost:7001"]) as client:
            client.ingest([Event(42, "api_calls")])

    Safe to share between threads, not between processes. Connects at the first
    call, or at `connect()` and `with`, which raise `ConnectionError` early.
    """

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
            chance.identity,
            chance.fraction,
            read_from_any=read_from_any,
            token=self._access.token,
            tls=self._access.context,
        )
        self._lock = threading.Condition(threading.Lock())  # guards what is below and the core
        self._pool = Pool(self._core, self._lock)
        self._streams: dict[SocketStream[Any], None] = {}  # oldest first
        self._closed = False
        self._pid = os.getpid()

    # --- life ----------------------------------------------------------------

    def connect(self, timeout: float = CONNECT_SECONDS) -> None:
        """Reach a node now, or raise `ConnectionError` after `timeout` seconds."""
        self._ask(PartitionMap(), 0, timeout)

    def close(self) -> None:
        """Close every connection and stream; calls under way in other threads fail."""
        self._closed = True
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.close()
        self._pool.close()

    def __enter__(self) -> Client:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def statistics(self) -> dict[str, int]:
        """Idle connections, sessions, requests whose sequence number is in use."""
        with self._lock:
            return {
                "idle_connections": self._pool.idle_count,
                **self._core.sessions.statistics(),
            }

    @property
    def cluster_id(self) -> bytes:
        """Which cluster was last spoken with: 16 bytes, empty before the first connection."""
        with self._lock:
            return self._core.cluster_id

    def portal_token(
        self, account: Account, metrics: Iterable[str] | None, expires: datetime | timedelta
    ) -> str:
        """A token for a customer's own page: it reads this account until `expires`.

        Signed here with the client's key, which needs the scope read; no node is asked. No
        `metrics` = all. It ends before `expires` only with the key itself.
        """
        return self._access.portal_token(account, metrics, expires)

    # --- what Surface asks of us ---------------------------------------------

    def _ask(
        self, request: Request, account: Account, timeout: float | None
    ) -> tuple[Response, int]:
        self._check_usable()
        now = time.monotonic()
        with self._lock:
            call = self._core.call(request, partition_of(account), now, self._deadline(timeout))
        answer = self._carry_out(call)
        return answer.response, answer.position

    def _ingest(
        self, events: Sequence[Event], is_sync: bool, timeout: float | None
    ) -> IngestResult:
        self._check_usable()
        refused = checks.check_events(events)
        is_sync = is_sync or any(e.delivery_mode == DeliveryMode.SYNC for e in events)
        deadline = self._deadline(timeout)
        tally = Tally(events, refused)
        indexes = [i for i in range(len(events)) if i not in refused] if refused else None
        for batch in self._plan(events, indexes):
            try:
                answer = self._send_batch(batch, is_sync, deadline)
            except UnimeterError as error:
                tally.explain(error)
                raise
            tally.add(batch.indexes, ingest_reply(answer), answer.position)
        return tally.result()

    def _subscribe(self, request: AlertPushEnable, timeout: float | None) -> AlertStream:
        self._check_usable()
        stream = SocketAlertStream(self._core, self._lock, self._pool, request, self._forget)
        self._start(stream, timeout)
        return stream

    def _watch(self, request: WatchRequest, timeout: float | None) -> Watch:
        self._check_usable()
        stream = SocketWatch(self._core, self._lock, self._pool, request, self._forget)
        self._start(stream, timeout)
        return stream

    def _start(self, stream: SocketStream[Any], timeout: float | None) -> None:
        stream.start(self._deadline(timeout))
        with self._lock:
            self._streams[stream] = None

    def _forget(self, stream: SocketStream[Any]) -> None:
        with self._lock:
            self._streams.pop(stream, None)

    def _address(self) -> str:
        return self._core.router.order(0)[0]

    # --- batches -------------------------------------------------------------

    def _plan(self, events: Sequence[Event], indexes: Sequence[int] | None) -> list[Batch]:
        if indexes is None:
            indexes = range(len(events))
        else:
            events = [events[index] for index in indexes]
        with self._lock:
            return self._core.plan(events, indexes, time.time_ns())

    def _send_batch(self, batch: Batch, is_sync: bool, deadline: float) -> Answer:
        ticket = self._wait_for_ticket(deadline)
        call = None
        try:
            call = self._core.ingest(batch, ticket, is_sync, time.monotonic(), deadline)
            return self._carry_out(call)
        finally:
            with self._lock:
                (call.ticket if call is not None else ticket).resolve()
                self._lock.notify()

    def _wait_for_ticket(self, deadline: float) -> Ticket:
        """Take a sequence number; there are more than threads in all but odd programs."""
        with self._lock:
            while True:
                ticket = self._core.sessions.maybe_take()
                if ticket is not None:
                    return ticket
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeadlineExceededError(
                        "every session's window was full until the deadline; nothing was sent"
                    )
                self._lock.wait(min(WINDOW_WAIT_SECONDS, left))

    # --- one call ------------------------------------------------------------

    def _carry_out(self, call: Call) -> Answer:
        """Do what the call says until it is over."""
        while True:
            with self._lock:
                step = call.step(time.monotonic())
            if isinstance(step, Pause):
                time.sleep(max(0.0, step.until - time.monotonic()))
                self._check_usable()
                continue
            try:
                answer = self._attempt(call, step)
            except AttemptError as error:
                was_sent = error.was_sent and not isinstance(step, Refresh)
                with self._lock:
                    call.on_lost(error.reason, time.monotonic(), was_sent)
                continue
            if answer is not None:
                return answer

    def _attempt(self, call: Call, step: Send) -> Answer | None:
        """Send once and wait once, on a connection that nobody else uses meanwhile."""
        connection, is_new = self._pool.take(step)
        reply = None
        try:
            if not isinstance(step, Refresh):
                reply = connection.exchange(
                    call.packet_type, call.payload, step.until, step.silence
                )
            elif not is_new:  # a new one was asked for the map when it was greeted
                reply = connection.ask(PartitionMap(), step.until, step.silence)[1]
        except BaseException:
            connection.close()  # an unread reply may follow: the next call must not get it
            raise
        self._pool.give_back(connection)
        with self._lock:
            if not isinstance(step, Refresh):
                assert reply is not None
                return call.on_reply(reply, time.monotonic())
            if reply is not None:
                call.on_map(reply, time.monotonic())
            return None

    # --- checks --------------------------------------------------------------

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._timeout if timeout is None else check_timeout(timeout)
        return time.monotonic() + seconds

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientError("this Client is closed; make a new one")
        if os.getpid() != self._pid:
            raise ClientError(
                "this Client was made before a fork and its session belongs to the parent "
                "process; make a new Client in the child"
            )
