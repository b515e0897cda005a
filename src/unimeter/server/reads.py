"""Reads that have to wait: for a position to be applied here, or for the quorum's word.

Owns the two lines in which a read may stand, and the rule of each:

    session consistency   the client names the highest position it has seen; the
                          read runs once this node has applied that far
    linearizable          one question to the quorum for all reads that came since the
                          last one (ReadIndex); its answer is a position to wait for

A question that got no answer (a message was lost, the leader changed) is asked again.
A read that waits longer than READ_WAIT_SECONDS is told to come again: nothing of it was
done. Refuses to know what a read is: it is a pair of functions, one for "now", one for
"too late".

Rejected: a lease of the leader. It saves the round trip, and with it the promise hangs on
two clocks that go equally fast.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

READ_WAIT_SECONDS = 2.0  # about two elections
ASK_AGAIN_SECONDS = 0.15  # a round trip takes a millisecond; this one is lost

Run = Callable[[], Any]


class Waiting:
    """One read in line."""

    __slots__ = ("deadline", "late", "run")

    def __init__(self, run: Run, late: Run, deadline: float) -> None:
        self.run, self.late, self.deadline = run, late, deadline


class Reads:
    """The reads of one node that can't be answered yet."""

    def __init__(
        self, ask: Callable[[bytes], bool], clock: Callable[[], float], prefix: bytes
    ) -> None:
        """`ask` puts a question with this context to the quorum; False when nobody leads.

        `prefix` is 8 random bytes.
        """
        self._ask, self._clock = ask, clock
        self._applied = 0
        # Contexts must never repeat, also over restarts: a leader answers a repeated one
        # with the position that it noted for the first.
        self._prefix = prefix
        self._count = 0
        self._by_position: list[tuple[int, int, Waiting]] = []  # a heap
        self._to_ask: list[Waiting] = []
        self._asked: list[Waiting] = []
        self._context = b""
        self._asked_at = 0.0
        self.quorum_questions = 0
        self.timeouts = 0

    def __len__(self) -> int:
        return len(self._by_position) + len(self._to_ask) + len(self._asked)

    # --- standing in line --------------------------------------------------------

    def at_position(self, position: int, run: Run, late: Run) -> None:
        """Run once this node has applied `position`."""
        self._wait_for(position, Waiting(run, late, self._clock() + READ_WAIT_SECONDS))

    def after_quorum(self, run: Run, late: Run) -> None:
        """Run once a majority confirmed a position and this node has applied it."""
        self._to_ask.append(Waiting(run, late, self._clock() + READ_WAIT_SECONDS))

    def _wait_for(self, position: int, read: Waiting) -> None:
        if position <= self._applied:
            read.run()
            return
        self._count += 1
        heapq.heappush(self._by_position, (position, self._count, read))

    # --- what happens meanwhile ----------------------------------------------------

    def ask(self) -> None:
        """Put the question for all that came since the last one; call once a turn."""
        if not self._to_ask or self._asked:
            return
        self._count += 1
        context = self._prefix + self._count.to_bytes(8, "little")
        if self._ask(context):
            self._context, self._asked_at = context, self._clock()
            self._asked, self._to_ask = self._to_ask, []
            self.quorum_questions += 1

    def confirmed(self, context: bytes, index: int) -> None:
        """The quorum's answer; an answer to a question given up is ignored."""
        if context != self._context:
            return
        reads, self._asked, self._context = self._asked, [], b""
        for read in reads:
            self._wait_for(index, read)
        self.ask()

    def applied(self, index: int) -> None:
        """This node has applied up to `index`."""
        self._applied = index
        waiting = self._by_position
        while waiting and waiting[0][0] <= index:
            heapq.heappop(waiting)[2].run()

    def ask_again(self) -> None:
        """The leader changed: what was asked may never be answered."""
        if self._asked:
            self._to_ask = self._asked + self._to_ask
            self._asked, self._context = [], b""
        self.ask()

    def tick(self) -> None:
        """Ask again what is overdue; turn away who has waited too long."""
        now = self._clock()
        if self._asked and now - self._asked_at > ASK_AGAIN_SECONDS:
            self.ask_again()
        for read in self._take_late(now):  # who is told may stand in line again at once
            self.timeouts += 1
            read.late()
        self.ask()

    def _take_late(self, now: float) -> list[Waiting]:
        """Those that have waited too long; they stand in no line any more."""
        in_line = [read for _, _, read in self._by_position]
        late = [read for read in self._to_ask + self._asked + in_line if read.deadline <= now]
        if late:
            self._to_ask = [read for read in self._to_ask if read.deadline > now]
            self._asked = [read for read in self._asked if read.deadline > now]
            self._by_position = [item for item in self._by_position if item[2].deadline > now]
            heapq.heapify(self._by_position)
        return late

    def statistics(self) -> dict[str, int]:
        """How many wait, questions asked, reads turned away."""
        return {
            "reads_waiting": len(self),
            "quorum_questions": self.quorum_questions,
            "read_timeouts": self.timeouts,
        }
