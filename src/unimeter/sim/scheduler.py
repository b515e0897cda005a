"""Virtual time: one heap of everything that is going to happen, in the order of its time.

Owns the only clock of a run. Nothing waits: the next event's time becomes *now*. Events of
one instant happen in the order in which they were asked for.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

SECOND = 10**9  # virtual nanoseconds
MILLISECOND = 10**6
MICROSECOND = 10**3


class Event:
    """Something that is going to happen, unless it is cancelled."""

    __slots__ = ("arguments", "callback")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        """It does not happen."""
        self.callback = None
        self.arguments = ()


class Scheduler:
    """The events of one run."""

    def __init__(self) -> None:
        self.now_ns = SECOND  # since the world began; 0 means "never" to some
        self.done = 0  # events that happened
        self._heap: list[tuple[int, int, Event]] = []
        self._number = 0

    def at(self, time_ns: int, callback: Callable[..., object], *arguments: object) -> Event:
        """Have something happen at a time; not before now."""
        event = Event(callback, arguments)
        self._number += 1
        heapq.heappush(self._heap, (max(time_ns, self.now_ns), self._number, event))
        return event

    def after(self, delay_ns: int, callback: Callable[..., object], *arguments: object) -> Event:
        """Have something happen after a while."""
        return self.at(self.now_ns + delay_ns, callback, *arguments)

    def step(self) -> bool:
        """Let the next event happen; False when there is none."""
        while self._heap:
            time_ns, _, event = heapq.heappop(self._heap)
            callback = event.callback
            if callback is None:
                continue
            assert time_ns >= self.now_ns, "time went back"
            self.now_ns = time_ns
            self.done += 1
            callback(*event.arguments)
            return True
        return False

    def forget(self) -> None:
        """Nothing more is going to happen."""
        self._heap.clear()
