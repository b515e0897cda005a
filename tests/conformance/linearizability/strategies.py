"""Histories for the tests: drawn at random, of a real object or of none.

`metered` plays a real counter under concurrent processes: each operation takes
effect at one moment between its call and its return, a session sees at least
what it saw before, and the history is right by construction. The planted bugs
are the three that a metering engine must not have, and one of replication:

    lost        an acknowledged add has no effect
    twice       an acknowledged add has its effect twice
    stale       a read returns the total of before an add that had returned
    foreign     a read returns what nobody ever added

A bug is planted after everything else is quiet, where no other order excuses it.
`scribbled` draws steps with no object behind them: some right, most wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from tests.conformance.linearizability.history import Event
from tests.conformance.linearizability.operations import Kind, Operation, Step, pair

BUGS = ("lost", "twice", "stale", "foreign")


class Recorder:
    """Appends events, one nanosecond apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, process: int, kind: Kind, f: str, value: int | None = None) -> None:
        client = f"client-{process % 3}"
        self.events.append(Event(len(self.events), process, client, kind, f, "k", value))


def metered(
    chance: random.Random,
    *,
    count: int,
    processes: int = 5,
    unknown: float = 0.2,
    sizes: Sequence[int] = (1, 2, 3),
    bug: str | None = None,
) -> list[Event]:
    """Return the history of a real counter that was used by concurrent processes."""
    record = Recorder()
    total = 0
    running: dict[int, list[Any]] = {}  # process -> function, add's size or read's total, is done
    late: list[int] = []  # sizes of adds whose client has given up and that may still happen
    while count or running:
        if late and chance.random() < 0.1:
            total += late.pop(chance.randrange(len(late)))
        process = chance.randrange(processes)
        if process not in running:
            if count:
                count -= 1
                function = chance.choice(("add", "read"))
                value = chance.choice(sizes) if function == "add" else None
                record(process, "invoke", function, value)
                running[process] = [function, value, False]
            continue
        function, value, is_done = running[process]
        if not is_done and function == "add" and chance.random() < unknown:
            record(process, "info", "add")
            late.append(value)
            del running[process]
        elif not is_done:
            total += value if function == "add" else 0
            running[process] = [function, value if function == "add" else total, True]
        else:
            record(process, "ok", function, value)
            del running[process]
    record(0, "invoke", "add", 2)
    record(0, "ok", "add")
    record(0, "invoke", "read")
    effect = {"lost": 0, "twice": 4, "stale": 0, "foreign": 1_000_000}.get(bug or "", 2)
    record(0, "ok", "read", total + effect)
    return record.events


def final_total(events: Sequence[Event]) -> int:
    """Return what the last read showed."""
    value = events[-1].value
    assert value is not None
    return value


@st.composite
def scribbled(draw: st.DrawFn, functions: dict[str, Any], steps_max: int = 11) -> list[Operation]:
    """Draw operations with any results; `functions` gives each its arguments and results."""
    steps: list[Step] = []
    running: dict[int, str] = {}
    for _ in range(draw(st.integers(2, steps_max))):
        process = draw(st.integers(0, 2))
        if process in running:
            function = running.pop(process)
            kind: Kind = "ok" if draw(st.integers(0, 3)) else "info"
            result = draw(functions[function][1]) if kind == "ok" else None
            steps.append(Step(process, kind, function, result))
        else:
            running[process] = function = draw(st.sampled_from(sorted(functions)))
            steps.append(Step(process, "invoke", function, draw(functions[function][0])))
    return pair(steps)
