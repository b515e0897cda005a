"""Sessions: which resend is answered from memory, and which is refused."""

from __future__ import annotations

import pytest

from unimeter.engine import sessions as sessions_module
from unimeter.engine.sessions import (
    SEQUENCE_TOO_OLD,
    SESSION_EXPIRED,
    SESSIONS_FULL,
    Reply,
    Session,
    Sessions,
)
from unimeter.limits import SESSION_KEEP_SECONDS, SESSION_RUNS_MAX, SESSION_WINDOW

KEY = (1, 2)


def reply(position: int, runs: int = 1) -> Reply:
    return Reply(position, 10 * position, runs, 0, 0, tuple([1] * runs), True)


NOW = 1_700_000_000_000_000_000


def count(sessions: Sessions, sequence: int, key: tuple[int, int] = KEY, now_ns: int = NOW) -> None:
    session = sessions.begin(key, sequence, now_ns)
    assert isinstance(session, Session)
    assert sequence not in session.replies
    sessions.finish(session, sequence, reply(sequence))


def test_a_resend_finds_the_reply_of_the_first_send() -> None:
    sessions = Sessions()
    for sequence in range(1, 40):
        count(sessions, sequence)
    for sequence in range(40 - SESSION_WINDOW, 40):
        session = sessions.begin(KEY, sequence, NOW)
        assert isinstance(session, Session)
        assert session.replies[sequence] == reply(sequence)


def test_requests_of_one_window_may_come_in_any_order() -> None:
    sessions = Sessions()
    for sequence in (3, 1, SESSION_WINDOW, 2):
        count(sessions, sequence)


def test_a_sequence_behind_the_window_is_refused_not_counted() -> None:
    sessions = Sessions()
    for sequence in range(1, SESSION_WINDOW + 2):
        count(sessions, sequence)
    assert sessions.begin(KEY, 1, NOW) == SEQUENCE_TOO_OLD
    assert sessions.begin(KEY, 0, NOW) == SEQUENCE_TOO_OLD


def test_an_unknown_session_in_the_middle_has_expired() -> None:
    assert Sessions().begin(KEY, SESSION_WINDOW + 1, NOW) == SESSION_EXPIRED
    assert isinstance(Sessions().begin(KEY, SESSION_WINDOW, NOW), Session)


def test_a_session_makes_room_only_when_no_resend_can_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 3)
    sessions = Sessions()
    for high in range(3):
        count(sessions, 1, (high, 0))
    count(sessions, 2, (0, 0), NOW + 10)
    kept_until = NOW + SESSION_KEEP_SECONDS * 10**9
    assert sessions.begin((9, 9), 1, kept_until - 1) == SESSIONS_FULL
    assert len(sessions) == 3
    count(sessions, 1, (9, 9), kept_until)
    assert len(sessions) == 3
    assert isinstance(sessions.begin((0, 0), 2, kept_until), Session)
    assert sessions.begin((1, 0), 20, kept_until) == SESSION_EXPIRED


def test_a_reply_of_many_runs_is_kept_short_and_says_so() -> None:
    sessions = Sessions()
    session = sessions.begin(KEY, 1, NOW)
    assert isinstance(session, Session)
    sessions.finish(session, 1, reply(1, SESSION_RUNS_MAX + 5))
    kept = session.replies[1]
    assert kept is not None and len(kept.runs) == SESSION_RUNS_MAX and not kept.complete


def test_sessions_come_back_from_a_snapshot_in_their_order() -> None:
    sessions = Sessions()
    for high in range(20):
        for sequence in range(1, 30):
            count(sessions, sequence, (high % 7, high))
    data = sessions.encode()
    assert Sessions.decode(data).encode() == data
    with pytest.raises(ValueError):
        Sessions.decode(data + b"\0")
