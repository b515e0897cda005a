"""The auditor against the real engine: agreement on everything, and planted lies found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.engine.dice import JAN, Dice
from tests.engine.twin import Batch, event, state
from tests.sim.audited import Audited, Questions, thrown

from unimeter.engine import entries
from unimeter.engine.machine import Machine
from unimeter.errors import NotFoundError
from unimeter.periods import DAY_NS, HOUR_NS
from unimeter.sim.auditor import Auditor
from unimeter.sim.failures import CheckFailed
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    MetricSchema,
    Outcome,
    PeriodType,
    Resolution,
)
from unimeter.wire import messages as m

SECOND = 10**9


def bare(response: m.Response) -> m.Response:
    """A refusal without its words."""
    return m.ErrorReply(response.code) if isinstance(response, m.ErrorReply) else response


# --- agreement --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_any_log_and_any_question_give_what_the_auditor_says(seed: int) -> None:
    audited, dice = thrown(seed)
    audited.auditor.check_machine("n1", audited.machine)
    questions = Questions(dice, ["m", "n"])
    position = audited.machine.applied
    for _ in range(30):
        for request, response in questions.pages(audited, questions.throw(audited)):
            right = audited.auditor.answer(request, position, audited.now)
            assert bare(response) == right
            assert audited.auditor.matches(request, response, position, audited.now, 1) == ""
            assert audited.auditor.matches(request, response, position) == ""


@pytest.mark.parametrize("seed", range(100, 115))
def test_an_answer_of_the_past_is_that_of_a_machine_stopped_there(seed: int) -> None:
    audited, dice = thrown(seed)
    questions = Questions(dice, ["m", "n"])
    whole, audited.machine = audited.machine, Machine()
    for index, kind, timestamp_ns, body in audited.log:
        audited.machine.apply(index, kind, timestamp_ns, body)
        audited.now = timestamp_ns
        audited.auditor.check_machine("late", audited.machine)
        for _ in range(5):
            for request, response in questions.pages(audited, questions.throw(audited)):
                assert bare(response) == audited.auditor.answer(request, index, audited.now)
    assert state(audited.machine) == state(whole)


def test_thrown_logs_reach_what_must_be_reached() -> None:
    reached: Counter[str] = Counter()
    for seed in range(200, 215):
        audited, _ = thrown(seed)
        auditor = audited.auditor
        for index in range(1, auditor.position + 1):
            expected = auditor.expected(index)
            reached["refused change"] += bool(expected.error_code)
            reached.update(Outcome(outcome).name for outcome in expected.outcomes)
            for answered in expected.requests:
                reached["resent"] += answered.repeats is not None
                reached["too old"] += answered.error_code == m.ErrorCode.SEQUENCE_TOO_OLD
        reached["alerts"] += len(auditor.model.alerts)
        reached["deleted"] += sum(not metric.is_live() for metric in auditor.model.metrics)
        reached.update(metric.schema.agg_type.name for metric in auditor.model.metrics)
        reached["recurring"] += sum(metric.schema.recurring for metric in auditor.model.metrics)
    names = "STORED DUPLICATE CONFLICT UNKNOWN_METRIC OPERATION_NOT_ALLOWED DIMENSION_NOT_ALLOWED"
    for name in [*names.split(), *AggType.__members__, "resent", "too old", "refused change"]:
        assert reached[name], name
    assert reached["alerts"] > 100 and reached["deleted"] and reached["recurring"]


def test_marks_are_counted_once_for_each_stored_event() -> None:
    audited = small()
    rows = event(at=JAN, id="a", mark="one"), event(at=JAN, id="b", mark="two")
    audited.ingest(Batch(rows), Batch(rows), Batch((event(code="none", mark="three"),)))
    assert audited.auditor.counted_marks() == {"one": 1, "two": 1}
    assert audited.auditor.counted_marks(at=2) == {}
    assert [one.offset for one in audited.auditor.counted()] == [1, 2]
    assert [audited.auditor.index_of_offset(offset) for offset in (0, 1, 5, 6)] == [0, 3, 3, 0]


# --- the catalog ------------------------------------------------------------------------


def changed(**fields: Any) -> MetricSchema:
    """The definition of `small`, with something else in it."""
    schema = MetricSchema(
        "m",
        AggType.SUM,
        period_type=PeriodType.CALENDAR,
        filters=[DimensionFilter("a"), DimensionFilter("b", ["x", "y"])],
        thresholds=[AlertThreshold("t", 10, True)],
    )
    return replace(schema, **fields)


def small() -> Audited:
    """One metric, nothing counted."""
    audited = Audited()
    assert audited.put(changed(), 1) == 0
    return audited


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 0),
        ({"field_name": "amount"}, 0),
        ({"filters": [DimensionFilter("b", ["z", "y", "x"]), DimensionFilter("a")]}, 0),
        ({"thresholds": [AlertThreshold("u", 5), AlertThreshold("t", 10, True)]}, 0),
        ({"agg_type": AggType.COUNT}, 6),
        ({"resolution": Resolution.HOUR}, 6),
        ({"zone": "Europe/Berlin"}, 6),
        ({"billing_cycle_day": 2}, 6),
        ({"period_type": PeriodType.FIXED}, 6),
        ({"period_type": PeriodType.FIXED, "period": timedelta(days=1)}, 6),
        ({"filters": [DimensionFilter("a")]}, 6),
        ({"filters": [DimensionFilter("a", ["x"]), DimensionFilter("b", ["x", "y"])]}, 6),
        ({"filters": [DimensionFilter("a"), DimensionFilter("b", ["x"])]}, 6),
        ({"filters": [DimensionFilter("a"), DimensionFilter("b")]}, 6),
        ({"thresholds": []}, 6),
        ({"thresholds": [AlertThreshold("t", 11, True)]}, 6),
        ({"thresholds": [AlertThreshold("t", 10)]}, 6),
    ],
)
def test_a_change_is_accepted_or_refused_as_by_the_engine(fields: Any, code: int) -> None:
    for mode in (0, 2):
        audited = small()
        assert audited.put(changed(**fields), mode) == code  # and check_applied agrees
        audited.auditor.check_machine("n1", audited.machine)
    audited = small()
    assert audited.put(changed(**fields), 1) == (6 if fields else 0)


# --- sessions ------------------------------------------------------------------------------


def test_a_reply_is_right_in_each_form_that_it_may_have() -> None:
    audited = small()
    rows = tuple(event(at=JAN, code=code) for code in ["m", "none"] * 6)
    send = Batch(rows, 2, 5, 1)
    audited.ingest(send)
    audited.ingest(send)
    runs = [(0, 1), (20, 1)] * 6
    new = m.IngestReply(6, 0, 12, 6, runs)
    again = m.IngestReply(6, 0, 12, 6, runs[:8], is_remembered=True, is_incomplete=True)
    difference = audited.auditor.reply_difference
    assert difference(5, 1, 1, new) == "" and difference(5, 1, 1, again) == ""
    assert difference(5, 1, 1, m.ErrorReply(m.ErrorCode.NOT_LEADER, "words")) == ""
    for wrong in (
        replace(new, stored=7),
        replace(new, last_offset=24),
        replace(new, runs=runs[:8]),
        replace(again, is_incomplete=False),
        m.IngestReply(0, 12, 24, 0, [(1, 12)]),
        m.ErrorReply(m.ErrorCode.SESSION_EXPIRED),
    ):
        assert difference(5, 1, 1, wrong) != ""
    assert difference(5, 1, 2, new) != ""
    first = audited.auditor.reply_of(5, 1, 1)
    assert first is not None and first.index == 3 and audited.auditor.answered_at(12) == [first]
    assert [one.repeats for one in audited.auditor.sent(5, 1, 1)] == [None, first]


def test_expired_and_too_old_requests_are_told_so_and_not_counted() -> None:
    audited = small()
    rows = (event(at=JAN),)
    audited.ingest(Batch(rows, 2, 5, 17))
    audited.ingest(Batch(rows, 2, 5, 1), Batch(rows, 2, 5, 17), Batch(rows, 2, 5, 1))
    codes = [answered.error_code for answered in audited.auditor.requests_at(4)]
    assert codes == [0, 0, m.ErrorCode.SEQUENCE_TOO_OLD]
    assert audited.auditor.requests_at(3)[0].error_code == m.ErrorCode.SESSION_EXPIRED
    assert len(audited.auditor.stored) == 2
    audited.auditor.check_machine("n1", audited.machine)


def test_sessions_make_room_when_unused_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimeter.engine.sessions.SESSIONS_MAX", 2)
    audited = Audited()
    audited.auditor = Auditor(sessions_max=2)
    audited.auditor.committed(*audited.log[0][:1], 1, *audited.log[0][1:])
    rows = (event(at=JAN),)
    for session in (5, 6):
        audited.ingest(Batch(rows, 2, session, 1))
    audited.ingest(Batch(rows, 2, 5, 2), at=JAN + 899 * SECOND)
    audited.ingest(Batch(rows, 2, 7, 1), at=JAN + 899 * SECOND)
    audited.ingest(Batch(rows, 2, 7, 1), at=JAN + 900 * SECOND)  # 6 goes, not 5
    audited.ingest(Batch(rows, 2, 5, 2), Batch(rows, 2, 6, 2), Batch(rows, 2, 6, 3))
    codes = [one.error_code for i in range(2, 8) for one in audited.auditor.requests_at(i)]
    assert codes == [0, 0, 0, m.ErrorCode.BACKPRESSURE, 0, 0, 10, 10]
    audited.auditor.check_machine("n1", audited.machine)


# --- planted lies ---------------------------------------------------------------------------


def crossed() -> Audited:
    """Two accounts with a crossing, a duplicate and a refusal in the last entry."""
    audited = small()
    rows = (
        event(7, value=9, at=JAN, a="x", b="y"),
        event(7, value=3, at=JAN + DAY_NS, a="z", id="i"),
        event(7, value=3, at=JAN + DAY_NS, a="z", id="i"),
        event("anna", value=4, at=JAN, b="q"),
    )
    audited.ingest(Batch(rows))
    return audited


def outcome(applied: Any) -> None:
    applied.outcomes[3] = 0


def counts(applied: Any) -> None:
    applied.stored += 1


def words(applied: Any) -> None:
    applied.results[0] += 1


def one_alert_less(applied: Any) -> None:
    applied.alerts_to -= 1


def a_reply(applied: Any) -> None:
    applied.repeated[0] = 8


def an_error(applied: Any) -> None:
    applied.error_code = 5


@pytest.mark.parametrize(
    "lie", [outcome, counts, words, one_alert_less, a_reply, an_error], ids=lambda lie: lie.__name__
)
def test_an_apply_with_another_result_is_found(lie: Callable[[Any], None]) -> None:
    audited = crossed()
    machine = Machine()
    for index, kind, timestamp_ns, body in audited.log:
        applied = machine.apply(index, kind, timestamp_ns, body)
        audited.auditor.check_applied("n2", applied, index)
    lie(applied)
    with pytest.raises(CheckFailed, match="n2 applied entry 3"):
        audited.auditor.check_applied("n2", applied, 3)


def other(audited: Audited, **fields: Any) -> Machine:
    """A machine that counted the same log with one event changed."""
    rows = [
        event(7, value=9, at=JAN, a="x", b="y"),
        event(7, value=3, at=JAN + DAY_NS, a="z", id="i"),
        event(7, value=3, at=JAN + DAY_NS, a="z", id="i"),
        event("anna", value=4, at=JAN, b="q"),
    ]
    rows[0] = replace(rows[0], **fields)
    audited.builder.now_ns = audited.now
    audited.builder.feed_payload(2, 1, Batch(tuple(rows)).payload(), 0)
    sealed = audited.builder.seal(audited.now, 1)
    assert sealed is not None
    machine = Machine()
    for index, kind, timestamp_ns, body in audited.log[:2]:
        machine.apply(index, kind, timestamp_ns, body)
    machine.apply(3, entries.EVENTS, audited.now, sealed.body)
    return machine


@pytest.mark.parametrize(
    "fields",
    [
        {"value": 8},
        {"value": -9},
        {"timestamp_ns": JAN + DAY_NS},
        {"timestamp_ns": JAN + 40 * DAY_NS},
        {"account": 8},
        {"properties": (("a", "y"), ("b", "y"))},
        {"properties": (("a", "x"), ("b", "x"))},
        {"metric_code": "none"},
    ],
)
def test_a_machine_that_counted_something_else_is_found(fields: Any) -> None:
    audited = crossed()
    audited.auditor.check_machine("n2", other(audited))
    audited.auditor.check_touched("n2", other(audited), 3)
    wrong = other(audited, **fields)
    with pytest.raises(CheckFailed, match="n2 at 3"):
        audited.auditor.check_machine("n2", wrong)
    with pytest.raises(CheckFailed, match="n2 at 3"):
        audited.auditor.check_touched("n2", wrong, 3)


def test_an_event_at_another_time_of_its_bucket_is_found_in_the_newest_timestamp() -> None:
    audited = crossed()
    with pytest.raises(CheckFailed, match="last_timestamp"):
        audited.auditor.check_account("n2", other(audited, timestamp_ns=JAN + 1), 7, "m")


def test_a_machine_that_forgot_a_session_or_an_alert_is_found() -> None:
    audited = crossed()
    audited.ingest(Batch((event(at=JAN),), 2, 5, 1))
    audited.auditor.check_machine("n1", audited.machine)
    for name in ("sessions", "catalog"):
        machine = Machine.restore(state(audited.machine))
        setattr(machine, name, getattr(Machine(), name))
        with pytest.raises(CheckFailed, match=f"its {name[:6]}|its metrics"):
            audited.auditor.check_machine("n1", machine)
    machine = Machine.restore(state(audited.machine))
    machine.counter.thresholds = Machine().counter.thresholds
    with pytest.raises(CheckFailed, match="alerts"):
        audited.auditor.check_machine("n1", machine)


@pytest.mark.parametrize(
    ("index", "kind", "later_ns", "offset", "sentence"),
    [
        (4, entries.EVENTS, 0, 1, "follows on 2"),
        (3, entries.EVENTS, -1, 1, "older than"),
        (3, entries.EVENTS, 1, 1, "its body of"),
        (3, entries.EVENTS, 0, 5, "begins with offset 5, not 1"),
        (3, 9, 0, 1, "unknown kind"),
        (3, entries.GENESIS, 0, 1, "is of kind 1"),
    ],
)
def test_a_log_that_does_not_follow_is_found(
    index: int, kind: int, later_ns: int, offset: int, sentence: str
) -> None:
    audited = crossed()
    _, _, timestamp_ns, body = audited.log[2]
    auditor = Auditor()
    for entry in audited.log[:2]:
        auditor.committed(entry[0], 1, *entry[1:])
    body = body[:40] + offset.to_bytes(8, "little") + body[48:]
    with pytest.raises(CheckFailed, match=sentence):
        auditor.committed(index, 1, kind, timestamp_ns + later_ns, body)


# --- wrong answers ----------------------------------------------------------------------------


def test_wrong_answers_are_found_and_freedom_is_left() -> None:
    audited = crossed()
    matches, position = audited.auditor.matches, audited.machine.applied
    usage = m.UsageQuery(7, "m", JAN, JAN + 2 * DAY_NS)
    cut = m.UsageQuery(7, "m", JAN + HOUR_NS, JAN + 2 * DAY_NS)
    reply = audited.ask(usage)
    assert isinstance(reply, m.UsageReply) and matches(usage, reply, position) == ""
    reply.value.sum += 1
    assert matches(usage, reply, position) != ""
    assert matches(usage, m.UsageReply(reply.value, JAN, JAN), position) != ""
    gone = m.ErrorReply(m.ErrorCode.RANGE_UNAVAILABLE)
    assert matches(cut, gone, position) == "" and matches(usage, gone, position) != ""
    for code in (m.ErrorCode.INTERNAL, m.ErrorCode.NOT_FOUND, m.ErrorCode.INVALID_INPUT):
        assert matches(cut, m.ErrorReply(code), position) != ""
    assert matches(cut, m.ErrorReply(m.ErrorCode.BACKPRESSURE), position) == ""
    early = audited.auditor.answer(usage, 2)
    assert matches(usage, early, 2) == "" and matches(usage, early, 3) != ""
    assert matches(usage, m.UsageReply(reply.value), 1) != ""  # the metric is not there yet


def test_the_current_period_is_any_unless_the_clock_is_known() -> None:
    audited = crossed()
    realtime = m.UsageRealtime(7, "m")
    later = audited.auditor.answer(realtime, 3, JAN + 40 * DAY_NS)
    assert audited.auditor.matches(realtime, later, 3) == ""
    assert audited.auditor.matches(realtime, later, 3, JAN) != ""


def test_pages_of_accounts_may_be_short_but_leave_nobody_out() -> None:
    audited = small()
    audited.ingest(Batch(tuple(event(account, at=JAN) for account in (1, 2, 3, 4))))
    request = m.Accounts("m", JAN, JAN + DAY_NS)
    whole = audited.ask(request)
    assert isinstance(whole, m.AccountsReply)
    assert [line.account_id for line in whole.accounts] == [4, 3, 2, 1]
    matches = audited.auditor.matches
    cursor = (2).to_bytes(8, "little")
    assert matches(request, m.AccountsReply(whole.accounts[:2], cursor), 3) == ""
    for wrong in (
        m.AccountsReply(whole.accounts[:2], b""),
        m.AccountsReply(whole.accounts[:1], cursor),
        m.AccountsReply(whole.accounts[1:], b""),
        m.AccountsReply(whole.accounts[::-1], b""),
        m.AccountsReply(whole.accounts, (9).to_bytes(8, "little")),
    ):
        assert matches(request, wrong, 3) != ""


def test_listed_events_may_lack_the_oldest_entries_and_no_others() -> None:
    audited = small()
    for number in range(3):
        audited.ingest(Batch((event(at=JAN + number), event(at=JAN + number))))
    request = m.EventsList(7, "m", JAN, JAN + DAY_NS)
    whole = audited.ask(request)
    assert isinstance(whole, m.EventsListReply) and len(whole.events) == 6
    matches, position = audited.auditor.matches, audited.machine.applied
    assert matches(request, m.EventsListReply(whole.events[2:]), position) == ""
    assert matches(request, m.EventsListReply(whole.events[2:]), position, stored_from=4) == ""
    assert matches(request, m.EventsListReply(whole.events[2:]), position, stored_from=1) != ""
    events = whole.events
    for wrong in (events[1:], events[:5], events[:2] + events[4:], [*events, events[0]]):
        assert matches(request, m.EventsListReply(wrong), position) != ""


def test_a_metric_that_is_gone_was_there_before() -> None:
    audited = crossed()
    usage = m.UsageQuery(7, "m", JAN, JAN + DAY_NS)
    before = audited.auditor.answer(usage, 3)
    assert audited.delete("m") == 0
    assert audited.auditor.answer(usage, 4) == m.ErrorReply(m.ErrorCode.NOT_FOUND)
    assert audited.auditor.answer(usage, 3) == before
    with pytest.raises(NotFoundError):
        audited.auditor.check_account("n1", audited.machine, 7, "m")


def test_throwing_is_the_same_each_time() -> None:
    assert thrown(3)[0].log == thrown(3)[0].log
    assert isinstance(thrown(3)[1], Dice)
