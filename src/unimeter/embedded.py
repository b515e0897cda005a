"""The engine inside your program: `unimeter.open(path)`, like a file database.

    with unimeter.open("data/") as meter:
        meter.metrics.create(MetricSchema("api_calls", AggType.COUNT))
        meter.ingest([Event(42, "api_calls")])
        print(meter.query(42, "api_calls", current_month()).value.count)

The methods are those of `Client`, and so is what happens: a batch is encoded by
the same encoder, decoded by the same kernel and made durable in the same log as
on a server, and a question is answered by the same handlers. Only the socket is
missing. A call that returns has been synced to the disk; ``":memory:"`` keeps
everything in memory, for tests.

    ingest ─ encode ─> node.ingest_payload ─ sync ─ apply ─> outcomes
    query  ─────────> handlers.call ───────────────────────> answer

One process owns a directory at a time; the second one gets `DirectoryInUseError`.
Threads may share a meter, one call at a time. A server may open the directory
later and find everything.

Rejected: a server on a private socket. It would need a thread and a port, and a
call would pay for both.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from unimeter import limits
from unimeter.client import checks
from unimeter.client.core import Reply, decode
from unimeter.client.feeds import Change
from unimeter.client.outcomes import Tally
from unimeter.client.retry import TIMEOUT_SECONDS, check_timeout
from unimeter.client.stream import Watch
from unimeter.client.surface import AlertStream, Surface
from unimeter.control import Actor
from unimeter.errors import BackpressureError, ClientError, DataError, UnimeterError
from unimeter.server import handlers
from unimeter.server.config import Config
from unimeter.server.hosts import InlineHost
from unimeter.server.live import Live, Total, interest_of
from unimeter.server.opening import MEMORY, Progress, open_node
from unimeter.server.watch_push import check_watch, place_of
from unimeter.server.watcher import Batch, Place, Watcher
from unimeter.types import (
    Account,
    AlertRecord,
    Event,
    IngestResult,
    Overflow,
    TotalChange,
    from_ns,
)
from unimeter.wire.failures import exception_of
from unimeter.wire.framer import RESPONSE_HEADER_BYTES
from unimeter.wire.messages import (
    AlertPushEnable,
    AlertsList,
    AlertsListReply,
    ErrorReply,
    IngestReply,
    PacketType,
    Request,
    Response,
    TransferLeader,
    WithActor,
)
from unimeter.wire.messages import Watch as WatchRequest
from unimeter.wire.v2_ingest import encode_ingest

_HERE = Actor(via="embedded")  # who changes something: this program
PAGE_ALERTS = 256  # what a stream looks up at a time
LOOK_SECONDS = 1.0  # between looks at the clock of a watch that waits
T = TypeVar("T")


def open(  # noqa: A001
    path: str | os.PathLike[str] = MEMORY,
    *,
    timeout: float = TIMEOUT_SECONDS,
    progress: Progress | None = None,
    **options: Any,
) -> Embedded:
    """Open a data directory, made if it is not there, and return its meter.

    Replays what the last snapshot does not hold; `progress` hears how far that
    is. `options` are those of the server's configuration that concern data, such
    as ``retention_age``. Raises `DataError` with what was expected and what was
    found if the directory can't be used.
    """
    return Embedded(path, timeout=timeout, progress=progress, **options)


class Embedded(Surface):
    """A node without a server. Close it, or use it in a ``with``."""

    def __init__(
        self,
        path: str | os.PathLike[str] = MEMORY,
        *,
        timeout: float = TIMEOUT_SECONDS,
        progress: Progress | None = None,
        **options: Any,
    ) -> None:
        """Open `path`; see `unimeter.open`."""
        super().__init__()
        self._timeout = check_timeout(timeout)
        self._path = os.fspath(path)
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.RLock())  # guards the node; news of alerts
        self._streams: set[EmbeddedAlertStream] = set()
        self._closed = False
        host = InlineHost()
        host.watchers.append(self._alerted)
        host.on_changed = self._totals_changed
        self._host = host
        self._node = open_node(Config(data_dir=self._path, **options), host, progress)
        self._live = Live(self._node)

    # --- life ----------------------------------------------------------------

    def close(self) -> None:
        """Snapshot if that is cheap and give the directory back. May be repeated."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._node.close()

    def __enter__(self) -> Embedded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def statistics(self) -> dict[str, int]:
        """What the engine counts of itself: events, series, cells, keys and more."""
        with self._changed:
            self._check_usable()
            return self._node.machine.statistics()

    # --- what Surface asks of us ---------------------------------------------

    def _ask(
        self, request: Request, account: Account, timeout: float | None
    ) -> tuple[Response, int]:
        if isinstance(request, WithActor):
            request.actor = _HERE
        if isinstance(request, TransferLeader):
            raise ClientError("a meter opened in this process is alone: no node can lead instead")
        return self._insist(lambda: self._answer(request), timeout)

    def _ingest(
        self, events: Sequence[Event], is_sync: bool, timeout: float | None
    ) -> IngestResult:
        refused = checks.check_events(events)
        tally = Tally(events, refused)
        kept = [index for index in range(len(events)) if index not in refused]
        timestamp_ns = time.time_ns()
        for start in range(0, len(kept), limits.EVENTS_PER_BATCH_MAX):
            indexes = kept[start : start + limits.EVENTS_PER_BATCH_MAX]
            chosen = [events[index] for index in indexes]
            payload = encode_ingest(chosen, default_timestamp_ns=timestamp_ns)
            try:
                reply, position = self._insist(lambda: self._store(payload), timeout)  # noqa: B023
            except UnimeterError as error:
                tally.explain(error)
                raise
            tally.add(indexes, reply, position)
        return tally.result()

    def _subscribe(self, request: AlertPushEnable, timeout: float | None) -> AlertStream:
        with self._changed:
            self._check_usable()
            last = self._node.last_alert
        return EmbeddedAlertStream(self, request, last if request.after is None else request.after)

    def _watch(self, request: WatchRequest, timeout: float | None) -> Watch:
        check_watch(request)
        with self._changed:
            self._check_usable()
            return EmbeddedWatch(self, request)

    def _totals_changed(self, kind: int) -> None:
        """An entry was applied while somebody watches totals."""
        with self._changed:
            if self._live.changes_catalog(kind):
                self._live.rebuild(is_other_machine=False)
            self._changed.notify_all()

    def _address(self) -> str:
        return self._path

    # --- the node ------------------------------------------------------------

    def _answer(self, request: Request) -> tuple[Response, int]:
        response, position = handlers.call(self._node, request)
        if isinstance(response, ErrorReply):
            raise exception_of(response)
        return response, position

    def _store(self, payload: bytes) -> tuple[IngestReply, int]:
        frame = self._node.ingest_payload(payload)
        reply = Reply(frame[0], memoryview(frame)[RESPONSE_HEADER_BYTES:])
        position, response = decode(PacketType.INGEST_SYNC, reply)
        if isinstance(response, ErrorReply):
            raise exception_of(response)
        assert isinstance(response, IngestReply)
        return response, position

    def _insist(self, work: Callable[[], T], timeout: float | None) -> T:
        """Do `work`; while the disk is short, wait and try again until the deadline."""
        seconds = self._timeout if timeout is None else check_timeout(timeout)
        deadline = time.monotonic() + seconds
        while True:
            try:
                with self._changed:
                    self._check_usable()
                    return self._guarded(work)
            except BackpressureError as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                time.sleep(min(max(error.retry_after, 0.01), left))

    def _guarded(self, work: Callable[[], T]) -> T:
        """Do `work`; a Ctrl-C in its middle leaves a node that can't be trusted.

        It may come between the log's sync and the totals. What is durable is found
        again when the directory is opened; this process must not go on with it. (An
        Exception is another matter: the node stops itself where its state is at stake.)
        """
        try:
            return work()
        except Exception:
            raise
        except BaseException as error:
            self._node.failure = self._node.failure or error
            raise

    def _alerted(self, start: int, end: int) -> None:
        """The node has new alerts: wake whoever waits for one."""
        with self._changed:
            self._changed.notify_all()

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientError("this meter is closed; open the directory again")
        if os.getpid() != self._pid:
            raise ClientError(
                "this meter was opened before a fork and its directory belongs to the parent "
                "process; open it after the fork, in one process"
            )
        if self._node.failure is not None:
            raise DataError(
                f"the meter stopped after {self._node.failure!r}; close it and open the "
                "directory again: everything that was acknowledged is there"
            )


class EmbeddedAlertStream(AlertStream):
    """Alerts of this process's own node, looked up by position."""

    def __init__(self, meter: Embedded, request: AlertPushEnable, after: int) -> None:
        self._meter = meter
        self._accounts = frozenset(request.accounts)
        self._metrics = frozenset(request.metrics)
        self._looked_at = after  # position up to which alerts were looked up
        self._position = after
        self._found: deque[AlertRecord] = deque()
        self._closed = False

    def get(self, timeout: float | None = None) -> AlertRecord | None:
        """The next alert; None when `timeout` seconds passed or the stream is closed."""
        until = None if timeout is None else time.monotonic() + timeout
        changed = self._meter._changed
        with changed:
            while not self._closed and not self._meter._closed:
                if self._found or self._look():
                    record = self._found.popleft()
                    self._position = record.position
                    return record
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                changed.wait(left)
        return None

    def _look(self) -> bool:
        """Look up what came since; whether there is one for us."""
        while not self._found:
            request = AlertsList(after=self._looked_at, limit=PAGE_ALERTS)
            page = self._meter._get(request, AlertsListReply, 0, None)[0]
            if not page.alerts:
                return False
            self._looked_at = page.alerts[-1].position
            for row in page.alerts:
                if (not self._accounts or row.account in self._accounts) and (
                    not self._metrics or row.metric_code in self._metrics
                ):
                    self._found.append(row.record(self._meter._path))
        return True

    def close(self) -> None:
        """End the subscription; safe from another thread."""
        with self._meter._changed:
            self._closed = True
            self._meter._changed.notify_all()

    @property
    def position(self) -> int:
        """Position of the last alert handed out."""
        return self._position

    def offsets(self) -> dict[str, int]:
        """`position` in the form that `subscribe(since_offset=...)` takes."""
        return {self._meter._path: self._position}


class EmbeddedWatch(Watch):
    """Alerts and changed totals of this process's own node: gathered when they are asked for."""

    def __init__(self, meter: Embedded, request: WatchRequest) -> None:
        self._meter = meter
        self._found: deque[tuple[Change, Place]] = deque()
        self._closed = False
        self._watcher = Watcher(
            meter._live,
            self,
            interest_of(request.accounts, request.metrics, totals=request.totals),
            wants_alerts=request.alerts,
            place=place_of(request),
            after=request.after,
        )
        self._place = self._watcher.place

    def get(self, timeout: float | None = None) -> Change | None:
        """The next item; None when `timeout` seconds passed or the stream is closed."""
        until = None if timeout is None else time.monotonic() + timeout
        changed = self._meter._changed
        with changed:
            while not self._closed and not self._meter._closed:
                if self._found or self._look():
                    item, self._place = self._found.popleft()
                    return item
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                # A billing period ends without anybody's doing.
                changed.wait(LOOK_SECONDS if left is None else min(left, LOOK_SECONDS))
        return None

    def _look(self) -> bool:
        """Gather what is new; whether there is anything."""
        live = self._meter._live
        live.look_at_clock()
        live.drain()
        batch = self._watcher.collect()
        for alert in batch.alerts:
            place = Place(alert.position, batch.before.entry)
            self._found.append((alert.record(self._meter._path), place))
        for total, place in batch.placed():
            self._found.append((_change(total), place))
        if batch.overflow:
            self._found.append((Overflow(batch.place.entry), batch.place))
        if not self._found:
            self._place = batch.place
        return bool(self._found)

    def close(self) -> None:
        """End the stream; safe from another thread."""
        with self._meter._changed:
            self._closed = True
            self._watcher.close()
            self._meter._changed.notify_all()

    @property
    def position(self) -> str:
        """Where the stream stands."""
        return str(self._place)

    # --- the watcher's sink, which nobody serves here ---------------------------------

    is_ready = False

    def send(self, batch: Batch) -> None:
        """Do nothing: batches are gathered by `get`."""

    def beat(self, place: Place) -> None:
        """Do nothing."""

    def check(self) -> bool:
        """Whoever has the directory may read it."""
        return True

    def end(self) -> None:
        """Do nothing: closing the meter ends it."""


def _change(total: Total) -> TotalChange:
    return TotalChange(
        total.account,
        total.metric_code,
        total.agg,
        total.value,
        from_ns(total.start_ns),
        from_ns(total.end_ns),
        total.position,
    )
