"""One thread that applies large entries, so that the next ones are decoded meanwhile.

    loop thread    decode N+2 | decode N+3 | replies of N
    sync thread    write N+1  | write N+2
    this thread    apply N    | apply N+1

Owns the queue between the node and that thread, and nothing of the meaning: it
calls `count` for each entry in log order and tells of the result from the thread.
The kernel releases the interpreter while it works, so on two cores decoding and
counting really overlap: they are a third and two thirds of the work.

The machine is guarded by the node's lock, which `count` takes for one entry at a
time; a query waits for an entry at most (a few milliseconds), and only under
a load of large batches: small entries are applied by the loop's own thread.

Rejected: applying in the sync thread. The disk would stand idle meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

E = TypeVar("E")
R = TypeVar("R")


@dataclass(frozen=True)
class _Mark:
    """A place in the queue that somebody waits for."""

    done: threading.Event


class Applier(Generic[E, R]):
    """The apply thread. Errors are final: after one, nothing more is counted."""

    def __init__(
        self,
        count: Callable[[E], R],
        on_counted: Callable[[E, R], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._count, self._on_counted, self._on_error = count, on_counted, on_error
        self._queue: SimpleQueue[Sequence[E] | _Mark] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="unimeter-apply", daemon=True)
        self._thread.start()

    def put(self, entries: Sequence[E]) -> None:
        """Count these after all that were put before. Never blocks."""
        assert entries, "an empty list means the end"
        self._queue.put(entries)

    def wait(self) -> None:
        """Return when everything that was put is counted."""
        done = threading.Event()
        self._queue.put(_Mark(done))
        done.wait()

    def close(self) -> None:
        """Count what was put, then end the thread; returns when it has ended."""
        self._queue.put(())
        self._thread.join()

    def _release_waiting(self) -> None:
        """Nothing more is counted: let nobody wait for it."""
        while not self._queue.empty():
            entries = self._queue.get()
            if isinstance(entries, _Mark):
                entries.done.set()

    def _run(self) -> None:
        while entries := self._queue.get():
            if isinstance(entries, _Mark):
                entries.done.set()
                continue
            for entry in entries:
                try:
                    result = self._count(entry)
                except BaseException as error:  # told to the host, which stops the process
                    self._on_error(error)
                    self._release_waiting()
                    return
                self._on_counted(entry, result)
