"""Outcomes come back to the index their event had, and are never guessed."""

from __future__ import annotations

import pytest

from unimeter.client.outcomes import Tally, describe
from unimeter.types import Event, Outcome
from unimeter.wire.messages import IngestReply

STORED, DUPLICATE, UNKNOWN = Outcome.STORED, Outcome.DUPLICATE, Outcome.UNKNOWN_METRIC


def tally(count: int, refused: dict[int, Outcome] | None = None) -> Tally:
    return Tally([Event(1, "m")] * count, refused or {})


def test_batches_are_put_together_by_index() -> None:
    result = tally(6, {2: Outcome.BAD_VALUE})
    result.add([1, 4], IngestReply(1, 0, 50, 1, [(20, 1), (0, 1)]), 8)
    result.add([0, 3, 5], IngestReply(1, 2, 40, 0, [(1, 2), (0, 1)]), 7)
    done = result.result()
    assert done.outcomes == [DUPLICATE, UNKNOWN, Outcome.BAD_VALUE, DUPLICATE, STORED, STORED]
    assert (done.n_stored, done.n_duplicates, done.n_refused) == (2, 2, 2)
    assert (done.last_offset, done.position) == (50, 8)
    assert [(r.index, r.outcome) for r in done.refusals] == [(1, UNKNOWN), (2, Outcome.BAD_VALUE)]


def test_outcomes_left_out_are_filled_only_where_the_counts_leave_no_choice() -> None:
    sure = tally(5)
    sure.add(range(5), IngestReply(4, 0, 1, 1, [(20, 1)], is_incomplete=True), 1)
    assert sure.result().outcomes == [UNKNOWN, STORED, STORED, STORED, STORED]
    duplicates = tally(3)
    duplicates.add(range(3), IngestReply(1, 2, 1, 0, [(0, 1)], is_incomplete=True), 1)
    assert duplicates.result().outcomes == [STORED, DUPLICATE, DUPLICATE]
    open_ended = tally(5)
    open_ended.add(range(5), IngestReply(3, 0, 1, 2, [(20, 1)], is_incomplete=True), 1)
    assert open_ended.result().outcomes == [UNKNOWN]
    assert open_ended.result().n_refused == 2


def test_error_is_told_what_was_counted_before_it() -> None:
    from unimeter.errors import ServerError

    result, error = tally(4), ServerError("x")
    result.explain(error)
    assert not hasattr(error, "__notes__")
    result.add([0, 1], IngestReply(2, 0, 1, 0, [(0, 2)]), 1)
    result.explain(error)
    assert "4 events 2 are counted" in error.__notes__[0]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_words(outcome: Outcome) -> None:
    assert len(describe(outcome, Event(1, "m"))) >= 6
