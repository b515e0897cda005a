"""What is promised to who sends events and changes metrics.

Owns the checks of writes. An event is followed by its mark: who sent it, what each sender
was told, how often the log counted it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from unimeter.sim.client_check import INGEST, ClientCheck
from unimeter.sim.events import MARK
from unimeter.sim.history import ANSWER, REFUSED, Call, History
from unimeter.types import Outcome
from unimeter.wire.messages import (
    ErrorCode,
    ErrorReply,
    IngestReply,
    MetricDelete,
    MetricList,
    MetricListReply,
    MetricPut,
    Request,
)


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
        marks, mistaken = self.log.counted_marks(), self.log.mistaken_marks()
        for call in history.ended:
            if call.what != INGEST or call.outcome != ANSWER:
                continue
            if call.version == 1:
                self._old(call, marks)
                continue
            self._look(call)
            for mark, outcome in outcomes_of(call):
                if outcome.counted and not marks[mark] and mark not in mistaken:
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
