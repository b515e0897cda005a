"""The recorder: every call and every answer, in one order, on disk as it happens.

One lock gives each event its place and its time. A call is recorded before it
is sent and its answer after it was received, so the recorded interval contains
the real one: a checker may call a right history right, and never a wrong order
of two operations that did follow one another.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

from tests.conformance.linearizability.history import Event, line_of
from tests.conformance.linearizability.operations import Kind


class Recorder:
    """Appends events to a list and to a file; safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._file.close()

    def record(
        self,
        process: int,
        client: str,
        kind: Kind,
        f: str,
        key: str,
        value: int | None = None,
        *,
        linearizable: bool = True,
    ) -> None:
        """Record one step, now; after the recorder was closed, nothing."""
        with self._lock:
            if self._file.closed:
                return
            now = time.monotonic_ns()
            event = Event(now, process, client, kind, f, key, value, linearizable).check()
            self.events.append(event)
            self._file.write(line_of(event) + "\n")

    def statistics(self) -> dict[str, int]:
        """Count the events by what they are."""
        counts: dict[str, int] = {}
        with self._lock:
            for event in self.events:
                kind = f"{event.f} {event.type}"
                if event.f == "read" and not event.linearizable:
                    kind = f"default {kind}"
                counts[kind] = counts.get(kind, 0) + 1
        return dict(sorted(counts.items()))
