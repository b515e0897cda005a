"""An asyncio event loop whose turns, time and sockets are the world's.

Owns what asyncio asks of a loop, as far as the server and the SDK use it: callbacks,
timers, tasks, futures, jobs in threads, connections and listeners. Everything else raises
NotImplementedError, so that new code which needs more is noticed.

A turn runs what was ready when it began, like asyncio's own. When the next turn comes is
drawn, so two processes meet in many orders; a paused process turns when its pause is over.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from unimeter.sim.scheduler import MICROSECOND, SECOND

if TYPE_CHECKING:
    from unimeter.sim.network import Network
    from unimeter.sim.process import Process

TURN_NS = (1 * MICROSECOND, 20 * MICROSECOND)  # from a callback's being ready to its turn


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one process."""

    network: Network  # set by the world

    def __init__(self, process: Process) -> None:
        self.process = process
        self._ready: deque[asyncio.Handle] = deque()
        self._is_turn_due = False
        self.turns = 0
        self.after_turn: Callable[[], None] = lambda: None

    # --- time and turns --------------------------------------------------------------

    def time(self) -> float:
        return self.process.now_ns / SECOND

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        if self.process.in_job:
            return self.call_soon_threadsafe(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        if not self.process.is_dead:
            self._ready.append(handle)
            self._want_turn()
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """From a job of a thread: at the moment that the job has come to."""
        handle = asyncio.Handle(callback, args, self, context)
        self.process.scheduler.at(self.process.now_ns, self._append, handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.process.is_dead:
            # Rounded up: a timer that rings a nanosecond early would be set again for ever.
            self.process.scheduler.at(int(when * SECOND) + 1, self._append, handle)
        return handle

    def _append(self, handle: asyncio.Handle) -> None:
        if not (self.process.is_dead or handle.cancelled()):
            self._ready.append(handle)
            self._want_turn()

    def _want_turn(self) -> None:
        if not self._is_turn_due:
            self._is_turn_due = True
            process = self.process
            delay = process.chance.between(*TURN_NS)
            process.scheduler.at(process.free_at_ns() + delay, self._turn)

    def _turn(self) -> None:
        process = self.process
        if process.is_dead:
            return
        free = process.free_at_ns()
        if free > process.scheduler.now_ns:  # it was paused since, or a job held it up
            process.scheduler.at(free, self._turn)
            return
        self._is_turn_due = False
        self.turns += 1
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(self._ready)):
                self._run_next()
                if not self._ready:  # the process died in the midst of it
                    break
        finally:
            asyncio._set_running_loop(None)
        if self._ready:
            self._want_turn()
        self.after_turn()

    def _run_next(self) -> None:
        handle = self._ready.popleft()
        if not handle.cancelled():
            handle._run()

    def drop(self) -> None:
        """The process has ended: what waits here is never called."""
        self._ready.clear()

    # --- tasks and threads -------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        return asyncio.Task(coro, loop=self, **options)

    def run_in_executor(  # type: ignore[override]
        self, executor: None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        assert executor is None
        future = self.create_future()

        def job() -> None:
            try:
                result = func(*args)
            except Exception as error:
                self.call_soon_threadsafe(_fail, future, error)
            else:
                self.call_soon_threadsafe(_succeed, future, result)

        self.process.thread("executor").put(job)
        return future

    # --- sockets -------------------------------------------------------------------------

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], *, sock: Any, backlog: int = 100
    ) -> Any:
        return self.network.listen(self.process, protocol_factory, sock)

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int
    ) -> tuple[Any, Any]:
        return await self.network.connect(self.process, protocol_factory, host, port)

    # --- what asyncio asks besides -----------------------------------------------------------

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A callback or task raised and nobody took it: that is a bug of ours."""
        error = context.get("exception")
        if self.process.is_dead or error is None:
            return
        self.process.on_error(error)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.process.is_dead

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        return


def _succeed(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
