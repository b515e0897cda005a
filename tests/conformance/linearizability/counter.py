"""The counter's own checker: adds commute, so only sums matter.

The general search would try every order of the adds that are on their way, and
one unknown add is on its way for ever. Here the history is read once, in order
of time, with the set of all *configurations* it allows. A configuration says
which of the pending adds have taken effect. Its total follows:

    total = sum of adds that returned + sum of pending adds that took effect

An effect is put off until a return needs it (Lowe's just-in-time order):

- An add returns: it has taken effect in every configuration that stays.
- A read returns v: the total has been v since the read was called. If it is
  not yet, pending adds take effect that sum up to the difference.

Adds are not negative, so the total only rises. That gives three rules:

- A pending read has been satisfied if the total has reached its value; a total
  above the value of a read that was not satisfied is impossible. So a
  configuration need not say which reads are done, and no total may pass the
  lowest value that a later read returns.
- Adds take effect early only to satisfy a read, and reads are satisfied from
  the lowest value upwards.
- Of pending adds of one size, the one that returns first takes effect first;
  an unknown one never returns. So choices are counts by size.

The answer is exact. Its cost grows with the ways in which unknown adds can sum
up to what was read: keep sizes few and small in a workload (1 to 5, not any
number), and hundreds of unknown adds are no trouble. Beyond CONFIGURATIONS_MAX
the verdict is UNKNOWN. A history with negative adds goes to the general search.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.conformance.linearizability.models import Counter
from tests.conformance.linearizability.operations import NEVER, Operation, by_key
from tests.conformance.linearizability.search import search
from tests.conformance.linearizability.verdict import Judgement, Verdict, worst

CONFIGURATIONS_MAX: Final = 200_000  # at one moment; about 100 bytes each

Configuration = tuple[int, int]  # total; slots of pending adds that took effect, as bits


def check_counters(operations: Sequence[Operation], give_up: float) -> Judgement:
    """Judge every key of a history of adds and reads."""
    return worst([check_counter(part, give_up) for part in by_key(operations).values()])


def check_counter(operations: Sequence[Operation], give_up: float) -> Judgement:
    """Judge the adds and reads of one key, whose total starts at zero."""
    if any(op.function == "add" and op.argument < 0 for op in operations):
        return search(Counter(), operations, give_up)
    adds = [op for op in operations if op.function == "add" and op.argument > 0]
    reads = [op for op in operations if op.function == "read" and op.is_known]
    return _Sweep(adds, reads).run(give_up)


class _Sweep:
    """One pass over the calls and returns of a key."""

    def __init__(self, adds: Sequence[Operation], reads: Sequence[Operation]) -> None:
        events = [(op.called, False, op) for op in (*adds, *reads)]
        events += [(op.returned, True, op) for op in (*adds, *reads) if op.is_known]
        self.events = sorted(events, key=lambda event: event[0])
        self.later_reads = lowest_later_reads(self.events)
        self.configurations: set[Configuration] = {(0, 0)}
        self.slots: dict[int, int] = {}  # place of call of a pending add -> its bit's number
        self.free: list[int] = []
        self.pending: dict[int, list[Operation]] = {}  # size -> adds, first return first
        self.reads: list[Operation] = []  # pending
        self.states = 0

    def run(self, give_up: float) -> Judgement:
        """Follow the history until no configuration is left, or to its end."""
        for number, (_, is_return, operation) in enumerate(self.events):
            if time.monotonic() > give_up:
                return Judgement(Verdict.UNKNOWN, "out of time", self.states)
            before, later = self.configurations, self.later_reads[number]
            total_max = later.result if later else NEVER
            if not is_return:
                self._call(operation)
            elif operation.function == "add":
                self._return_add(operation, total_max)
            else:
                self._return_read(operation, total_max)
            self.states += len(self.configurations)
            if len(self.configurations) > CONFIGURATIONS_MAX:
                return Judgement(Verdict.UNKNOWN, "too many configurations", self.states)
            if not self.configurations:
                reason = explain(operation, before, later)
                return Judgement(Verdict.WRONG, reason, self.states)
        return Judgement(Verdict.RIGHT, "", self.states)

    # --- the four events -----------------------------------------------------

    def _call(self, operation: Operation) -> None:
        if operation.function == "read":
            self.reads.append(operation)
            self.configurations = {c for c in self.configurations if c[0] <= operation.result}
            return
        self.slots[operation.called] = self.free.pop() if self.free else len(self.slots)
        same = self.pending.setdefault(operation.argument, [])
        same.append(operation)
        same.sort(key=lambda add: (add.returned, add.called))

    def _return_add(self, add: Operation, total_max: int) -> None:
        slot = self.slots.pop(add.called)
        bit = 1 << slot
        kept: set[Configuration] = set()
        todo = list(self.configurations)
        seen = set(todo)
        while todo:
            total, effects = todo.pop()
            if effects & bit:
                kept.add((total, effects ^ bit))
                continue
            limit = min([total_max, *(r.result for r in self.reads if r.result > total)])
            if total + add.argument <= limit:
                kept.add((total + add.argument, effects))
            # Or a read that is pending saw a total without this add. Other adds of its
            # size need not be tried: this one returns first, so it would have gone first.
            for further in self._satisfy_next_read((total, effects), add.argument):
                if further not in seen:
                    seen.add(further)
                    todo.append(further)
        self.configurations = kept
        self.pending[add.argument].remove(add)
        self.free.append(slot)

    def _return_read(self, read: Operation, total_max: int) -> None:
        kept: set[Configuration] = set()
        todo = list(self.configurations)
        seen = set(todo)
        while todo:
            configuration = todo.pop()
            if configuration[0] >= read.result:
                kept.add(configuration)
                continue
            for further in self._satisfy_next_read(configuration, None):
                if further not in seen:
                    seen.add(further)
                    todo.append(further)
        self.configurations = {c for c in kept if c[0] <= total_max}
        self.reads.remove(read)

    # --- effects -------------------------------------------------------------

    def _satisfy_next_read(
        self, configuration: Configuration, size_left_out: int | None
    ) -> Iterator[Configuration]:
        """Yield what follows when pending adds bring the total to the lowest pending read."""
        total, effects = configuration
        target = min((r.result for r in self.reads if r.result > total), default=None)
        if target is None:
            return
        choices = []
        for size, adds in sorted(self.pending.items(), reverse=True):
            if size != size_left_out:
                bits = [1 << self.slots[add.called] for add in adds]
                choices.append((size, [bit for bit in bits if not effects & bit]))
        for chosen in sums(choices, target - total):
            yield target, effects | chosen


def sums(choices: Sequence[tuple[int, Sequence[int]]], wanted: int) -> Iterator[int]:
    """Yield the bits of every choice that adds up to what is wanted.

    A choice is how many of each size; of one size the first are taken.
    """
    if wanted == 0:
        yield 0
        return
    if sum(size * len(bits) for size, bits in choices) < wanted:
        return
    (size, bits), rest = choices[0], choices[1:]
    taken = 0
    for count in range(min(len(bits), wanted // size) + 1):
        taken |= bits[count - 1] if count else 0
        for others in sums(rest, wanted - count * size):
            yield taken | others


def lowest_later_reads(
    events: Sequence[tuple[int, bool, Operation]],
) -> list[Operation | None]:
    """Return for each event the read of the lowest value among those called after it."""
    lowest: Operation | None = None
    result = []
    for _, is_return, operation in reversed(events):
        result.append(lowest)
        if operation.function == "read" and not is_return:
            if lowest is None or operation.result < lowest.result:
                lowest = operation
    return result[::-1]


def explain(operation: Operation, before: set[Configuration], later: Operation | None) -> str:
    """Say what could not be placed, and what would have been possible."""
    totals = sorted(total for total, _ in before)
    reason = f"no order explains {operation}"
    if later is not None:
        reason += f" and later {later}"
    return f"{reason}; before it the total was {totals[0]} to {totals[-1]}"
