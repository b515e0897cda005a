"""Planted bugs of keys, webhooks and the trail: who may come in, and what was delivered."""

from __future__ import annotations

from tests.planted.bug import Bug, Test
from tests.planted.planting import Edit

_RULES = "tests/engine/test_administration.py"

BUGS = (
    Bug(
        "administration-not-in-the-snapshot",
        "engine",
        "Keys, webhooks and the trail are not restored from a snapshot: after a restart the node "
        "is open to everybody.",
        (
            Edit(
                "engine.machine",
                "Machine.restore",
                "machine.administration = Administration.decode(source.data())",
                "Administration.decode(source.data())",
            ),
        ),
        Test(f"{_RULES}::test_a_snapshot_has_all_of_it_and_replicas_are_equal", "assert"),
    ),
    Bug(
        "change-of-nobody",
        "engine",
        "Who created or changed a metric is in the log, and not in the trail.",
        (
            Edit(
                "engine.machine",
                "Machine._on_behalf",
                "self._put_metric(applied, actor, inner)",
                "self._put_metric(applied, UNKNOWN, inner)",
            ),
        ),
        Test(f"{_RULES}::test_the_trail_says_who_changed_a_metric", "assert"),
    ),
    Bug(
        "last-key-can-be-revoked",
        "engine",
        "The last key that can make others is revoked: nobody can make one again.",
        (
            Edit(
                "engine.changes",
                "Change.key_revoke",
                "if is_good_admin(key) and not any(is_good_admin(one) for one in others):",
                "if False:",
            ),
        ),
        Test(f"{_RULES}::test_the_last_key_with_the_scope_admin_can_not_be_revoked", "assert"),
    ),
    Bug(
        "late-progress-undoes-a-replay",
        "engine",
        "How far deliveries had come before a replay is written after it, and counts: the replay "
        "delivers nothing.",
        (
            Edit(
                "control_json",
                "delivery_complaint",
                "if new.epoch != old.epoch:",
                "if False:",
            ),
        ),
        Test(f"{_RULES}::test_progress_from_before_a_replay_does_not_undo_it", "assert"),
    ),
    Bug(
        "secrets-in-the-list",
        "server",
        "A list of webhooks shows the secrets that sign their deliveries.",
        (
            Edit(
                "server.administration",
                "_webhook_list",
                'Webhook(replace(record, secret=""), state.deliveries[ident])',
                "Webhook(record, state.deliveries[ident])",
            ),
        ),
        Test(
            "tests/client/test_administration.py::test_a_webhooks_secret_is_shown_once",
            "assert",
        ),
    ),
)
