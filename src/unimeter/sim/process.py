"""One operating system process of the fake world: its loop, its threads, its time, its end.

Owns the rule that a dead process does nothing: its loop turns no more, what it wrote to
sockets before is on its way and what it would write now is not, and its disk refuses it.
Code of a killed process may still be on Python's stack (a power cut is an exception
inside a disk operation); whatever it does there has no effect.

A process has one time of its own that may run ahead of the world's: a callback that syncs
spends milliseconds, and what it sends afterwards leaves that much later. The time spent in
a thread's job is that job's and does not hold up the loop.

    loop    turn ── disk 2 ms ── send ──┐ the next turn begins here
    thread  ── job: disk 5 ms ──────────┴──> told to the loop, 5 ms after the job began
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from unimeter.sim.chance import Chance
from unimeter.sim.loop import SimLoop
from unimeter.sim.scheduler import MICROSECOND, Scheduler

HANDOVER_NS = (5 * MICROSECOND, 60 * MICROSECOND)  # from one thread to another


class Process:
    """A process, from its start to its end."""

    def __init__(self, name: str, ip: str, scheduler: Scheduler, chance: Chance) -> None:
        self.name, self.ip = name, ip
        self.scheduler, self.chance = scheduler, chance
        self.is_dead = False
        self.paused_until_ns = 0
        self.on_error: Callable[[BaseException], None] = _raise
        self._job_ns = -1  # spent by the job of a thread that is running now; -1: the loop runs
        self._busy_until_ns = 0
        self._threads: dict[str, Thread] = {}
        self.loop = SimLoop(self)  # type: ignore[abstract]

    @property
    def now_ns(self) -> int:
        """The time as this process would read it now, since the world began."""
        now = self.scheduler.now_ns
        if self._job_ns >= 0:
            return now + self._job_ns
        return max(now, self._busy_until_ns)

    @property
    def in_job(self) -> bool:
        """Whether code of a thread runs now, and not the loop."""
        return self._job_ns >= 0

    def spend(self, duration_ns: int) -> None:
        """What runs now takes so long."""
        if self._job_ns >= 0:
            self._job_ns += duration_ns
        else:
            self._busy_until_ns = self.now_ns + duration_ns

    def pause(self, until_ns: int) -> None:
        """The whole process stands still, as under SIGSTOP."""
        self.paused_until_ns = max(self.paused_until_ns, until_ns)

    def free_at_ns(self) -> int:
        """When the loop can turn next."""
        return max(self.now_ns, self._busy_until_ns, self.paused_until_ns)

    def thread(self, name: str) -> Thread:
        """The thread of that name."""
        if name not in self._threads:
            self._threads[name] = Thread(self)
        return self._threads[name]

    def die(self) -> None:
        """The process has ended; nothing of it has any effect from now on."""
        self.is_dead = True
        self.loop.drop()
        for thread in self._threads.values():
            thread.drop()

    # --- for Thread ----------------------------------------------------------------

    def run_job(self, work: Callable[[], Any]) -> int:
        """Run code of a thread now; the nanoseconds that it took."""
        outer, self._job_ns = self._job_ns, 0
        try:
            work()
        except BaseException as error:
            if not self.is_dead:
                self.on_error(error)
        finally:
            spent, self._job_ns = self._job_ns, outer
        return spent


class Thread:
    """A thread of a process: jobs one after the other, each at a moment of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._jobs: deque[Callable[[], Any]] = deque()
        self._is_under_way = False

    def put(self, work: Callable[[], Any]) -> None:
        """Run this after all that was put before."""
        if self._process.is_dead:
            return
        self._jobs.append(work)
        self._begin()

    def drain(self) -> None:
        """Run here and now what was put: somebody waits for it."""
        while self._jobs and not self._process.is_dead:
            self._process.spend(self._process.run_job(self._jobs.popleft()))

    def drop(self) -> None:
        """The process has ended."""
        self._jobs.clear()

    def _begin(self) -> None:
        if self._is_under_way or not self._jobs:
            return
        self._is_under_way = True
        process = self._process
        delay = process.chance.between(*HANDOVER_NS)
        process.scheduler.at(max(process.now_ns, process.paused_until_ns) + delay, self._run)

    def _run(self) -> None:
        process = self._process
        if process.is_dead:
            return
        if process.paused_until_ns > process.scheduler.now_ns:
            process.scheduler.at(process.paused_until_ns, self._run)
            return
        spent = process.run_job(self._jobs.popleft()) if self._jobs else 0
        process.scheduler.after(spent, self._ended)

    def _ended(self) -> None:
        self._is_under_way = False
        if not self._process.is_dead:
            self._begin()


class Workers:
    """Stands in for a pool of threads, with one."""

    def __init__(self, process: Process, name: str) -> None:
        self._process, self._thread = process, process.thread(name)
        self._waiting: dict[Future[Any], None] = {}

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Run it in the thread."""
        future: Future[Any] = Future()
        self._waiting[future] = None
        self._thread.put(lambda: self._work(future, work, arguments))
        return future

    def _work(
        self, future: Future[Any], work: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self._waiting.pop(future, None)
        if not future.set_running_or_notify_cancel():
            return
        result: Any = None
        failure: BaseException | None = None
        try:
            result = work(*arguments)
        except Exception as error:
            failure = error
        process = self._process
        process.scheduler.at(process.now_ns, self._resolve, future, result, failure)

    def _resolve(self, future: Future[Any], result: object, failure: BaseException | None) -> None:
        if self._process.is_dead:
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; a job is never half done here, so there is nothing to wait for."""
        if cancel_futures:
            for future in list(self._waiting):
                future.cancel()
            self._waiting.clear()
        elif wait:
            self._thread.drain()


def _raise(error: BaseException) -> None:
    raise error
