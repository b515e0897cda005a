"""What the system promises its clients, checked call by call: one class per promise.

Owns the meeting of the history (what clients did and were told) with the auditor (what the
committed log says). Each check hears of a call when it begins and ends and looks at the
whole once more at the end of a run; a broken promise raises CheckFailed at once, from
inside the call that shows it.

    AcknowledgedIsCounted    P1: what was acknowledged is in the log, as it was told
    CountedOnce              P2: no event twice, none that nobody sent, none that was denied
    AfterWhatWasTold         a change comes after all that anybody was told before it
    ReadYourWrites           P3: a process finds what it was told is stored
    MonotonicReads           P3: a process never sees less than before
    LinearizableReads        P4: a linearizable read finds what anybody was told
    AnswersEqualModel        P5: an answer is the model's at the position it names
    ChangesEqualLog          the answer to a change of a metric is what the log made of it
    AlertsOnce               P7: each alert once, in order, none left out
    CallsEnd                 P10: when the world is healed, calls get answers

Version 1 tells no positions, so its reads are only asked to end. Rejected: judging a history
by search for a legal order (tests/conformance does that for small ones): positions make every
promise a comparison of two numbers.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from unimeter.sim.client_check import ClientCheck, Log
from unimeter.sim.history import ANSWER, Call, History, Stream
from unimeter.sim.ingest_checks import (
    AcknowledgedIsCounted,
    AfterWhatWasTold,
    ChangesEqualLog,
    CountedOnce,
)
from unimeter.sim.read_checks import (
    AnswersEqualModel,
    LinearizableReads,
    MonotonicReads,
    ReadYourWrites,
)
from unimeter.sim.stream_checks import AlertsOnce, CallsEnd
from unimeter.types import AlertRecord, Outcome
from unimeter.wire.messages import IngestReply

CHECKS: Final[tuple[type[ClientCheck], ...]] = (
    AcknowledgedIsCounted,
    CountedOnce,
    AfterWhatWasTold,
    ReadYourWrites,
    MonotonicReads,
    LinearizableReads,
    AnswersEqualModel,
    ChangesEqualLog,
    AlertsOnce,
    CallsEnd,
)


class ClientChecks:
    """All of them, told of everything that clients do."""

    def __init__(self, history: History, log: Log, may_be_damaged: bool = True) -> None:
        """`may_be_damaged`: whether stored bytes may rot in this world."""
        self.history = history
        self.calls_end = CallsEnd(log)
        self.checks = [self.calls_end if kind is CallsEnd else kind(log) for kind in CHECKS]
        for check in self.checks:
            if isinstance(check, AnswersEqualModel):
                check.may_be_damaged = may_be_damaged
        self.counts: Counter[str] = Counter()
        history.on_begin.append(self.on_begin)
        history.on_end.append(self.on_end)
        history.on_alert.append(self.on_alert)

    def on_begin(self, call: Call) -> None:
        """A call begins."""
        for check in self.checks:
            check.on_begin(call)

    def on_end(self, call: Call) -> None:
        """A call has ended."""
        self._count(call)
        for check in self.checks:
            check.on_end(call)

    def on_alert(self, stream: Stream, record: AlertRecord) -> None:
        """A subscription hands out an alert."""
        self.counts["alerts handed out"] += 1
        for check in self.checks:
            check.on_alert(stream, record)

    def healed(self) -> None:
        """From now on nothing goes wrong any more."""
        self.calls_end.healed_ns = self.history.clock()

    def at_end(self) -> None:
        """Everything has ended, and the auditor knows all that is committed."""
        for check in self.checks:
            check.at_end(self.history)

    def _count(self, call: Call) -> None:
        self.counts[f"{call.what}: {call.outcome}"] += 1
        reply = call.response
        if isinstance(reply, IngestReply) and call.outcome == ANSWER:
            self.counts["remembered replies"] += reply.is_remembered
            for outcome, length in reply.runs:
                self.counts[f"events {Outcome(outcome).name}"] += length
