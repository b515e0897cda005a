"""The session checker: what a client may expect of a read that is not linearizable.

Such a read may miss what others did a moment ago. It may not miss what its own
session (the `client` of the history) knows of, and it may not show what never
was. For a read of a key by a session:

    at least    the session's own acknowledged adds that returned before the call
    at least    any total the session was shown before the call
                + its own acknowledged adds that were called after it was shown
    at most     every add of anybody that was called before the read returned

The first is read-your-writes, the second monotonic reads (both at once: a state
that holds what was shown and a later add of one's own has the sum of both).
The bounds are necessary for every history of adds that are not negative; that
each value in between was really the total at some moment is not checked here.
Failed adds count for neither bound, unknown ones for the upper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.conformance.linearizability.operations import NEVER, Operation, by_key


def check_sessions(operations: Sequence[Operation]) -> list[str]:
    """Return what was violated, in words; nothing if every session saw what it may."""
    assert all(op.argument >= 0 for op in operations if op.function == "add"), "adds only add"
    return [line for part in by_key(operations).values() for line in check_key(part)]


def check_key(operations: Sequence[Operation]) -> list[str]:
    """Judge every read of one key, in one pass over its calls and returns."""
    known = [op for op in operations if op.is_known]
    events = [(op.called, False, op) for op in operations]
    events += [(op.returned, True, op) for op in known]
    sessions = {op.client: Session() for op in operations}
    least: dict[int, Floor] = {}  # place of call of a pending read -> what it must show
    most = 0
    violations = []
    for place, is_return, op in sorted(events, key=lambda event: event[0]):
        session = sessions[op.client]
        if op.function == "add":
            most += 0 if is_return else op.argument
            if is_return:
                session.acknowledge(op)
            elif op.is_known:
                session.pending.append(op.called)
        elif not is_return:
            least[op.called] = session.floor()
        else:
            floor = least.pop(op.called)
            if op.result < floor.total:
                violations.append(f"{op} of session {op.client}: at least {floor}")
            if op.result > most:
                violations.append(f"{op} of session {op.client}: at most {most} was ever added")
            session.floors.append(Floor(place, op.result, 0))
    return violations


@dataclass(slots=True)
class Floor:
    """What a session was shown at a place, and its own adds called after it and acknowledged."""

    place: int
    shown: int
    added: int

    @property
    def total(self) -> int:
        """The least that a later read of the session may show."""
        return self.shown + self.added

    def __str__(self) -> str:
        return f"{self.total}, for it was shown {self.shown} and added {self.added} after that"


class Session:
    """What one session knows of one key."""

    def __init__(self) -> None:
        self.floors = [Floor(-1, 0, 0)]  # in order of place
        self.pending: list[int] = []  # places of call of its adds that will be acknowledged

    def acknowledge(self, add: Operation) -> None:
        """Count an add towards everything that was shown before it was called."""
        self.pending.remove(add.called)
        for floor in self.floors:
            if floor.place < add.called:
                floor.added += add.argument

    def floor(self) -> Floor:
        """Return the highest floor, and forget those that can no longer become it."""
        oldest = min(self.pending, default=NEVER)
        settled = [floor for floor in self.floors if floor.place < oldest]
        open_yet = [floor for floor in self.floors if floor.place >= oldest]
        if settled:
            # Every add to come counts for all of these alike, so the highest stays the highest.
            self.floors = [max(settled, key=lambda floor: floor.total), *open_yet]
        return replace(max(self.floors, key=lambda floor: floor.total))
