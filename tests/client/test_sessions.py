"""Sequence numbers: handed out in order, never beyond the window."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from unimeter.client.sessions import Sessions, Ticket


def make(sessions_max: int, window: int) -> Sessions:
    identities = itertools.count(2**64 + 1)
    return Sessions(lambda: next(identities), sessions_max, window)


def test_numbers_start_at_one_and_count_up() -> None:
    sessions = make(1, 3)
    tickets = [sessions.maybe_take() for _ in range(4)]
    assert [ticket and ticket.sequence for ticket in tickets] == [1, 2, 3, None]


def test_window_moves_with_the_lowest_unresolved_number() -> None:
    sessions = make(1, 3)
    first, second, third = (sessions.maybe_take() for _ in range(3))
    assert first and second and third
    second.resolve()
    third.resolve()
    assert sessions.maybe_take() is None
    first.resolve()
    fourth = sessions.maybe_take()
    assert fourth is not None and fourth.sequence == 4


def test_identity_is_split_into_two_words() -> None:
    ticket = make(1, 1).maybe_take()
    assert ticket is not None
    assert (ticket.session.high, ticket.session.low) == (1, 1)


def test_further_sessions_open_only_when_the_first_are_full() -> None:
    sessions = make(2, 2)
    tickets = [sessions.maybe_take() for _ in range(5)]
    assert [ticket and ticket.session.identity - 2**64 for ticket in tickets] == [1, 1, 2, 2, None]


def test_replaced_session_hands_out_nothing_more() -> None:
    sessions = make(1, 2)
    first, second = sessions.maybe_take(), sessions.maybe_take()
    assert first and second
    new = sessions.replace(first)
    assert new.session is not first.session and new.sequence == 1
    again = sessions.replace(second)
    assert (again.session, again.sequence) == (new.session, 2)
    sessions.check_invariants()


@given(st.lists(st.integers(0, 9), max_size=200))
def test_no_two_tickets_are_alike_and_the_window_holds(choices: list[int]) -> None:
    sessions, held, seen = make(2, 4), list[Ticket](), set[tuple[int, int]]()
    for choice in choices:
        if choice < 5:
            ticket = sessions.maybe_take()
            if ticket is not None:
                key = (ticket.session.identity, ticket.sequence)
                assert key not in seen
                seen.add(key)
                held.append(ticket)
        elif choice < 9 and held:
            held.pop(choice % len(held)).resolve()
        elif held:
            ticket = sessions.replace(held.pop(0))
            assert (ticket.session.identity, ticket.sequence) not in seen
            seen.add((ticket.session.identity, ticket.sequence))
            held.append(ticket)
        sessions.check_invariants()
