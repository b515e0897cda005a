"""One seed of a sweep, run so that whatever it does becomes a `Result`.

Owns the limit of wall-clock time and the loop of a worker process. An exception that
the run lets out is a failing result with its traceback; a run that takes too long is one
with the place where it was. Ctrl-C is let through: it ends the sweep.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import FrameType
from typing import Final, NamedTuple, Protocol

from unimeter.sim.result import Result

SEEDS_PER_WORKER: Final = 500
"""A process is replaced after so many seeds: bounds what a leak of many worlds can add up to."""

_AGAIN_SECONDS: Final = 5.0  # a run that swallowed the end of its time is told again


class RunSeed(Protocol):
    """What runs one seed: `unimeter.sim.run.run_seed`, or a stand-in in tests."""

    def __call__(self, seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
        """Run it; with `keep` the result has the story."""
        ...


class Task(NamedTuple):
    """One seed to run."""

    seed: int
    profile: str = "swarm"


class TooLongError(KeyboardInterrupt):
    """The time of a seed is over.

    A KeyboardInterrupt because asyncio and our own code let that one through wherever
    they are; any other exception would become the result of some task of the fake world.
    """


def real_run() -> RunSeed:
    """The simulator itself, imported when it is needed: it imports the whole server."""
    from unimeter.sim.run import run_seed

    return run_seed


def run_task(run: RunSeed, task: Task, limit_seconds: float | None, keep: bool = False) -> Result:
    """Run one seed; whatever it raises is a failing result."""
    started = time.monotonic()
    try:
        with _limited(limit_seconds):
            return run(task.seed, task.profile, keep=keep)
    except TooLongError as error:
        reason = f"still running after {limit_seconds:g} s, here:\n{_trace(error)}"
        checker = "time limit"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}\n{_trace(error)}"
        checker = "uncaught exception"
    return failing(task, checker, reason, time.monotonic() - started)


def failing(task: Task, checker: str, reason: str, wall_seconds: float = 0.0) -> Result:
    """The result of a run that could not make its own."""
    return Result(
        task.seed,
        task.profile,
        passed=False,
        checker=checker,
        failure=reason.strip(),
        wall_seconds=wall_seconds,
    )


def work(connection: Connection, run: RunSeed, limit_seconds: float) -> None:
    """What a worker process does: tasks in, results out, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep hears it and ends its workers
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(run_task(run, task, limit_seconds))


@contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Raise TooLongError in the block when its time is over, wherever it is.

    Only the main thread can be interrupted so; elsewhere, and without signals, there is
    no limit. An alarm that was set by somebody else goes on afterwards.
    """
    main = threading.current_thread() is threading.main_thread()
    if seconds is None or not main or not hasattr(signal, "setitimer"):
        yield
        return
    handler = signal.signal(signal.SIGALRM, _alarm)
    started = time.monotonic()
    others_seconds, others_interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if others_seconds:
            left = max(others_seconds - (time.monotonic() - started), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, others_interval)


def _alarm(number: int, frame: FrameType | None) -> None:
    raise TooLongError


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_tb(error.__traceback__)[1:]).rstrip()  # not this module
