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
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from unimeter.sim.events import MARK
from unimeter.sim.failures import CheckFailed
from unimeter.sim.history import ANSWER, KILLED, REFUSED, Call, History, Stream
from unimeter.types import AlertRecord, Outcome
from unimeter.wire.messages import (
    AlertRow,
    ErrorCode,
    ErrorReply,
    IngestReply,
    MetricDelete,
    MetricList,
    MetricListReply,
    MetricPut,
    Read,
    Request,
    Response,
)

SECOND: Final = 10**9
SETTLE_SECONDS: Final = 30  # after the heal: elections, and suspicions of nodes that were away
CALL_SECONDS_MAX: Final = 60  # in a healed world; a call that was open then has as long
LATE_SECONDS: Final = 5  # past its own deadline: then a call hangs
DAMAGE: Final = "RottenEntryError"  # a read met damage, said so, and has it repaired
INGEST: Final = "ingest"


class Placed(Protocol):
    """A request in the log (`session_model.Answered`)."""

    @property
    def index(self) -> int:
        """Of the entry."""


class Told(Protocol):
    """What an entry led to (`committed.Expected`)."""

    @property
    def error_code(self) -> int:
        """0, or why a change of a metric was refused."""


class Log(Protocol):
    """The part of the auditor that is asked here."""

    @property
    def position(self) -> int:
        """Of the last committed entry."""

    def sent(self, session_hi: int, session_lo: int, sequence: int) -> Sequence[Placed]:
        """Every time that this request stands in the log."""

    def reply_difference(
        self, session_hi: int, session_lo: int, sequence: int, reply: Response
    ) -> str:
        """What is wrong with the reply to a batch; "" if nothing."""

    def matches(self, request: Request, response: Response, position: int) -> str:
        """What is wrong with an answer; "" if nothing."""

    def answer(self, request: Request, position: int) -> Response:
        """The right answer to a read."""

    def expected(self, index: int) -> Told:
        """What an entry led to."""

    def counted_marks(self) -> Counter[str]:
        """How often each mark was counted."""

    def alert_rows(self) -> Sequence[AlertRow]:
        """Every alert so far, by position."""


class ClientCheck:
    """One promise. Its name is the failure's name."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def fail(self, sentence: str) -> None:
        """The promise is broken."""
        raise CheckFailed(type(self).__name__, sentence)

    def on_begin(self, call: Call) -> None:
        """A call begins."""

    def on_end(self, call: Call) -> None:
        """A call has ended."""

    def on_alert(self, stream: Stream, record: AlertRecord) -> None:
        """A subscription hands out an alert."""

    def at_end(self, history: History) -> None:
        """The run is over and everything committed is known."""


class AcknowledgedIsCounted(ClientCheck):
    """P1: an acknowledged batch is in the committed log, with the outcomes it was told.

    Looks at the reply and again at the end, there also by the events' marks. Does not check
    on how many disks the entry is (the replica checks do), nor outcomes of version 1, whose
    reply has only counts.
    """

    def on_end(self, call: Call) -> None:
        if call.what != INGEST or call.version == 1 or not call.is_answered:
            return
        if call.position > self.log.position:
            self.fail(
                f"{call} was answered at position {call.position}; "
                f"no node has applied more than {self.log.position}"
            )
        self._look(call)

    def _look(self, call: Call) -> None:
        assert call.response is not None
        session = call.session_hi, call.session_lo, call.sequence
        wrong = self.log.reply_difference(*session, call.response)
        if wrong:
            self.fail(f"{call}: {wrong}")
        places = [one.index for one in self.log.sent(*session)]
        if call.outcome == ANSWER and call.position not in places:
            self.fail(f"{call} was answered at {call.position}; it stands in the log at {places}")

    def at_end(self, history: History) -> None:
        marks = self.log.counted_marks()
        for call in history.ended:
            if call.what != INGEST or call.outcome != ANSWER:
                continue
            if call.version == 1:
                self._old(call, marks)
                continue
            self._look(call)
            for mark, outcome in outcomes_of(call):
                if outcome.counted and not marks[mark]:
                    self.fail(f"{call}: event {mark} was answered {outcome.name}, not counted")

    def _old(self, call: Call, marks: Counter[str]) -> None:
        reply = call.response
        assert isinstance(reply, IngestReply)
        counted = sum(marks[event.properties[MARK]] for event in call.events)
        if counted < reply.stored + reply.duplicates:
            self.fail(f"{call}: {reply.stored} stored and {reply.duplicates} known before, "
                      f"{counted} of its events are counted")  # fmt: skip


class CountedOnce(ClientCheck):
    """P2: no event is counted twice, none that nobody sent, none that was denied.

    Denied: every call that carried it ended with a refusal of it, or with an error that says
    that nothing was stored. Does not check an event whose outcome nobody knows, beyond once.
    """

    def at_end(self, history: History) -> None:
        marks = self.log.counted_marks()
        possible: dict[str, bool] = {}  # mark -> whether it may be counted
        for call in history.calls:
            if call.what == INGEST:
                for mark, may_count in _chances(call):
                    possible[mark] = possible.get(mark, False) or may_count
        for mark, count in marks.items():
            if count > 1:
                self.fail(f"event {mark} is counted {count} times")
            if mark not in possible:
                self.fail(f"event {mark} is counted, and nobody sent it")
            if not possible[mark]:
                self.fail(f"event {mark} is counted, and every sender was told that it is not")


def _chances(call: Call) -> Iterator[tuple[str, bool]]:
    """Each event of a batch, and whether it may be counted after this call's end."""
    known = dict(outcomes_of(call)) if call.outcome == ANSWER and call.version == 2 else {}
    for event in call.events:
        mark = event.properties[MARK]
        may_count = not call.says_nothing_done
        if mark in known:
            may_count = known[mark].counted
        yield mark, may_count


def outcomes_of(call: Call) -> list[tuple[str, Outcome]]:
    """The marks of an answered batch with their outcomes, as far as the reply tells them.

    A mark that occurs twice has its best outcome.
    """
    reply = call.response
    assert isinstance(reply, IngestReply)
    outcomes = [Outcome(number) for number, length in reply.runs for _ in range(length)]
    best: dict[str, Outcome] = {}
    for event, outcome in zip(call.events, outcomes, strict=False):
        mark = event.properties[MARK]
        best[mark] = min(outcome, best.get(mark, outcome))
    return list(best.items())


class AfterWhatWasTold(ClientCheck):
    """A batch or a change of a metric stands in the log behind all that was told before it.

    So the log's order is one that clients can have seen happen. Does not check calls that
    overlap, nor refusals that a leader gave without asking the log.
    """

    def on_end(self, call: Call) -> None:
        is_change = call.what == INGEST or isinstance(call.request, MetricPut | MetricDelete)
        if not is_change or not call.tells_position or isinstance(call.response, ErrorReply):
            return
        if call.position <= call.told:
            self.fail(
                f"{call} was done at position {call.position}; "
                f"position {call.told} had been told before it began"
            )


class ReadYourWrites(ClientCheck):
    """P3: a read's position is not below any write that its process was told is done.

    Does not check what the answer says (`AnswersEqualModel` does), nor other processes.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._written: dict[tuple[str, int], int] = {}
        self._floors: dict[int, int] = {}  # call number -> the position it must reach

    def on_begin(self, call: Call) -> None:
        if isinstance(call.request, Read):
            self._floors[call.number] = self._written.get((call.client, call.process), 0)

    def on_end(self, call: Call) -> None:
        if isinstance(call.request, Read):
            floor = self._floors.pop(call.number)
            if tells(call) and call.position < floor:
                self.fail(f"{call} was answered at {call.position}; it had written at {floor}")
        elif call.tells_position:
            key = call.client, call.process
            self._written[key] = max(self._written.get(key, 0), call.position)


class MonotonicReads(ClientCheck):
    """P3: a read's position is not below any answer that its process had before it began.

    Does not compare calls that overlap, nor other processes.
    """

    def on_end(self, call: Call) -> None:
        if isinstance(call.request, Read) and tells(call) and call.position < call.seen:
            self.fail(f"{call} was answered at {call.position}; it had seen {call.seen}")


class LinearizableReads(ClientCheck):
    """P4: a linearizable read's position is not below any answer that anybody had before.

    Does not check reads that did not ask for it.
    """

    def on_end(self, call: Call) -> None:
        if call.is_linearizable and tells(call) and call.position < call.told:
            self.fail(
                f"{call} was answered at {call.position}; somebody had been told {call.told} before"
            )


class AnswersEqualModel(ClientCheck):
    """P5: what a read was answered is what the model answers at the position it names.

    Refusals too. Does not check version 1, nor answers that promise nothing; the freedom
    that nodes have is `answer_checks`'.
    """

    def on_end(self, call: Call) -> None:
        if not isinstance(call.request, Read) or not tells(call):
            return
        if call.position > self.log.position:
            self.fail(f"{call} was answered at {call.position}; applied is {self.log.position}")
        assert call.response is not None
        wrong = self.log.matches(call.request, call.response, call.position)
        if wrong:
            self.fail(f"{call} at {call.position}, {call.request!r}: {wrong}")


class ChangesEqualLog(ClientCheck):
    """A change of a metric that was answered "done" was accepted by the log, at that position.

    And one that was refused was refused there, or could not have been accepted. Does not
    check calls whose outcome is unknown.
    """

    def on_end(self, call: Call) -> None:
        request = call.request
        if not isinstance(request, MetricPut | MetricDelete) or not call.is_answered:
            return
        code = request.code if isinstance(request, MetricDelete) else request.schema.code
        if isinstance(call.response, ErrorReply):
            self._refused(call, request, code, call.response)
        elif call.response is not None and call.outcome == ANSWER:
            if self.log.expected(call.position).error_code:
                self.fail(f"{call} was done at {call.position}; the log refused that entry")
            if (code in self._codes(call.position)) != isinstance(request, MetricPut):
                self.fail(f"{call} was done at {call.position}; the metrics do not show it")

    def _refused(self, call: Call, request: Request, code: str, refusal: ErrorReply) -> None:
        if refusal.code == ErrorCode.NOT_FOUND and isinstance(request, MetricDelete):
            if call.outcome == REFUSED and call.position < call.seen:
                self.fail(f"{call} found nothing at {call.position}; it had seen {call.seen}")
            if code in self._codes(call.position):
                at_entry = self.log.expected(call.position).error_code
                if at_entry != refusal.code:
                    self.fail(f"{call}: metric {code!r} is there at {call.position}")

    def _codes(self, position: int) -> list[str]:
        reply = self.log.answer(MetricList(), position)
        assert isinstance(reply, MetricListReply)
        return [schema.code for schema in reply.metrics]


class AlertsOnce(ClientCheck):
    """P7: a subscription hands out every alert it asked for, once, in order, as it was.

    From where it began; none is skipped. Does not check that one comes in time: a `drain`
    does, as a call that must end.
    """

    def on_alert(self, stream: Stream, record: AlertRecord) -> None:
        before = stream.position
        if record.position <= before:
            self.fail(f"{stream} got alert {record.position} after alert {before}")
        following = [row for row in self.log.alert_rows() if row.position > before]
        wanted = [row for row in following if wants(stream, row)]
        if not wanted:
            self.fail(f"{stream} got alert {record.position}; there is none after {before}")
        if wanted[0].position != record.position:
            self.fail(f"{stream} got alert {record.position}; next is {wanted[0].position}")
        right = wanted[0].record(record.node_addr)
        if right != record:
            self.fail(f"{stream} got {record!r}, expected {right!r}")


class CallsEnd(ClientCheck):
    """P10: in a healed world calls get answers, and no call ever outlives its deadline.

    A call may blame the world if it began, with its deadline, before things had settled. Does
    not check how fast an answer is.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.healed_ns = -1

    def on_end(self, call: Call) -> None:
        if call.outcome == KILLED:
            return
        if call.timeout_ns and call.ended_ns - call.began_ns > call.timeout_ns + (
            LATE_SECONDS * SECOND
        ):
            self.fail(f"{call} ended {(call.ended_ns - call.began_ns) / 1e9:.1f} s after its "
                      f"beginning; its deadline was {call.timeout_ns / 1e9:.1f} s")  # fmt: skip
        if self.healed_ns < 0 or call.is_answered or _met_damage(call):
            return
        waited = call.ended_ns - max(call.began_ns, self.healed_ns)
        is_settled = call.began_ns >= self.healed_ns + SETTLE_SECONDS * SECOND
        if is_settled or waited >= (CALL_SECONDS_MAX - 1) * SECOND:
            self.fail(f"{call} ended with {call.outcome} ({call.error}), "
                      f"{waited / 1e9:.1f} s in a healed world")  # fmt: skip

    def at_end(self, history: History) -> None:
        for call in history.open_calls():
            self.fail(f"{call} has not ended")


def _met_damage(call: Call) -> bool:
    return isinstance(call.request, Read) and DAMAGE in str(call.error)


def tells(call: Call) -> bool:
    """Whether a read was answered, or refused for what it is, at a position."""
    return call.version > 1 and call.is_answered and call.position > 0 and call.response is not None


def wants(stream: Stream, row: AlertRow) -> bool:
    """Whether a subscription asked for that alert."""
    return (not stream.accounts or row.account in stream.accounts) and (
        not stream.metrics or row.metric_code in stream.metrics
    )


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

    def __init__(self, history: History, log: Log) -> None:
        self.history = history
        self.calls_end = CallsEnd(log)
        self.checks = [self.calls_end if kind is CallsEnd else kind(log) for kind in CHECKS]
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
