"""Client sessions: a retried request is answered, not counted again.

A session is a random 128-bit number that a client picks, its requests are
numbered from 1 and at most SESSION_WINDOW are under way at once. For each
session the last SESSION_WINDOW replies are kept, so that one that was lost can
be given again; what that costs is constant.

When SESSIONS_MAX are known, the least recently used makes room for a new one,
but not before SESSION_KEEP_SECONDS of the log's clock have passed since its last
request; until then a new session is told to wait. Clients stop sending a
request again after SESSION_RESEND_SECONDS_MAX, which is sooner, so a resend
never meets a session that was forgotten in between and is never counted twice.

All of it is replicated state: it changes only as entries are applied, and the
dict's order, which is the order of last use, goes into snapshots.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from unimeter.limits import (
    SESSION_KEEP_SECONDS,
    SESSION_RESEND_SECONDS_MAX,
    SESSION_RUNS_MAX,
    SESSION_WINDOW,
    SESSIONS_MAX,
)

SESSION_EXPIRED = 8  # numbers of wire.messages.ErrorCode
SEQUENCE_TOO_OLD = 9
SESSIONS_FULL = 10

assert SESSION_RESEND_SECONDS_MAX < SESSION_KEEP_SECONDS

_HEAD = struct.Struct("<QQQQI")
_REPLY = struct.Struct("<QQQIIIHH")


class Reply(NamedTuple):
    """What a request was answered: outcome runs are (outcome << 24 | length)."""

    position: int
    last_offset: int
    stored: int
    duplicates: int
    refused: int
    runs: tuple[int, ...]
    complete: bool


def remembered(reply: Reply) -> Reply:
    """As much of a reply as is kept."""
    if len(reply.runs) > SESSION_RUNS_MAX:
        return reply._replace(runs=reply.runs[:SESSION_RUNS_MAX], complete=False)
    return reply


class Session:
    """The replies of one session by sequence number, the highest number seen, the last use."""

    __slots__ = ("replies", "top", "used_ns")

    def __init__(self) -> None:
        self.top = 0
        self.used_ns = 0
        self.replies: dict[int, Reply | None] = {}


class Sessions:
    """All sessions, least recently used first."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[int, int], Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, key: tuple[int, int], sequence: int, now_ns: int) -> int | Session:
        """Find out what a request is: a session to answer from or in, or an error code.

        The session's ``replies`` then holds `sequence`: with a reply if the
        request was counted before, with None if it is new or stands earlier in
        this same entry.
        """
        session = self._sessions.pop(key, None)
        if session is None:
            if sequence == 0 or sequence > SESSION_WINDOW:
                return SESSION_EXPIRED
            if len(self._sessions) >= SESSIONS_MAX:
                oldest = next(iter(self._sessions))
                if now_ns - self._sessions[oldest].used_ns < SESSION_KEEP_SECONDS * 10**9:
                    return SESSIONS_FULL
                del self._sessions[oldest]
            session = Session()
        session.used_ns = now_ns
        self._sessions[key] = session
        if sequence in session.replies:
            return session
        if sequence + SESSION_WINDOW <= session.top or sequence == 0:
            return SEQUENCE_TOO_OLD
        if sequence > session.top:
            session.top = sequence
            for old in [s for s in session.replies if s + SESSION_WINDOW <= sequence]:
                del session.replies[old]
        return session

    def finish(self, session: Session, sequence: int, reply: Reply) -> None:
        """Remember the reply of a new request."""
        session.replies[sequence] = remembered(reply)

    def encode(self) -> bytes:
        """All sessions for a snapshot, in order of last use."""
        parts = [len(self._sessions).to_bytes(8, "little")]
        for (high, low), session in self._sessions.items():
            parts.append(_HEAD.pack(high, low, session.top, session.used_ns, len(session.replies)))
            for sequence, reply in session.replies.items():
                assert reply is not None, "a snapshot between two requests of one entry"
                head = (*reply[:5], len(reply.runs), reply.complete)
                parts.append(_REPLY.pack(sequence, *head))
                parts.append(struct.pack(f"<{len(reply.runs)}I", *reply.runs))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Sessions:
        """The sessions that `encode` wrote; ValueError or struct.error if it did not."""
        sessions = cls()
        position = 8
        for _ in range(int.from_bytes(data[:8], "little")):
            high, low, top, used_ns, count = _HEAD.unpack_from(data, position)
            position += _HEAD.size
            session = Session()
            session.top, session.used_ns = top, used_ns
            for _ in range(count):
                sequence, index, last, stored, duplicates, refused, runs, complete = (
                    _REPLY.unpack_from(data, position)
                )
                position += _REPLY.size
                words = struct.unpack_from(f"<{runs}I", data, position)
                position += 4 * runs
                session.replies[sequence] = Reply(
                    index, last, stored, duplicates, refused, words, bool(complete)
                )
            sessions._sessions[high, low] = session
        if position != len(data):
            raise ValueError("the sessions of a snapshot end early")
        return sessions
