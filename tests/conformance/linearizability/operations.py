"""Operations: what a client called, when, and what it was told.

A history is a list of steps in the order in which they happened: a process
invokes an operation, later it completes. Pairing gives operations with a place
where they were called and a place where they returned:

    step     0        1        2        3        4
    client a invoke add 3 ──────────── ok
    client b          invoke add 5 ─────────── info: nobody knows     (returned = NEVER)

An operation takes effect at one moment between the two. One whose outcome is
unknown (`info`, a crashed process, a history that stops early) may take effect
at any later moment or never: it returns at NEVER, and nothing is owed to it.
One that failed had no effect and is left out.

Places are positions in the list, not times: two steps never have the same one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

NEVER: Final = sys.maxsize  # later than every place

Kind = Literal["invoke", "ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a history, whatever its form."""

    process: int
    kind: Kind
    function: str
    value: Any
    key: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call and its return; `result` means nothing unless `is_known`."""

    process: int
    function: str
    argument: Any
    result: Any
    called: int
    returned: int
    key: str = ""
    client: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the client was told that it took effect."""
        return self.returned != NEVER

    def __str__(self) -> str:
        told = self.result if self.is_known else "unknown"
        return f"process {self.process}: {self.function} {self.argument} -> {told} (key {self.key})"


def pair(steps: Iterable[Step]) -> list[Operation]:
    """Return the operations of a history in the order of their calls.

    A process that calls again without having been answered has given up on its
    earlier operation: the outcome of that one is unknown. A completion without
    a call raises `ValueError`, because such a history was not recorded right.
    """
    pending: dict[int, tuple[int, Step]] = {}
    operations: list[Operation] = []

    def close(process: int, returned: int, result: Any) -> None:
        called, call = pending.pop(process)
        operations.append(
            Operation(
                process, call.function, call.value, result, called, returned, call.key, call.client
            )
        )

    for place, step in enumerate(steps):
        if step.kind == "invoke":
            if step.process in pending:
                close(step.process, NEVER, None)
            pending[step.process] = place, step
            continue
        if step.process not in pending:
            raise ValueError(f"step {place}: process {step.process} completes what it never called")
        called = pending[step.process][1]
        if (called.function, called.key) != (step.function, step.key):
            raise ValueError(f"step {place}: process {step.process} completes another operation")
        if step.kind == "ok":
            close(step.process, place, step.value)
        elif step.kind == "info":
            close(step.process, NEVER, None)
        else:
            del pending[step.process]
    for process in sorted(pending):
        close(process, NEVER, None)
    return sorted(operations, key=lambda operation: operation.called)


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Split into parts that can be judged alone: a history is linearizable if every key is."""
    parts: dict[str, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(operation.key, []).append(operation)
    return parts
