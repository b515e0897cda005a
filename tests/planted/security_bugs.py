"""Planted bugs of keys at the door: who is let in, what a key covers, when it ends."""

from __future__ import annotations

from tests.planted.bug import Bug, Test
from tests.planted.planting import Edit

_AUTH = "tests/server/test_auth.py"
_RIGHTS = "tests/server/test_rights.py"

BUGS = (
    Bug(
        "any-secret-opens",
        "server",
        "A key's id is looked up and its secret is not compared: ids, which are public, log in.",
        (
            Edit(
                "server.auth",
                "Auth._login_key",
                "is_right = check_secret(record or _UNKNOWN, secret)",
                "is_right = record is not None",
            ),
        ),
        Test(f"{_AUTH}::test_an_unknown_id_is_refused_with_the_words_of_a_wrong_secret", "RAISE"),
    ),
    Bug(
        "batch-of-a-restricted-key-unread",
        "server",
        "A key for one account sends events of another: its batches go to the kernel unread.",
        (
            Edit(
                "server.connection",
                "Connection._take_batch",
                "if self.gate.is_guarded and not self._may_ingest(header, data[start:end]):",
                "if False:",
            ),
        ),
        Test(f"{_RIGHTS}::test_a_batch_with_one_foreign_event_is_refused_as_a_whole", "assert"),
    ),
    Bug(
        "empty-member-lets-everybody-in",
        "server",
        "A node that lost its disk knows no key, takes the cluster for an open one, and sends on "
        "what anybody wants.",
        (
            Edit(
                "server.auth",
                "Auth.__init__",
                "self.is_settled = node.is_alone",
                "self.is_settled = True",
            ),
        ),
        Test(
            f"{_AUTH}::test_a_member_that_knows_no_key_lets_nobody_in_before_a_quorum_says_there"
            "_is_none",
            "RAISE",
        ),
    ),
    Bug(
        "session-signed-with-the-log",
        "server",
        "Sessions of browsers are signed with what is in every backup: who has one signs in.",
        (
            Edit(
                "server.auth",
                "Auth.__init__",
                "secret or platform.entropy(32)",
                'b"of the log"',
            ),
        ),
        Test(f"{_AUTH}::test_a_session_is_signed_with_more_than_the_log_knows", "RAISE"),
    ),
    Bug(
        "streams-not-narrowed",
        "server",
        "A key for one account that names none gets the alerts of all.",
        (
            Edit(
                "server.rights",
                "_narrow",
                "request.accounts = [principal.account]",
                "pass",
            ),
        ),
        Test(f"{_RIGHTS}::test_alerts_of_others_are_not_pushed", "assert"),
    ),
)
