"""The processes of applications: each goes through its plan, is killed, and goes on.

Owns what an application does with the SDK's answers, as the reference tells it to:

    "nothing was stored"        it sends the same again
    outcome unknown             it sends again if every event has an id, else it leaves it
    its process was killed      the next one sends again what all had an id
    an alert was handed out     its position is saved: the next process goes on after it

A `SimClient` outlives its processes; what is on it is what the application has on its own
disk. When the world is healed it sends what is still unsettled, a last batch, asks for it
and waits for the last alert. Then it is done.

Version 1 has its own client, in `old_client`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from unimeter.errors import (
    BackpressureError,
    ConnectionError,
    DeadlineExceededError,
    SessionExpiredError,
    UnimeterError,
)
from unimeter.sim.chance import Chance
from unimeter.sim.history import History, Stream
from unimeter.sim.plans import (
    Ask,
    Burst,
    Change,
    Listen,
    Look,
    Plan,
    Remove,
    Rest,
    Send,
    Step,
    Transfer,
)
from unimeter.sim.sdk import Sdk
from unimeter.types import Event
from unimeter.wire.messages import (
    Accounts,
    AccountsReply,
    AlertsList,
    AlertsListReply,
    EventsList,
    EventsListReply,
    Members,
    MembersReply,
    MetricList,
    MetricListReply,
    PutMode,
    Read,
    UsageQuery,
)

CLOSING_SECONDS: Final = 60.0  # the deadline of the last calls: the bound of the liveness check
SET_UP_SECONDS: Final = 3.0  # to wait for the metrics at most: then their absence is met, too
SET_UP_ATTEMPTS: Final = 5
RESENDS_MAX: Final = 2  # by the application, while faults happen
PAUSE_SECONDS: Final = 0.2  # before it does
HURRY: Final = 10  # the plan goes on so much faster when nothing happens any more

PAGES: Final[dict[type, type]] = {
    EventsList: EventsListReply,
    AlertsList: AlertsListReply,
    Accounts: AccountsReply,
    Members: MembersReply,
    MetricList: MetricListReply,
}


@dataclass
class Stage:
    """How far the run is, as all clients know it."""

    is_set_up: bool = False  # the metrics are there
    is_healed: bool = False  # no more faults


class SimClient(ABC):
    """An application, process after process."""

    def __init__(
        self, plan: Plan, history: History, addresses: Sequence[str], chance: Chance, stage: Stage
    ) -> None:
        self.plan, self.history, self.stage = plan, history, stage
        self.name = plan.name
        self.addresses = list(addresses)
        self.chance = chance
        self.process = 0
        self.place = 0  # of the next step
        self.is_idle = False  # the plan is through
        self.is_closed = False  # and so are the last calls
        self.is_running = False
        self.on_error: Callable[[BaseException], None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop, time_ns: Callable[[], int]) -> None:
        """A process starts on that loop; `time_ns` is its host's wall clock."""
        assert not self.is_running, f"{self.name} runs already"
        self.process = self.history.new_process(self.name)
        self.is_running = True
        self.open(self.chance.fork(f"process {self.process}"), time_ns)
        process = self.process
        self._task = loop.create_task(self._live())
        self._task.add_done_callback(lambda task: self._ended(task, process))

    def killed(self) -> None:
        """The process is dead; its loop turns no more."""
        self.is_running = False
        self.history.killed(self.name)

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be expected of it in this stage of the run."""
        return self.is_closed if self.stage.is_healed else self.is_idle

    def _ended(self, task: asyncio.Task[None], process: int) -> None:
        if process != self.process or not self.is_running or task.cancelled():
            return
        self.is_running = False
        error = task.exception()
        if error is not None:
            if self.on_error is None:
                raise error
            self.on_error(error)

    async def _live(self) -> None:
        await self._wait_for_metrics()
        while self.place < len(self.plan.steps):
            step = self.plan.steps[self.place]
            self.place += 1  # a step that a kill interrupts is not begun again
            if isinstance(step, Rest):
                await asyncio.sleep(self._patience(step.seconds))
            else:
                await self.do(step)
        self.is_idle = True
        while not self.stage.is_healed:
            await asyncio.sleep(PAUSE_SECONDS)
        if not self.is_closed:
            await self.close()
        self.is_closed = True

    def _patience(self, seconds: float) -> float:
        return seconds / HURRY if self.stage.is_healed else seconds

    async def _wait_for_metrics(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SET_UP_SECONDS
        while not self.stage.is_set_up and self.plan.kind != "admin" and loop.time() < until:
            await asyncio.sleep(PAUSE_SECONDS / 4)

    @abstractmethod
    def open(self, chance: Chance, time_ns: Callable[[], int]) -> None:
        """A new process: nothing is left of the old one's connections and sessions."""

    @abstractmethod
    async def do(self, step: Step) -> None:
        """One step of the plan."""

    @abstractmethod
    async def close(self) -> None:
        """The last calls, in a world without faults."""


class SdkClient(SimClient):
    """An application with the SDK."""

    sdk: Sdk

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._unsettled: list[list[Event]] = []  # of events with ids, without an answer
        self._listening: Listen | None = None  # what the subscription is about
        self._saved = 0  # position of the last alert that was handled
        self._alerts: Alerts | None = None

    def open(self, chance: Chance, time_ns: Callable[[], int]) -> None:
        self._alerts = None
        self.sdk = Sdk(
            self.addresses,
            name=self.name,
            process=self.process,
            history=self.history,
            chance=chance,
            time_ns=time_ns,
            read_from_any=self.plan.read_from_any,
        )

    async def do(self, step: Step) -> None:
        if self._unsettled and self.chance.hit(0.5):
            await self._send(self._unsettled.pop(0), 4.0)
        try:
            await self._do(step)
        except UnimeterError:
            pass  # the history has it; this application goes on with something else

    async def _do(self, step: Step) -> None:
        sdk = self.sdk
        match step:
            case Send():
                if await self._send(step.events, step.timeout) and step.then is not None:
                    await self._ask(step.then, step.timeout)
            case Burst():
                sends = (self._send(batch, step.timeout) for batch in step.batches)
                await asyncio.gather(*sends)
            case Ask():
                await self._ask(step.request, step.timeout)
            case Change():
                await self._change(step)
            case Remove():
                await sdk.metrics.delete(step.code, timeout=step.timeout)
            case Transfer():
                await sdk.cluster.transfer_leader(step.node_id, timeout=step.timeout)
            case Look():
                await sdk.cluster.status(timeout=step.timeout)
            case Listen():
                await self._listen(step)
            case Rest():
                raise AssertionError("no call")

    # --- batches -----------------------------------------------------------------------

    async def _send(self, events: list[Event], timeout: float) -> bool:
        """Send a batch as an application should; whether it was answered."""
        may_resend = all(event.id for event in events)
        if may_resend:
            self._unsettled.append(events)
        for _ in range(1 + RESENDS_MAX):
            try:
                await self.sdk.ingest(events, timeout=timeout)
            except (BackpressureError, ConnectionError):
                pass  # nothing was stored
            except (DeadlineExceededError, SessionExpiredError):
                if not may_resend:
                    return False
            else:
                if may_resend:
                    self._unsettled = [batch for batch in self._unsettled if batch is not events]
                return True
            await asyncio.sleep(PAUSE_SECONDS)
        return False

    async def _change(self, step: Change) -> None:
        metrics = self.sdk.metrics
        put = {
            PutMode.CREATE: metrics.create,
            PutMode.UPDATE: metrics.update,
            PutMode.PUT: metrics.put,
        }[step.mode]
        for attempt in range(SET_UP_ATTEMPTS):
            try:
                await put(step.schema, timeout=step.timeout)
                break
            except UnimeterError as error:
                if self.stage.is_set_up or not error.retryable or attempt + 1 == SET_UP_ATTEMPTS:
                    break
        following = self.plan.steps[self.place : self.place + 1]
        if not following or not isinstance(following[0], Change):
            self.stage.is_set_up = True

    async def _ask(self, request: Read, timeout: float) -> None:
        """Ask, and follow all pages."""
        account = getattr(request, "account", None) or 0
        kind = PAGES.get(type(request))
        request = replace(request)  # its pages change it
        if kind is None:
            await self.sdk._ask(request, account, timeout)
        else:
            pages: Any = self.sdk._pages
            async for _ in pages(request, kind, account, timeout):
                pass

    # --- alerts ------------------------------------------------------------------------

    async def _listen(self, step: Listen) -> None:
        if self._listening is None or step.is_new:
            self._listening, self._saved = step, -1 if step.from_now else 0
            if self._alerts is not None:
                await self._alerts.close()
                self._alerts = None
        alerts = await self._subscribed(10.0)
        try:
            async with asyncio.timeout(self._patience(step.seconds)):
                while True:
                    self._saved = await alerts.take()
        except TimeoutError:
            pass
        except UnimeterError:
            self._alerts = None  # it has ended; the next one goes on from there
            raise

    async def _subscribed(self, timeout: float) -> Alerts:
        """The subscription of this process; after the last alert that was handled."""
        assert self._listening is not None
        if self._alerts is None:
            alerts = Alerts(self.sdk, self._listening)
            self._saved = await alerts.open(self._saved, timeout)
            self._alerts = alerts
        return self._alerts

    async def _drain(self) -> None:
        """Take all alerts that there are."""
        assert self._listening is not None
        alerts = await self._subscribed(CLOSING_SECONDS)
        record = self.history.begin(self.name, self.process, "drain", timeout=CLOSING_SECONDS)
        try:
            last = await self._last_alert(alerts)
            async with asyncio.timeout(CLOSING_SECONDS):
                while alerts.stream.position < last:
                    self._saved = await alerts.take()
        except UnimeterError as error:
            self.history.fail(record, error)
        except TimeoutError:
            text = f"alert {last} did not come; the last one was {alerts.stream.position}"
            self.history.fail(record, DeadlineExceededError(text))
        else:
            self.history.answer(record, None, 0)

    async def _last_alert(self, alerts: Alerts) -> int:
        """Position of the last alert that the subscription has to bring."""
        last = alerts.stream.position
        request = AlertsList(after=last, linearizable=True)
        pages = self.sdk._pages(request, AlertsListReply, 0, CLOSING_SECONDS)
        async for page in pages:
            for row in page.alerts:
                if alerts.wants(row.account, row.metric_code):
                    last = row.position
        return last

    # --- the end -----------------------------------------------------------------------

    async def close(self) -> None:
        for batch in [*self._unsettled, *([event] for event in self.plan.closing)]:
            self._unsettled = [other for other in self._unsettled if other is not batch]
            await self._send(batch, CLOSING_SECONDS)
        last = self.plan.closing[-1]
        question = UsageQuery(last.account_id, last.metric_code, 0, 2**62, linearizable=True)
        try:
            await self._ask(question, CLOSING_SECONDS)
            if self._listening is not None:
                await self._drain()
        except UnimeterError:
            pass  # the history has it
        await self.sdk.close()


class Alerts:
    """One subscription of one process, and its record."""

    def __init__(self, sdk: Sdk, about: Listen) -> None:
        self._sdk, self._about = sdk, about
        self._subscription: Any = None
        self.stream = Stream(sdk.name, sdk.process, about.accounts, about.metrics, 0, [])

    async def open(self, after: int, timeout: float) -> int:
        """Subscribe after a position, -1 = from now on; where it begins."""
        sdk, about = self._sdk, self._about
        record = sdk.history.begin(sdk.name, sdk.process, "subscribe", timeout=timeout)
        try:
            self._subscription = await sdk.alerts.subscribe(
                account_ids=about.accounts or None,
                metric_codes=about.metrics or None,
                after=None if after < 0 else after,
                buffer_size=3,
                timeout=timeout,
            )
        except UnimeterError as error:
            sdk.history.fail(record, error)
            raise
        sdk.history.answer(record, None, 0)
        self.stream.after = self._subscription.position
        sdk.history.subscribed(self.stream)
        return self.stream.after

    async def take(self) -> int:
        """The next alert's position."""
        record = await anext(self._subscription)
        self._sdk.history.alert(self.stream, record)
        return int(record.position)

    def wants(self, account: int | str, code: str) -> bool:
        """Whether it asked for such alerts."""
        about = self._about
        return (not about.accounts or account in about.accounts) and (
            not about.metrics or code in about.metrics
        )

    async def close(self) -> None:
        """End it."""
        await self._subscription.close()
