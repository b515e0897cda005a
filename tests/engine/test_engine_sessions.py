"""Resends within and across entries: answered again, never counted again."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from tests.engine.twin import Batch, Twin, event, state

from unimeter.engine.applied import Applied, reply_of
from unimeter.engine.entries import EVENTS
from unimeter.engine.machine import Machine
from unimeter.engine.query import plan_total
from unimeter.engine.sessions import SEQUENCE_TOO_OLD, SESSION_EXPIRED, Reply
from unimeter.limits import SESSION_RUNS_MAX, SESSION_WINDOW
from unimeter.types import AggType, MetricSchema, Outcome, to_ns

JAN = to_ns(datetime(2024, 1, 1, tzinfo=timezone.utc))
FEB = to_ns(datetime(2024, 2, 1, tzinfo=timezone.utc))


class Sender:
    """A machine with one metric; called with requests, it applies them as one entry."""

    def __init__(self) -> None:
        self.twin = Twin(JAN)
        self.twin.put(MetricSchema("m", AggType.SUM))

    @property
    def machine(self) -> Machine:
        return self.twin.machine

    def __call__(self, *requests: tuple[int, int, int]) -> dict[int, Reply | int]:
        """(session, sequence, value) each; what was repeated, by request."""
        batches = [Batch((event(value=value, at=JAN),), 2, *key) for *key, value in requests]
        return self.apply(*batches).repeated

    def apply(self, *batches: Batch) -> Applied:
        for number, batch in enumerate(batches):
            assert self.twin.builder.feed_payload(2, number + 1, batch.payload(), 0) == 0
        sealed = self.twin.builder.seal(JAN, self.machine.next_offset)
        assert sealed is not None
        return self.twin._apply(EVENTS, sealed.body)

    def total(self) -> int:
        return plan_total(self.machine, 7, "m", JAN, FEB).finish().sum


@pytest.fixture
def send() -> Sender:
    return Sender()


def test_a_resend_in_a_later_entry_gets_the_first_reply(send: Sender) -> None:
    assert send((5, 1, 10)) == {}
    repeated = send((5, 1, 10), (5, 2, 100))
    reply = repeated[0]
    assert isinstance(reply, Reply) and reply.stored == 1 and reply.position == 3
    assert repeated.keys() == {0} and send.total() == 110


def test_a_resend_in_the_same_entry_gets_the_first_reply(send: Sender) -> None:
    repeated = send((5, 1, 10), (5, 1, 10), (6, 1, 1))
    reply = repeated[1]
    assert isinstance(reply, Reply) and reply.stored == 1 and reply.last_offset == 1
    assert repeated.keys() == {1} and send.total() == 11


def test_requests_without_a_session_are_counted_each_time(send: Sender) -> None:
    assert send((0, 0, 1), (0, 0, 1)) == {} and send.total() == 2


def test_an_unknown_session_far_along_has_expired(send: Sender) -> None:
    assert send((5, SESSION_WINDOW + 1, 1)) == {0: SESSION_EXPIRED}
    assert send((5, SESSION_WINDOW, 1)) == {}
    assert send.total() == 1


def test_a_sequence_behind_the_window_is_too_old(send: Sender) -> None:
    send((5, 1, 1))
    send((5, SESSION_WINDOW + 1, 1))
    assert send((5, 1, 1)) == {0: SEQUENCE_TOO_OLD}
    assert send((5, 2, 1)) == {} and send.total() == 3
    assert send((5, 0, 1)) == {0: SEQUENCE_TOO_OLD}


def test_a_window_overrun_within_one_entry_is_answered(send: Sender) -> None:
    requests = [(5, sequence, 1) for sequence in range(1, SESSION_WINDOW + 5)]
    assert send(*requests) == {} and send.total() == SESSION_WINDOW + 4
    assert send((5, 1, 1)) == {0: SEQUENCE_TOO_OLD}
    assert send((5, SESSION_WINDOW + 4, 1)).keys() == {0}
    state(send.machine)


def test_an_overrun_with_a_resend_before_it_is_answered(send: Sender) -> None:
    requests = [(5, 1, 1), (5, 1, 1), (5, SESSION_WINDOW + 1, 1)]
    repeated = send(*requests)
    assert repeated.keys() == {1} and send.total() == 2


def test_the_largest_sequence_leaves_the_session_usable(send: Sender) -> None:
    send((5, 1, 1), (5, 2**64 - 1, 1))
    assert send((5, 2**64 - 1, 1)).keys() == {0} and send.total() == 2


def test_more_runs_than_are_remembered_are_marked(send: Sender) -> None:
    rows = tuple(event(code="m" if i % 2 else "none", at=JAN) for i in range(40))
    send.apply(Batch(rows, 2, 9, 1))
    applied = send.apply(Batch(rows, 2, 9, 1))
    reply = applied.repeated[0]
    assert isinstance(reply, Reply)
    assert len(reply.runs) == SESSION_RUNS_MAX and not reply.complete
    assert (reply.stored, reply.refused) == (20, 20) and send.total() == 20


def test_sessions_survive_a_snapshot(send: Sender) -> None:
    send((5, 1, 10), (6, 3, 1))
    before = state(send.machine)
    send.twin.machine = Machine.restore(before)
    assert state(send.machine) == before
    assert send((6, 3, 1), (5, 1, 10)).keys() == {0, 1} and send.total() == 11


def test_an_event_id_is_looked_at_in_other_sessions_too(send: Sender) -> None:
    row = event(value=4, id="once")
    assert send.twin.ingest(Batch((row,), 2, 5, 1)) == [[Outcome.STORED]]
    assert send.twin.ingest(Batch((row,), 2, 6, 1)) == [[Outcome.DUPLICATE]]


def test_a_resend_gets_its_reply_even_if_a_later_request_of_the_entry_pushes_it_out(
    send: Sender,
) -> None:
    rows = event(at=JAN), event(code="none", at=JAN)
    first = reply_of(send.apply(Batch(rows, 2, 5, 1)), 0)
    assert (first.stored, first.refused) == (1, 1)
    later = Batch((event(at=JAN),), 2, 5, 1 + SESSION_WINDOW)
    assert send.apply(Batch(rows, 2, 5, 1), later).repeated == {0: first}
    # The same where the first send stands in the entry itself.
    new, later = Batch(rows, 2, 6, 1), Batch((event(at=JAN),), 2, 6, 1 + SESSION_WINDOW)
    applied = send.apply(new, new, later)
    assert applied.repeated == {1: reply_of(applied, 0)}
