"""Planted bugs of the SDK: what it resends, what it remembers, what it says."""

from __future__ import annotations

from tests.planted.bug import Bug, Test
from tests.planted.planting import Edit

_CORE = "tests/client/test_core.py"

BUGS = (
    Bug(
        "resend-under-a-new-session",
        "client",
        "A batch whose reply did not come is sent again under another session: if the first was "
        "stored, it counts twice.",
        (
            Edit(
                "client.core",
                "Call._failed",
                "self.last_error = error",
                """
                self.last_error = error
                if isinstance(self, IngestCall) and self.in_doubt:
                    self.ticket = self.core.sessions.replace(self.ticket)
                    self._encode()
                """,
            ),
        ),
        Test(_CORE, "assert"),
    ),
    Bug(
        "position-not-remembered",
        "client",
        "The SDK forgets the position of its last reply, so that a follower may answer a read from "
        "before the write.",
        (Edit("client.core", "Core.see", "if position > self.position:", "if False:"),),
        Test(_CORE, "min_position=0"),
    ),
    Bug(
        "doubt-forgotten",
        "client",
        "The SDK does not note that a lost attempt may have been carried out: where the session "
        "is gone, the batch is sent anew under another and may count twice.",
        (
            Edit(
                "client.core",
                "Call.on_lost",
                "self.in_doubt |= was_sent",
                "pass",
            ),
        ),
        Test(_CORE, "so nothing was done"),
    ),
    Bug(
        "resend-with-another-time",
        "client",
        "A resend is encoded again, with the time of the resend for events that have none.",
        (
            Edit(
                "client.core",
                "Call._failed",
                "self.last_error = error",
                """
                self.last_error = error
                if isinstance(self, IngestCall):
                    batch = self.batch
                    later_ns = batch.timestamp_ns + 10**9
                    self.batch = Batch(batch.events, batch.indexes, batch.partition, later_ns)
                    self._encode()
                """,
            ),
        ),
        Test(_CORE, "assert"),
        is_simulated=False,  # the session recognises the resend, whatever its bytes
    ),
    Bug(
        "sequence-handed-out-too-early",
        "client",
        "The SDK numbers requests beyond the window while an old one may still be sent again.",
        (
            Edit(
                "client.sessions",
                "Session.has_room",
                "return self.next_sequence - next(iter(self.unresolved)) < self.window",
                "return len(self.unresolved) < self.window",
            ),
        ),
        Test("tests/client/test_sessions.py", "assert Ticket"),
    ),
    Bug(
        "alerts-again-after-a-reconnect",
        "client",
        "A subscription that connects again begins where it first did: alerts are handed out "
        "twice.",
        (
            Edit(
                "client.feeds",
                "AlertFeed.take",
                "if push.alert.position <= self.place:",
                "if False:",
            ),
            Edit(
                "client.feeds",
                "AlertFeed.request",
                "return replace(self._request, after=self.place)",
                "return replace(self._request, after=0)",
            ),
        ),
        Test("tests/client/test_aio.py", r"\[2, 3, 4, 2, 3, 4"),
    ),
)
