"""Planted bugs of exactly-once: sessions, sequence numbers, what is claimed when."""

from __future__ import annotations

from tests.planted.bug import Bug, Test
from tests.planted.planting import Edit

_SESSIONS = "tests/engine/test_engine_sessions.py"

BUGS = (
    Bug(
        "sessions-not-in-the-snapshot",
        "sessions",
        "The session table is not part of a snapshot: a resend after a restart counts twice.",
        (
            Edit(
                "engine.machine",
                "Machine.snapshot",
                "padded(self.sessions.encode())",
                "padded(Sessions().encode())",
            ),
        ),
        Test(_SESSIONS, r"dict_keys\(\[\]\) == \{0, 1\}"),
    ),
    Bug(
        "sessions-lost-at-failover",
        "sessions",
        "The session table begins anew with each leader: the resend of a batch whose reply was "
        "lost with the leader counts twice.",
        (
            Edit(
                "engine.machine",
                "Machine._other",
                'assert not body, "NOOP says nothing"',
                'assert not body, "NOOP says nothing"\nself.sessions = Sessions()',
            ),
        ),
    ),
    Bug(
        "key-claimed-before-the-write",
        "sessions",
        "A sequence number counts as seen from its proposal on: if the entry is lost with its "
        "leader, the resend is answered as a duplicate and counted nowhere.",
        (
            Edit(
                "server.node",
                "Node._propose",
                "self._waiting[place] = entry",
                """
                self._waiting[place] = entry
                if entry.kind == entries.EVENTS:
                    words = memoryview(entry.body).cast("Q")
                    start = 8 + (words[0] >> 32)
                    claimed = vars(self.machine).setdefault("claimed", {})
                    for at in range(start, start + 3 * words[6], 3):
                        claimed[tuple(words[at : at + 3])] = place
                """,
            ),
            Edit(
                "engine.machine",
                "Machine._begin_sessions",
                "session = self.sessions.begin((high, low), sequence, self.timestamp_ns)",
                """
                session = self.sessions.begin((high, low), sequence, self.timestamp_ns)
                place = vars(self).get("claimed", {}).get((high, low, sequence))
                if place and place[0] < applied.index and not isinstance(session, int):
                    if sequence not in session.replies:
                        reply = Reply(applied.index, 0, events, 0, 0, (events,), True)
                        session.replies[sequence] = reply
                """,
            ),
            Edit(
                "engine.machine",
                "",
                "from unimeter.engine.sessions import Session, Sessions",
                "from unimeter.engine.sessions import Reply, Session, Sessions",
            ),
        ),
    ),
    Bug(
        "resend-in-the-same-entry-counted-twice",
        "sessions",
        "A batch and its resend that meet in one entry both count: the number is remembered only "
        "once the entry is done.",
        (
            Edit(
                "engine.machine",
                "Machine._begin_sessions",
                "session.replies[sequence] = None",
                "pass",
            ),
            Edit(
                "engine.machine",
                "Machine._events",
                "if sequence in session.replies:",
                "if True:",
            ),
        ),
        Test(_SESSIONS, "assert|KeyError"),
    ),
    Bug(
        "sequence-below-the-window-counted",
        "sessions",
        "A sequence number whose reply is not kept any more is taken for a new one.",
        (
            Edit(
                "engine.sessions",
                "Sessions.begin",
                "if sequence + SESSION_WINDOW <= session.top or sequence == 0:",
                "if sequence == 0:",
            ),
        ),
        Test("tests/engine/test_sessions.py", "assert"),
        is_simulated=False,  # the SDK hands out no number so far above one that may be resent
    ),
    Bug(
        "offset-taken-at-completion",
        "sessions",
        "The offset of an entry's first event is taken when the entry before is done, not when it "
        "is proposed: two entries under way have the same.",
        (
            Edit("server.node", "Node._propose", "self._next_offset += entry.events", "pass"),
            Edit(
                "server.node",
                "Node._answer",
                "self.reads.applied(applied.index)",
                "self.reads.applied(applied.index)\n"
                "self._next_offset = max(self._next_offset, self.machine.next_offset)",
            ),
        ),
        Test(
            "tests/server/test_node.py::test_offsets_follow_one_another_over_entries_in_flight",
            "Empty",
        ),
    ),
)
