"""An independent memory of sessions: which requests were counted, and what they were told.

Owns the second opinion on decision 11: a request of a known session and sequence gets the
remembered reply and is not counted; one further back than the window is refused; a session
in the middle of its numbers that nobody knows has expired; and a new session waits while as
many as may be kept were all used lately. Time is the log's.

    begin(request, now_ns)  ->  NEW | an error code | the Answered of the first send
    finish(request, answered)   remembers what a NEW one was answered

Requests are taken one by one in the order of the log, each wholly before the next: that
some stand in one entry makes no difference. Every use is kept, so that the memory can be
told as it was at any entry (`state_at`). Refuses to know the engine, whose own bytes
`read_sessions` reads for a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from unimeter.limits import SESSION_KEEP_SECONDS, SESSION_WINDOW, SESSIONS_MAX
from unimeter.sim.counting import Request

NEW: Final = 0
SESSION_EXPIRED: Final = 8
SEQUENCE_TOO_OLD: Final = 9
SESSIONS_FULL: Final = 10  # BACKPRESSURE: wait

RUNS_REMEMBERED: Final = 8

SessionKey = tuple[int, int]


@dataclass(frozen=True)
class Answered:
    """One request of an entry, and what it is answered.

    A request that is not counted (`error_code` or `repeats` is set) has the outcome
    DUPLICATE for each event, which is what the engine notes for it in the log's outcomes.
    """

    request: Request
    index: int
    last_offset: int
    outcomes: bytes
    error_code: int = 0
    repeats: Answered | None = None  # the first send, whose reply this one gets again

    @property
    def stored(self) -> int:
        """Events that were counted by this request."""
        return self.outcomes.count(0)

    @property
    def duplicates(self) -> int:
        """Events that had been counted before."""
        return self.outcomes.count(1)

    @property
    def refused(self) -> int:
        """Events that were not counted at all."""
        return len(self.outcomes) - self.stored - self.duplicates

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Equal neighbours of the outcomes as (outcome, how many)."""
        runs: list[tuple[int, int]] = []
        for outcome in self.outcomes:
            if runs and runs[-1][0] == outcome:
                runs[-1] = outcome, runs[-1][1] + 1
            else:
                runs.append((outcome, 1))
        return runs


@dataclass(frozen=True)
class Remembered:
    """A session as the log's state has it: all numbers as of its last use."""

    top: int
    used_ns: int
    replies: tuple[tuple[int, tuple[int, ...]], ...]
    """(sequence, words) by sequence; words as in `reply_words`."""


@dataclass
class Session:
    """What is known of one session."""

    top: int = 0
    used_ns: int = 0
    answered: dict[int, Answered | None] = field(default_factory=dict)


class SessionModel:
    """All sessions, in the order of their last use."""

    def __init__(
        self,
        sessions_max: int = SESSIONS_MAX,
        window: int = SESSION_WINDOW,
        keep_seconds: int = SESSION_KEEP_SECONDS,
    ) -> None:
        self.sessions_max, self.window, self.keep_seconds = sessions_max, window, keep_seconds
        self.known: dict[SessionKey, Session] = {}
        self._changes: list[tuple[int, SessionKey, Remembered | None]] = []
        self._used: dict[SessionKey, None] = {}

    def begin(self, request: Request, now_ns: int) -> int | Answered:
        """What a request with a session is: NEW, refused with a code, or known."""
        key, sequence = request.session, request.sequence
        session = self.known.get(key)
        if session is None:
            if not 1 <= sequence <= self.window:
                return SESSION_EXPIRED
            if len(self.known) >= self.sessions_max and not self._make_room(now_ns):
                return SESSIONS_FULL
            session = Session()
        else:
            del self.known[key]
        self.known[key] = session  # the last in the order of use
        session.used_ns = now_ns
        self._used[key] = None
        if sequence in session.answered:
            first = session.answered[sequence]
            assert first is not None, "a request is answered before the next is looked at"
            return first
        if sequence == 0 or sequence <= session.top - self.window:
            return SEQUENCE_TOO_OLD
        session.top = max(session.top, sequence)
        for old in [one for one in session.answered if one <= session.top - self.window]:
            del session.answered[old]
        session.answered[sequence] = None
        return NEW

    def _make_room(self, now_ns: int) -> bool:
        oldest = next(iter(self.known))
        if now_ns - self.known[oldest].used_ns < self.keep_seconds * 10**9:
            return False
        del self.known[oldest]
        self._used.pop(oldest, None)
        self._used[oldest] = None
        return True

    def finish(self, request: Request, answered: Answered) -> None:
        """Remember what a NEW request was answered, if it is still in the window."""
        session = self.known[request.session]
        if request.sequence in session.answered:
            session.answered[request.sequence] = answered

    # --- as of an entry ------------------------------------------------------------

    def end_entry(self, index: int) -> None:
        """Note the sessions that entry `index` used, as they are now."""
        gone = [key for key in self._used if key not in self.known]
        for key in gone:
            self._changes.append((index, key, None))
        for key, session in self.known.items():
            if key in self._used:
                self._changes.append((index, key, _remembered(session)))
        self._used = {}

    def state_at(self, at: int) -> dict[SessionKey, Remembered]:
        """Every session once entry `at` was applied, in the order of last use."""
        found: dict[SessionKey, Remembered] = {}
        for index, key, state in self._changes:
            if index <= at:
                found.pop(key, None)
                if state is not None:
                    found[key] = state
        return found


def _remembered(session: Session) -> Remembered:
    replies = []
    for sequence in sorted(session.answered):
        answered = session.answered[sequence]
        assert answered is not None
        replies.append((sequence, reply_words(answered)))
    return Remembered(session.top, session.used_ns, tuple(replies))


def reply_words(answered: Answered) -> tuple[int, ...]:
    """What is remembered of a reply: index, last offset, counts, whether all runs, runs."""
    runs = [outcome << 24 | length for outcome, length in answered.runs]
    return (
        answered.index,
        answered.last_offset,
        answered.stored,
        answered.duplicates,
        answered.refused,
        int(len(runs) <= RUNS_REMEMBERED),
        *runs[:RUNS_REMEMBERED],
    )


def read_sessions(data: bytes) -> dict[SessionKey, Remembered]:
    """The sessions of a snapshot of the engine, by the drawing in `engine/sessions.py`."""
    at = 0

    def number(length: int) -> int:
        nonlocal at
        at += length
        return int.from_bytes(data[at - length : at], "little")

    found: dict[SessionKey, Remembered] = {}
    for _ in range(number(8)):
        high, low, top, used_ns, count = (number(8), number(8), number(8), number(8), number(4))
        replies = []
        for _ in range(count):
            sequence, index, last_offset = number(8), number(8), number(8)
            counts = (number(4), number(4), number(4))
            runs, is_complete = number(2), number(2)
            words = (index, last_offset, *counts, is_complete)
            replies.append((sequence, (*words, *(number(4) for _ in range(runs)))))
        found[high, low] = Remembered(top, used_ns, tuple(sorted(replies)))
    assert at == len(data), "sessions go on after their end"
    return found
