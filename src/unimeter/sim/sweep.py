"""Many seeds, one after another or in several processes, into one `Report`.

Owns the worker processes. Each is started fresh (*spawn*: nothing is inherited that could
differ between two runs), gets one seed at a time over a pipe, and answers with a `Result`.
A worker that dies, or is silent beyond its time, is a failing seed with that reason; another
worker takes its place and the sweep goes on.

    tasks ──► [worker] ──► Result ──┐
          ──► [worker] ──► Result ──┴──► Report, on_result     a seed at a time: a slow one
                                                               holds up nobody but itself

Seeds are handed out in order, so the seeds of a sweep that ended early are the first of
those it was given, and with that their number says which. A pool of `concurrent.futures`
was rejected: one worker that dies breaks it, with every seed it holds.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from multiprocessing.connection import wait
from typing import Final

from unimeter.sim.report import Report
from unimeter.sim.result import Result
from unimeter.sim.worker import SEEDS_PER_WORKER, RunSeed, Task, failing, real_run, run_task, work

LIMIT_SECONDS: Final = {"swarm": 120.0, "lite": 120.0, "soak": 1800.0}
"""Wall-clock time of one seed by profile, some fifty times what it takes: beyond, it hangs."""
GRACE_SECONDS: Final = 30.0
"""How much longer a worker may be silent: it starts, or it can't be interrupted and is killed."""

OnResult = Callable[[Result], None]
Results = Generator[Result, None, None]


def sweep(
    seeds: Iterable[int],
    profile: str = "swarm",
    jobs: int = 1,
    *,
    until_failure: bool = False,
    minutes: float | None = None,
    on_result: OnResult | None = None,
    run: RunSeed | None = None,
    limit_seconds: float | None = None,
) -> Report:
    """Run seeds of one profile; see `sweep_tasks`."""
    return sweep_tasks(
        (Task(seed, profile) for seed in seeds),
        jobs,
        until_failure=until_failure,
        minutes=minutes,
        on_result=on_result,
        run=run,
        limit_seconds=limit_seconds or LIMIT_SECONDS[profile],
    )


def sweep_tasks(
    tasks: Iterable[Task],
    jobs: int = 1,
    *,
    until_failure: bool = False,
    minutes: float | None = None,
    on_result: OnResult | None = None,
    run: RunSeed | None = None,
    limit_seconds: float | None = None,
) -> Report:
    """Run all tasks, which may be endless with `until_failure` or `minutes`.

    Both stop handing out seeds; those that run are waited for and counted. Ctrl-C ends
    at once, with the report of what has ended; `interrupted` says so. With one job all
    seeds run in this process. `run` must be importable by name in another process.
    """
    report = Report(jobs=jobs)
    started = time.monotonic()

    def is_over() -> bool:
        late = minutes is not None and time.monotonic() - started >= minutes * 60
        return late or (until_failure and bool(report.failures))

    limit = max(LIMIT_SECONDS.values()) if limit_seconds is None else limit_seconds
    todo = itertools.takewhile(lambda _: not is_over(), tasks)
    chosen = run or real_run()  # here, so that an import that fails is said once
    results = _here(todo, chosen, limit) if jobs == 1 else _in_workers(todo, jobs, chosen, limit)
    try:
        with closing(results):
            for result in results:
                report.add(result)
                report.wall_seconds = time.monotonic() - started
                if on_result is not None:
                    on_result(result)
    except KeyboardInterrupt:
        report.interrupted = True
    report.wall_seconds = time.monotonic() - started
    return report


def _here(todo: Iterator[Task], run: RunSeed, limit: float) -> Results:
    for task in todo:
        yield run_task(run, task, limit)


def _in_workers(todo: Iterator[Task], jobs: int, run: RunSeed, limit: float) -> Results:
    """Results as they come; however this ends, no worker is left."""
    busy: list[_Worker] = []
    try:
        for first in itertools.islice(todo, jobs):
            busy.append(_Worker(run, limit))
            busy[-1].give(first)
        while busy:
            for worker in _ready(busy):
                yield worker.result()  # here it may end: the worker is still among the busy
                busy.remove(worker)
                task = next(todo, None)
                if task is None or worker.is_spent:
                    worker.end()
                if task is not None:
                    busy.append(_Worker(run, limit) if worker.is_spent else worker)
                    busy[-1].give(task)
    finally:
        for worker in busy:
            worker.end()


def _ready(workers: list[_Worker]) -> list[_Worker]:
    """Those with a result, an end, or no time left; waits for the first."""
    soonest = min(worker.deadline for worker in workers)
    heard = wait([w.connection for w in workers], max(soonest - time.monotonic(), 0.0))
    now = time.monotonic()
    return [w for w in workers if w.connection in heard or w.deadline <= now]


class _Worker:
    """A process that runs one seed at a time."""

    def __init__(self, run: RunSeed, limit: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, run, limit), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is seen as an end of the pipe
        self.deadline = 0.0
        self.is_spent = False  # no further seed can be given to it
        self._limit = limit
        self._given = 0
        self._task = Task(0)
        self._since = 0.0

    def give(self, task: Task) -> None:
        """Begin a seed."""
        self._task = task
        self._given += 1
        self._since = time.monotonic()
        self.deadline = self._since + self._limit + GRACE_SECONDS
        try:
            self.connection.send(task)
        except OSError:
            pass  # it died between two seeds; reading its result will tell

    def result(self) -> Result:
        """What came of the seed; also if the process died or did not answer in time."""
        self.is_spent = self._given >= SEEDS_PER_WORKER
        try:
            if self.connection.poll():
                result = self.connection.recv()
                assert isinstance(result, Result)
                return result
            reason = f"its process did not answer for {self._limit + GRACE_SECONDS:g} s"
        except (EOFError, OSError):
            self.process.join(GRACE_SECONDS)
            reason = f"its process died: {_ending(self.process.exitcode)}"
        self.is_spent = True
        return failing(self._task, "worker process", reason, time.monotonic() - self._since)

    def end(self) -> None:
        """End the process; what it runs is lost."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        self.process.close()


def _ending(code: int | None) -> str:
    if code is None:
        return "it is still there, without its pipe"
    if code >= 0:
        return f"it exited with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
