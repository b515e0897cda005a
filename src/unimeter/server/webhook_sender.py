"""One webhook on the node that leads: alerts from the log, requests out, progress into the log.

    alert log ─> lanes ─> request ─> what came of it ─> lanes ─> propose_progress
     (read a page a turn)  (a task)                     (at most ten times a second)

Owns the clock's side of `webhook_lanes`: it is woken by new alerts, by answers, by the lanes' next
due time and by changes of the webhook, does what can be done now, and sets one timer. Nothing
runs while there is nothing to do.

- Before each request, and when its answer comes, the node must still lead: a deposed one
  stops. What it had sent and not recorded, the next leader sends again, with the same ids.
- What was delivered counts once it is recorded. A proposal that fails is made again.
- A pause lets requests under way end and records their answers. A replay or a deletion ends
  them: `stop`, and another sender begins from the log's state.
- A 410, or an alert that has used all its attempts, pauses the webhook, by way of the log and so
  in the trail, with the reason.

Rejected: recording each delivery before the next one. It would cost an entry of the log, and a
round trip to the quorum, for each alert.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from unimeter import limits
from unimeter.canonical import line
from unimeter.control import Actor, Delivery, WebhookRecord
from unimeter.engine.alert_log import alert_at
from unimeter.errors import BackpressureError
from unimeter.server import webhook_message as message
from unimeter.server.administration import propose_progress
from unimeter.server.handlers import answer
from unimeter.server.platform import Answer, OutboundError
from unimeter.server.webhook_lanes import NS, Lanes
from unimeter.wire.messages import ErrorReply, Response, WebhookAction, WebhookControl

if TYPE_CHECKING:
    from unimeter.server.webhooks import Webhooks

AGAIN_SECONDS = 0.25  # after a proposal that was not taken
GONE = 410
MAY_HOLD = (429, 503)  # whose Retry-After is about the receiver, not about one message
DELIVERIES = Actor(name="deliveries", via="node")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt. An empty error: it is delivered."""

    error: str = ""
    status: int = 0
    retry_after: float = 0.0


class Sender:
    """The deliveries of one webhook, while this node leads."""

    def __init__(self, office: Webhooks, record: WebhookRecord, delivery: Delivery) -> None:
        self.office, self.record, self.epoch = office, record, delivery.epoch
        self._accounts, self._metrics = frozenset(record.accounts), frozenset(record.metrics)
        platform = office.platform
        self.lanes = Lanes.resume(
            platform.webhook_pace,
            platform.chance,
            delivery.through,
            delivery.done,
            delivery.attempts,
            platform.monotonic(),
            platform.time_ns(),
        )
        self.lanes.failures = delivery.failures
        self.error = delivery.error
        self._is_stopped = self._is_woken = False
        self._pause_reason = ""  # it is about to be paused: nothing more is sent
        self._is_pausing = self._is_recording = False
        self._recorded = (self.lanes.changes, self.lanes.through)
        self._record_at = self._pause_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what happens to it ----------------------------------------------------------

    def wake(self) -> None:
        """Something may be done now. Cheap to repeat."""
        if not self._is_woken and not self._is_stopped:
            self._is_woken = True
            self.office.loop.call_soon(self._guarded)

    def changed(self, record: WebhookRecord) -> None:
        """The webhook was paused or resumed."""
        was_active, self.record = self.record.is_active, record
        self._pause_reason = ""
        if record.is_active and not was_active:
            self.lanes.try_all()
            self.error = ""
        self.wake()

    def stop(self) -> None:
        """Send nothing more, and hear of nothing any more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def finish(self) -> None:
        """Record what is done without waiting, then stop: the node is about to end."""
        self._record_at = 0.0
        self._maybe_record(self.office.platform.monotonic())
        self.stop()

    # --- what it does ------------------------------------------------------------------

    def _guarded(self) -> None:
        self._is_woken = False
        if self._is_stopped:
            return
        try:
            self._work()
        except Exception as error:
            self.office.node.fail(error)

    def _work(self) -> None:
        now = self.office.platform.monotonic()
        if not self.office.is_leading:
            self.office.stop_sending()
            return
        if self.record.is_active and not self._pause_reason:
            self._read()
            self._send(now)
        self._maybe_record(now)
        self._maybe_pause(now)
        self._set_timer(now)

    def _read(self) -> None:
        """Put the next alerts in line, a page at a time."""
        node, lanes = self.office.node, self.lanes
        with node.lock:
            last = node.last_alert
            for _ in range(limits.WEBHOOK_READ_ALERTS):
                position = lanes.wanted
                if not position or position > last:
                    return
                alert = alert_at(node.machine, position)
                is_wanted = (not self._accounts or alert.account in self._accounts) and (
                    not self._metrics or alert.metric_code in self._metrics
                )
                lanes.offer(position, alert.account if is_wanted else None)
        self.wake()

    def _send(self, now: float) -> None:
        office = self.office
        while office.has_room_for(self.record.id) and (position := self.lanes.take(now)):
            office.inflight += 1
            task = office.loop.create_task(self._deliver(position))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _deliver(self, position: int) -> None:
        """One attempt."""
        node = self.office.node
        with node.lock:
            ident = message.alert_id(node.machine.cluster_id, position)
            body = message.alert_body(alert_at(node.machine, position))
        traced: AbstractContextManager[Any] = nullcontext()
        if node.tracing is not None:
            traced = node.tracing.webhook(self.record.id, position)
        with traced as span:
            result = await attempt(self.office, self.record, ident, body)
            if span is not None:
                span.set_attribute("http.response.status_code", result.status)
                span.set_attribute("error.type", result.error)
        # Whoever was deposed or replayed meanwhile has no say any more.
        if not self._is_stopped and self.office.is_leading:
            self._take_result(position, result)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.office.ended()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.office.node.fail(error)
        self.wake()

    def _take_result(self, position: int, result: Result) -> None:
        office, lanes = self.office, self.lanes
        if not result.error:
            lanes.delivered(position)
            office.delivered += 1
            self.error = ""
            return
        office.failed += 1
        self.error = result.error
        now, now_ns = office.platform.monotonic(), office.platform.time_ns()
        may_go_on = lanes.failed(position, now, now_ns, result.retry_after)
        if result.status in MAY_HOLD and result.retry_after:
            lanes.hold(now, result.retry_after)
        if result.status == GONE:
            self._pause_reason = f"the receiver says that it is gone: {result.error}"
        elif not may_go_on:
            failures = lanes.failures_of(position)
            self._pause_reason = (
                f"alert {position} failed {failures} times, the last time with: {result.error}"
            )

    # --- into the log --------------------------------------------------------------------

    @property
    def _is_dirty(self) -> bool:
        changes, through = self._recorded
        passed_over = self.lanes.through - through
        return self.lanes.changes != changes or passed_over > limits.WEBHOOK_SKIPPED_MAX

    def _maybe_record(self, now: float) -> None:
        """Propose where we stand, unless that was just done, is being done, or is known."""
        if self._is_recording or not self._is_dirty or now < self._record_at:
            return
        lanes, state = self.lanes, self.lanes.state()
        progress = Delivery(
            through=state.through,
            done=state.done,
            attempts=state.attempts,
            failures=lanes.failures,
            error=self.error,
            epoch=self.epoch,
        )
        asked = (lanes.changes, state.through)
        self._is_recording = True
        self._record_at = now + self.office.platform.webhook_pace.record_seconds

        def done(applied: Any, index: int) -> None:
            self._is_recording = False
            if isinstance(applied, BackpressureError):
                self._record_at = self.office.platform.monotonic() + AGAIN_SECONDS
            else:
                # If it was refused, the webhook was replayed or deleted: we are told of that.
                self._recorded = asked
            self.wake()

        try:
            propose_progress(self.office.node, self.record.id, progress, done)
        except BackpressureError as error:
            done(error, 0)

    def _maybe_pause(self, now: float) -> None:
        """Have the webhook paused by the log."""
        if not self._pause_reason or self._is_pausing or now < self._pause_at:
            return
        if not self.record.is_active:
            return
        self._is_pausing = True

        def done(response: Response, index: int) -> None:
            self._is_pausing = False
            if isinstance(response, ErrorReply):
                self._pause_at = self.office.platform.monotonic() + AGAIN_SECONDS
            self.wake()

        reason = line(self._pause_reason, limits.WEBHOOK_REASON_CHARACTERS_MAX)
        control = WebhookControl(
            self.record.id, WebhookAction.PAUSE, reason=reason, actor=DELIVERIES
        )
        try:
            answer(self.office.node, control, done)
        except BackpressureError:
            self._is_pausing = False
            self._pause_at = now + AGAIN_SECONDS

    def _set_timer(self, now: float) -> None:
        """Come back when something is due, and not before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = []
        if self.record.is_active and not self._pause_reason and self.office.has_room:
            due = self.lanes.due(now)
            if due is not None:
                times.append(due)
        if self._is_dirty and not self._is_recording:
            times.append(self._record_at)
        if self._pause_reason and self.record.is_active and not self._is_pausing:
            times.append(self._pause_at)
        if times:
            self._timer = self.office.loop.call_later(max(0.0, min(times) - now), self.wake)


async def attempt(office: Webhooks, record: WebhookRecord, ident: str, body: bytes) -> Result:
    """Send a message once; what came of it."""
    platform = office.platform
    headers = message.headers(record, ident, platform.time_ns() // NS, body)
    seconds = platform.webhook_pace.answer_seconds
    try:
        found = await office.outbound.post(record.url, headers, body, seconds)
    except OutboundError as error:
        return Result(shown(str(error), record))
    return result_of(found, record, platform.time_ns(), tells_all=office.tells_all)


def result_of(
    found: Answer, record: WebhookRecord, now_ns: int, *, tells_all: bool = True
) -> Result:
    """What an answer means: any 2xx is done.

    What a server inside the network says is for those inside: without `tells_all` it is not kept.
    """
    if 200 <= found.status < 300:
        return Result(status=found.status)
    is_told = tells_all or found.is_public
    said = found.body.decode("utf-8", "replace").strip() if is_told else ""
    error = shown(f"HTTP {found.status}: {said}" if said else f"HTTP {found.status}", record)
    return Result(error, found.status, retry_after(found.headers.get("retry-after", ""), now_ns))


def retry_after(text: str, now_ns: int) -> float:
    """Seconds that a receiver asks to wait; 0 if it says nothing that can be read."""
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_ns / NS)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


def shown(text: str, record: WebhookRecord) -> str:
    """An error as it may be kept: one line, short, and without the secret if it was echoed."""
    for secret in (record.secret, record.secret.partition("_")[2]):
        text = text.replace(secret, "...")
    return line(text, limits.WEBHOOK_ERROR_BYTES_MAX)
