"""Each check of the clients, with a history that keeps its promise and one that breaks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from unimeter.errors import (
    BackpressureError,
    DeadlineExceededError,
    InvalidInputError,
    NotFoundError,
    ServerError,
    UnimeterError,
)
from unimeter.sim.client_checks import ClientChecks
from unimeter.sim.failures import CheckFailed
from unimeter.sim.history import ANSWER, KILLED, REFUSED, Call, History, Stream
from unimeter.sim.stream_checks import CALL_SECONDS_MAX, SETTLE_SECONDS
from unimeter.types import AggType, AggValue, Event, MetricSchema, Outcome
from unimeter.wire.messages import (
    AlertRow,
    Done,
    ErrorCode,
    ErrorReply,
    IngestReply,
    MetricDelete,
    MetricListReply,
    MetricPut,
    UsageQuery,
    UsageReply,
)

SECOND = 10**9
READ = UsageQuery(7, "calls", 0, 1)


@dataclass
class FakeLog:
    """An auditor that believes what a test tells it."""

    position: int = 100
    places: list[int] = field(default_factory=lambda: list(range(1, 101)))
    wrong_reply: str = ""
    wrong_answer: str = ""
    marks: Counter[str] = field(default_factory=Counter)
    mistaken: set[str] = field(default_factory=set)
    alerts: list[AlertRow] = field(default_factory=list)
    metrics: list[str] = field(default_factory=lambda: ["calls"])
    refused_entries: dict[int, int] = field(default_factory=dict)

    def sent(self, high: int, low: int, sequence: int) -> Any:
        return [SimpleNamespace(index=index) for index in self.places]

    def reply_difference(self, high: int, low: int, sequence: int, reply: Any) -> str:
        return self.wrong_reply

    def matches(self, request: Any, response: Any, position: int) -> str:
        return self.wrong_answer

    def answer(self, request: Any, position: int) -> Any:
        return MetricListReply([MetricSchema(code, AggType.COUNT) for code in self.metrics])

    def expected(self, index: int) -> Any:
        return SimpleNamespace(error_code=self.refused_entries.get(index, 0))

    def mistaken_marks(self) -> set[str]:
        return self.mistaken

    def counted_marks(self) -> Counter[str]:
        return self.marks

    def alert_rows(self) -> list[AlertRow]:
        return self.alerts


class Scene:
    """A history that a test writes by hand, with all checks on it."""

    def __init__(self, may_be_damaged: bool = True) -> None:
        self.now = 0
        self.log = FakeLog()
        self.history = History(lambda: self.now)
        self.checks = ClientChecks(self.history, self.log, may_be_damaged)
        for client in ("c1", "c2"):
            self.history.new_process(client)

    def begin(self, what: str = "UsageQuery", client: str = "c1", **given: Any) -> Call:
        return self.history.begin(client, 1, what, **given)

    def read(self, position: int, client: str = "c1", linearizable: bool = False) -> None:
        request = UsageQuery(7, "calls", 0, 1, linearizable=linearizable)
        call = self.begin(request=request, client=client)
        self.history.answer(call, UsageReply(AggValue()), position)

    def batch(self, *marks: str, client: str = "c1", version: int = 2) -> Call:
        events = [Event(7, "calls", properties={"mark": mark}) for mark in marks]
        return self.begin("ingest", client, events=events, version=version)

    def stored(self, call: Call, position: int, *outcomes: Outcome) -> None:
        """Answer a batch; every event STORED if no outcomes are given."""
        found = list(outcomes) or [Outcome.STORED] * len(call.events)
        counts = Counter(found)
        stored, known = counts[Outcome.STORED], counts[Outcome.DUPLICATE]
        reply = IngestReply(stored, known, 1, len(found) - stored - known, [(o, 1) for o in found])
        self.history.answer(call, reply, position)

    def put(self, position: int, client: str = "c1") -> None:
        call = self.begin(
            "MetricPut", client, request=MetricPut(MetricSchema("calls", AggType.SUM))
        )
        self.history.answer(call, Done(), position)


def finds(name: str, body: Callable[[Scene], None], *words: str) -> None:
    """The body breaks that check's promise, and nobody else's first."""
    with pytest.raises(CheckFailed) as caught:
        body(Scene())
    assert caught.value.checker == name
    for word in words:
        assert word in caught.value.sentence


# --- P1 and P2 ---------------------------------------------------------------------------


def test_a_reply_that_the_log_does_not_bear_out_is_found_at_once() -> None:
    def body(scene: Scene) -> None:
        scene.log.wrong_reply = "one event less"
        scene.stored(scene.batch("a"), 5)

    finds("AcknowledgedIsCounted", body, "one event less")


def test_a_reply_from_a_position_that_nobody_has_applied_is_found() -> None:
    finds("AcknowledgedIsCounted", lambda scene: scene.stored(scene.batch("a"), 101), "101")


def test_a_reply_that_names_an_entry_without_the_batch_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.log.places = [4, 6]
        scene.stored(scene.batch("a"), 5)

    finds("AcknowledgedIsCounted", body, "[4, 6]")


def test_an_acknowledged_event_that_is_lost_later_is_found_at_the_end() -> None:
    def body(scene: Scene) -> None:
        scene.stored(scene.batch("a", "b"), 5)
        scene.log.marks.update(["a"])
        scene.checks.at_end()

    finds("AcknowledgedIsCounted", body, "event b", "STORED")


def test_an_event_that_was_taken_for_another_of_its_id_is_nobodys_loss() -> None:
    scene = Scene()
    scene.stored(scene.batch("a"), 5, Outcome.DUPLICATE)
    scene.log.mistaken.add("a")
    scene.checks.at_end()


def test_a_duplicate_whose_first_send_is_not_counted_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.stored(scene.batch("a"), 5, Outcome.DUPLICATE)
        scene.checks.at_end()

    finds("AcknowledgedIsCounted", body, "event a", "DUPLICATE")


def test_counts_of_version_1_that_the_log_does_not_have_are_found() -> None:
    def body(scene: Scene) -> None:
        call = scene.batch("a", "b", version=1)
        scene.history.answer(call, IngestReply(2, 0, 9), 0)
        scene.log.marks.update(["a"])
        scene.checks.at_end()

    finds("AcknowledgedIsCounted", body, "2 stored")


def test_an_event_counted_twice_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.stored(scene.batch("a"), 5)
        scene.log.marks.update(["a", "a"])
        scene.checks.at_end()

    finds("CountedOnce", body, "event a", "2 times")


def test_an_event_that_nobody_sent_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.log.marks.update(["ghost"])
        scene.checks.at_end()

    finds("CountedOnce", body, "ghost", "nobody sent")


def test_an_event_counted_after_nothing_was_stored_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.history.fail(scene.batch("a"), BackpressureError())
        scene.log.marks.update(["a"])
        scene.checks.at_end()

    finds("CountedOnce", body, "told that it is not")


def test_an_event_counted_though_it_was_refused_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.stored(scene.batch("a", "b"), 5, Outcome.STORED, Outcome.UNKNOWN_METRIC)
        scene.log.marks.update(["a", "b"])
        scene.checks.at_end()

    finds("CountedOnce", body, "event b")


def test_what_is_unknown_or_sent_again_may_be_counted_or_not() -> None:
    scene = Scene()
    scene.history.fail(scene.batch("unknown"), DeadlineExceededError())
    scene.history.fail(scene.batch("lost"), DeadlineExceededError())
    scene.history.fail(scene.batch("again"), BackpressureError())
    scene.stored(scene.batch("again"), 5)
    scene.batch("killed")
    scene.history.killed("c1")
    scene.log.marks.update(["unknown", "again", "killed"])
    scene.checks.at_end()
    assert scene.checks.counts["ingest: killed"] == 1


# --- the order of what happened ------------------------------------------------------------


def test_a_batch_before_what_had_been_told_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.read(7, client="c2")
        scene.stored(scene.batch("a"), 7)

    finds("AfterWhatWasTold", body, "position 7 had been told")


def test_a_change_of_a_metric_before_what_had_been_told_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.put(8)
        scene.put(6, client="c2")

    finds("AfterWhatWasTold", body, "position 8 had been told")


def test_a_batch_that_overlaps_another_may_come_before_it() -> None:
    scene = Scene()
    slow = scene.batch("a")
    scene.stored(scene.batch("b", client="c2"), 9)
    scene.stored(slow, 8)
    scene.log.marks.update(["a", "b"])
    scene.checks.at_end()


def test_a_read_that_misses_its_own_write_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.stored(scene.batch("a"), 9)
        scene.read(8)

    finds("ReadYourWrites", body, "answered at 8", "written at 9")


def test_a_read_that_goes_back_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.read(9)
        scene.read(8)

    finds("MonotonicReads", body, "answered at 8", "seen 9")


def test_a_refused_read_that_goes_back_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.read(9)
        call = scene.begin(request=READ)
        call.response, call.position = ErrorReply(ErrorCode.NOT_FOUND), 8
        scene.history.fail(call, NotFoundError())

    finds("MonotonicReads", body, "answered at 8")


def test_another_process_may_see_less_and_a_read_begun_before_may_too() -> None:
    scene = Scene()
    early = scene.begin(request=READ)
    scene.read(9)
    scene.read(5, client="c2")
    scene.history.answer(early, UsageReply(AggValue()), 4)
    scene.history.killed("c1")
    assert scene.history.new_process("c1") == 2
    call = scene.history.begin("c1", 2, "UsageQuery", request=READ)
    scene.history.answer(call, UsageReply(AggValue()), 3)
    assert [call.outcome for call in scene.history.ended] == [ANSWER] * 4


def test_a_linearizable_read_that_misses_what_another_was_told_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.stored(scene.batch("a", client="c2"), 9)
        scene.read(8, linearizable=True)

    finds("LinearizableReads", body, "told 9")


def test_a_linearizable_read_at_what_was_told_is_right() -> None:
    scene = Scene()
    scene.stored(scene.batch("a", client="c2"), 9)
    scene.read(9, linearizable=True)
    assert scene.history.told == 9


# --- P5 and changes ------------------------------------------------------------------------


def test_an_answer_that_the_model_would_not_give_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.log.wrong_answer = "expected 3"
        scene.read(5)

    finds("AnswersEqualModel", body, "expected 3", "at 5")


def test_an_answer_from_the_future_is_found() -> None:
    finds("AnswersEqualModel", lambda scene: scene.read(101), "applied is 100")


def failed_with(scene: Scene, text: str) -> None:
    call = scene.begin(request=READ)
    call.response, call.position = ErrorReply(ErrorCode.INTERNAL, text), 5
    scene.history.fail(call, ServerError(text))


def test_a_word_of_damage_is_an_answer_only_where_bytes_may_rot() -> None:
    failed_with(Scene(), "the node failed: RottenEntryError")
    with pytest.raises(CheckFailed, match="AnswersEqualModel"):
        failed_with(Scene(may_be_damaged=False), "the node failed: RottenEntryError")
    with pytest.raises(CheckFailed, match="CallsEnd"):
        failed_with(Scene(), "the node failed: KeyError")


def test_a_change_said_to_be_done_that_the_log_refused_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.log.refused_entries[5] = 6
        scene.put(5)

    finds("ChangesEqualLog", body, "refused that entry")


def test_a_metric_said_to_be_made_that_is_not_there_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.log.metrics = []
        scene.put(5)

    finds("ChangesEqualLog", body, "do not show it")


def test_a_metric_said_not_to_exist_that_does_is_found() -> None:
    def body(scene: Scene) -> None:
        call = scene.begin("MetricDelete", request=MetricDelete("calls"))
        call.response, call.position = ErrorReply(ErrorCode.NOT_FOUND), 5
        scene.history.fail(call, NotFoundError())

    finds("ChangesEqualLog", body, "'calls' is there")


def test_a_delete_that_an_earlier_attempt_did_shows_no_position() -> None:
    scene = Scene()
    scene.log.metrics = []
    call = scene.begin("MetricDelete", request=MetricDelete("calls"))
    scene.history.answer(call, ErrorReply(ErrorCode.NOT_FOUND), 50)
    scene.read(5)
    assert scene.history.told == 5


# --- P7 -----------------------------------------------------------------------------------


def row(position: int, account: int = 7, code: str = "calls") -> AlertRow:
    return AlertRow(position, account, code, "t", 3, 10**18, position)


def listening(scene: Scene, *positions: int, after: int = 0, **about: Any) -> Stream:
    """A subscription that is handed these alerts."""
    stream = Stream("c1", 1, about.get("accounts", ()), about.get("metrics", ()), after, [])
    scene.history.subscribed(stream)
    scene.log.alerts = [row(n, 7 + n % 2, "calls" if n < 5 else "bytes") for n in range(1, 9)]
    for position in positions:
        scene.history.alert(stream, scene.log.alerts[position - 1].record("n1:7001"))
    return stream


def test_alerts_in_order_are_right_for_all_and_for_some() -> None:
    stream = listening(Scene(), 1, 2, 3, 4)
    assert stream.position == 4
    listening(Scene(), 2, 4, 6, 8, accounts=(7,))
    listening(Scene(), 5, 7, accounts=(8,), metrics=("bytes",))
    listening(Scene(), 6, 7, after=5)


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ((1, 2, 2), "alert 2 after alert 2"),
        ((1, 3), "next is 2"),
        ((2, 1), "next is 1"),
    ],
)
def test_an_alert_twice_or_skipped_or_out_of_order_is_found(
    positions: tuple[int, ...], words: str
) -> None:
    finds("AlertsOnce", lambda scene: listening(scene, *positions) and None, words)


def test_an_alert_that_was_not_asked_for_is_found() -> None:
    finds("AlertsOnce", lambda scene: listening(scene, 1, accounts=(7,)) and None, "next is 2")


def test_an_alert_that_nobody_else_knows_is_found() -> None:
    def body(scene: Scene) -> None:
        stream = listening(scene, 1)
        scene.log.alerts = scene.log.alerts[:1]
        scene.history.alert(stream, row(2).record())

    finds("AlertsOnce", body, "there is none after 1")


def test_an_alert_with_another_value_is_found() -> None:
    def body(scene: Scene) -> None:
        stream = listening(scene)
        record = scene.log.alerts[0].record()
        record.value_at_cross += 1
        scene.history.alert(stream, record)

    finds("AlertsOnce", body, "value_at_cross=4")


# --- P10 ----------------------------------------------------------------------------------


def fails_after(scene: Scene, began: float, ended: float, error: UnimeterError) -> None:
    """A call in a world that was healed at second 100."""
    scene.now = 100 * SECOND
    scene.checks.healed()
    scene.now = round(began * SECOND)
    call = scene.begin(request=READ)
    scene.now = round(ended * SECOND)
    scene.history.fail(call, error)


def test_a_call_that_outlives_its_deadline_is_found() -> None:
    def body(scene: Scene) -> None:
        call = scene.begin(request=READ, timeout=4.0)
        scene.now = 10 * SECOND
        scene.history.fail(call, DeadlineExceededError())

    finds("CallsEnd", body, "10.0 s", "4.0 s")


def test_a_call_that_fails_when_all_has_settled_is_found() -> None:
    late = 101 + SETTLE_SECONDS
    errors: list[UnimeterError] = [DeadlineExceededError(), BackpressureError()]
    for error in errors:
        finds("CallsEnd", partial(fails_after, began=late, ended=late + 1, error=error))


def test_a_call_in_a_hurry_may_lose_its_second_to_a_silent_node() -> None:
    scene = Scene()
    scene.now = 100 * SECOND
    scene.checks.healed()
    scene.now = (101 + SETTLE_SECONDS) * SECOND
    call = scene.begin(request=READ, timeout=1.0)
    scene.now += SECOND
    scene.history.fail(call, DeadlineExceededError())


def test_a_call_that_fails_after_a_minute_in_a_healed_world_is_found() -> None:
    def body(scene: Scene) -> None:
        fails_after(scene, 90, 100 + CALL_SECONDS_MAX, DeadlineExceededError())

    finds("CallsEnd", body, "60.0 s in a healed world")


def test_a_call_that_never_ends_is_found() -> None:
    def body(scene: Scene) -> None:
        scene.begin(request=READ)
        scene.checks.at_end()

    finds("CallsEnd", body, "call 1 (UsageQuery of c1, process 1) has not ended")


def test_a_call_may_fail_before_things_settle_and_may_always_be_refused() -> None:
    scene = Scene()
    fails_after(scene, 101, 111, DeadlineExceededError())
    refused = Scene()
    fails_after(refused, 500, 501, InvalidInputError("what the caller wrote"))
    assert [call.outcome for call in refused.history.ended] == [REFUSED]


def test_what_the_coroutines_of_a_dead_process_do_is_not_recorded() -> None:
    scene = Scene()
    call = scene.begin(request=READ)
    scene.history.killed("c1")
    scene.history.answer(call, UsageReply(AggValue()), 5)
    assert call.outcome == KILLED
    ghost = scene.begin(request=READ)
    scene.history.answer(ghost, UsageReply(AggValue()), 5)
    assert len(scene.history.calls) == 1
    assert scene.history.told == 0
