"""The search: is there one order of the operations that explains every result?

Wing and Gong's search with Lowe's improvements. The calls and returns that are
not yet explained stand in a linked list in order of time. An operation may be
the next to take effect if its call stands before the first return in the list:

    call a   call b   return a   call c   return b   return c      next: a or b
    └── candidates ─┘ └ nothing called after this can be earlier than a

Taking one unlinks its two entries. Where no candidate fits, the last choice is
taken back. What was reached before (the set of operations done, as the bits of
an int, and the state) is not tried again.

Four rules make it short; each only drops choices that cannot matter:

- A read that fits the state is taken at once and never taken back alone: it
  changes nothing, and waiting could only spoil it.
- An unknown operation has no return, so it is never owed. The search is over
  when every known one is explained.
- An unknown operation that would leave the state as it is, is not taken.
- Of unknown operations that are the same, the one called first is taken first.

Rejected: trying every order of the operations. It is what the tests compare
this with, on histories of six operations.

References: Wing, Gong, "Testing and verifying concurrent objects" (1993); Lowe,
"Testing for linearizability" (2017); Horn, Kroening, "Faster linearizability
checking via P-compositionality" (2015), for judging every key alone.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import Any, Final

from tests.conformance.linearizability.models import Model
from tests.conformance.linearizability.operations import NEVER, Operation
from tests.conformance.linearizability.verdict import Judgement, Verdict

STEPS_BETWEEN_CLOCK_READINGS: Final = 512
END: Final = 0  # the entry before the first and after the last


def search(model: Model, operations: Sequence[Operation], give_up: float) -> Judgement:
    """Judge the operations of one key; `give_up` is a moment of the monotonic clock."""
    owed = [op for op in operations if op.is_known or not model.is_read(op)]
    run = _Run(model, owed)
    verdict = run.run(give_up)
    return Judgement(verdict, run.reason() if verdict == Verdict.WRONG else "", len(run.reached))


class _Run:
    """One search: the list, the choices made, and where it has been."""

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self.model = model
        self.operations = operations
        self.is_read = [model.is_read(op) for op in operations]
        self.twin = twins(operations)
        self.reached: set[tuple[int, Hashable]] = set()
        self.deepest = 0  # bits of the largest set of operations that was ever explained
        self._link()

    def _link(self) -> None:
        """Lay out the list: entry 0 is its end, 1 to n are calls, n+1 to 2n returns."""
        count = len(self.operations)
        places = [(op.called, entry) for entry, op in enumerate(self.operations, 1)]
        places += [
            (op.returned, count + entry)
            for entry, op in enumerate(self.operations, 1)
            if op.returned != NEVER
        ]
        self.count = count
        self.after = [END] * (2 * count + 1)
        self.before = [END] * (2 * count + 1)
        last = END
        for _, entry in sorted(places):
            self.after[last], self.before[entry] = entry, last
            last = entry
        self.after[last], self.before[END] = END, last

    def run(self, give_up: float) -> Verdict:
        """Take choices forwards and back until one side is exhausted."""
        owed = sum(op.is_known for op in self.operations)
        state: Any = self.model.first
        done = 0
        choices: list[tuple[int, Any]] = []  # entries taken, with the state before
        entry = self.after[END]
        steps = 0
        while owed:
            steps += 1
            if steps % STEPS_BETWEEN_CLOCK_READINGS == 0 and time.monotonic() > give_up:
                return Verdict.UNKNOWN
            read = self._maybe_read(state) if entry == self.after[END] else END
            entry, new = (read, state) if read else self._maybe_choice(entry, state, done)
            if entry:
                reached = (done | 1 << entry, new)
                if reached not in self.reached:
                    self.reached.add(reached)
                    choices.append((entry, state))
                    self._unlink(entry)
                    done, state = reached
                    owed -= self.operations[entry - 1].is_known
                    self._remember(done)
                    entry = self.after[END]
                    continue
                if not read:
                    entry = self.after[entry]
                    continue
            # Nothing fits here: take back choices up to one that had an alternative.
            is_forced = True
            while is_forced:
                if not choices:
                    return Verdict.WRONG
                entry, state = choices.pop()
                self._relink(entry)
                done ^= 1 << entry
                owed += self.operations[entry - 1].is_known
                is_forced = self.is_read[entry - 1]
            entry = self.after[entry]
        return Verdict.RIGHT

    def _maybe_read(self, state: Any) -> int:
        """Return the entry of a read that could be next and fits the state, or END."""
        entry = self.after[END]
        while END < entry <= self.count:
            if self.is_read[entry - 1] and self._is_allowed(state, entry):
                return entry
            entry = self.after[entry]
        return END

    def _is_allowed(self, state: Any, entry: int) -> bool:
        return self.model.step(state, self.operations[entry - 1]) is not None

    def _maybe_choice(self, entry: int, state: Any, done: int) -> tuple[int, Any]:
        """Return the first entry from here on that could be next, and the state after it."""
        while END < entry <= self.count:
            operation, twin = self.operations[entry - 1], self.twin[entry - 1]
            if not self.is_read[entry - 1] and (not twin or done >> twin & 1):
                new = self.model.step(state, operation)
                if new is not None and (operation.is_known or new != state):
                    return entry, new
            entry = self.after[entry]
        return END, None

    def _unlink(self, entry: int) -> None:
        for one in (entry, entry + self.count):
            if one == entry or self.operations[entry - 1].is_known:
                self.after[self.before[one]] = self.after[one]
                self.before[self.after[one]] = self.before[one]

    def _relink(self, entry: int) -> None:
        for one in (entry + self.count, entry):
            if one == entry or self.operations[entry - 1].is_known:
                self.after[self.before[one]] = one
                self.before[self.after[one]] = one

    def _remember(self, done: int) -> None:
        if done.bit_count() > self.deepest.bit_count():
            self.deepest = done

    def reason(self) -> str:
        """Say which operation the longest explanation could not place."""
        left = [
            op
            for entry, op in enumerate(self.operations, 1)
            if op.is_known and not self.deepest >> entry & 1
        ]
        first = min(left, key=lambda op: op.returned)
        return f"explained {self.deepest.bit_count()} operations, then not: {first}"


def twins(operations: Sequence[Operation]) -> list[int]:
    """Return for each unknown operation the entry of the same one called before it, or 0."""
    last: dict[tuple[str, Any], int] = {}
    result = []
    for entry, operation in enumerate(operations, 1):
        what = operation.function, operation.argument
        result.append(0 if operation.is_known else last.get(what, 0))
        if not operation.is_known:
            last[what] = entry
    return result
