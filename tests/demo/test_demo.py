"""The demonstration can fail: what it compares, and what it would say of a wrong total."""

from __future__ import annotations

from unimeter.demo.comparing import compare
from unimeter.demo.workload import Expected, make_events


def test_events_are_the_same_every_time_and_in_the_order_of_their_timestamps() -> None:
    events = make_events()
    assert len(events) == 200_000
    assert events[::997] == make_events()[::997]
    moments = [event.timestamp_ns() for event in events]
    assert moments == sorted(moments)


def test_a_total_that_is_off_by_one_in_one_account_is_not_equal() -> None:
    expectation = Expected()
    for event in make_events()[:5_000]:
        expectation.add(event)
    expected = expectation.totals()
    assert all(row.equal for row in compare(expected, dict(expected)))
    # One unit moved from one account to another leaves the sum over accounts as it was.
    cells = [cell for cell in expected if cell[0] == "tokens"]
    pair = [cell for cell in cells if cell[2] == cells[0][2]][:2]
    moved = {**expected, pair[0]: expected[pair[0]] + 1, pair[1]: expected[pair[1]] - 1}
    wrong = [row for row in compare(expected, moved) if not row.equal]
    assert len(wrong) == 1 and wrong[0].expected == wrong[0].found


def test_a_total_nobody_expected_is_not_equal() -> None:
    extra = {("tokens", 1, frozenset({("model", "unheard-of")})): 0}
    assert [row.equal for row in compare({}, extra)] == [False]
