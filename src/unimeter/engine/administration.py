"""What administrators make, as replicated state: keys, webhooks, deliveries, and the trail.

Owns the state, its part of a snapshot, and the trail of who did what:

    ADMIN entry ─> Administration.apply ─> changes.Change ─> state', or a refusal
                                       └─> a line of the trail, either way

Refused attempts are in the trail; repeats that change nothing and the progress of deliveries
are not. The trail holds no secret: it names ids, and its sentences are `changes`' own. Values
are frozen and replaced, never changed in place: whoever holds one from before an apply holds it
whole. A snapshot has all of it, in one JSON object (docs/internals/formats.md).

Refuses to know the rules (`changes`), what a key's hashes mean (`keys`), time beyond the
entry's, and who may ask (`server.auth`).

Rejected: keys in a file on each node. Three nodes would have three truths about who may come in.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from unimeter import limits
from unimeter.canonical import Fields, dump, line, parse
from unimeter.control import DONE, FROM_OUTSIDE, Actor, AuditRecord, Delivery, WebhookRecord
from unimeter.control_json import (
    audit_json,
    audit_of,
    delivery_json,
    delivery_of,
    key_json,
    key_of,
    webhook_json,
    webhook_of,
)
from unimeter.engine.changes import INVALID_INPUT, OK, Change, Refused, is_good_admin
from unimeter.errors import InvalidInputError
from unimeter.keys import KeyRecord

_SNAPSHOT_DEPTH_MAX: Final = 8  # the trail's actors, the attempts of deliveries


class Administration:
    """The state that ADMIN entries change; it changes nowhere else."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyRecord] = {}
        self.webhooks: dict[str, WebhookRecord] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.audit: deque[AuditRecord] = deque(maxlen=limits.AUDIT_RECORDS_MAX)
        self.generation = 0  # +1 whenever a key is made or revoked

    # --- applying ----------------------------------------------------------------

    def apply(
        self, index: int, timestamp_ns: int, body: bytes, alerts: int
    ) -> tuple[int, str, WebhookRecord | None]:
        """Carry out an ADMIN entry, or say why not: (error code, sentence, webhook put).

        `alerts` is the position of the newest alert at this entry.
        """
        change = Change(self, timestamp_ns, alerts)
        code, sentence, is_changed = OK, "", False
        try:
            is_changed = change.carry_out(body)
        except Refused as refusal:
            code, sentence = refusal.code, str(refusal)
        except InvalidInputError as error:
            code, sentence = INVALID_INPUT, str(error)
        if change.is_told and (is_changed or code):
            self.tell(index, timestamp_ns, change.actor, change.action, change.target, sentence)
        return code, sentence, change.webhook

    def tell(
        self, index: int, timestamp_ns: int, actor: Actor, action: str, target: str, refusal: str
    ) -> None:
        """Add a line to the trail; the oldest one goes."""
        most = limits.AUDIT_TEXT_CHARACTERS_MAX
        assert not self.audit or self.audit[-1].index < index, "one line an entry"
        self.audit.append(
            AuditRecord(
                index, timestamp_ns, actor, action, line(target, most), line(refusal or DONE, most)
            )
        )

    # --- looking -----------------------------------------------------------------

    def is_closed_to(self, actor: Actor) -> bool:
        """Whether this entry's author came by a port, without a key, though there is one."""
        return bool(self.keys) and not actor.key and actor.via in FROM_OUTSIDE

    def trail(self, before: int, limit: int) -> tuple[list[AuditRecord], bool]:
        """Lines of entries before `before` (0: from the newest), newest first; are there more."""
        found: list[AuditRecord] = []
        for record in reversed(self.audit):
            if before and record.index >= before:
                continue
            if len(found) == limit:
                return found, True
            found.append(record)
        return found, False

    def statistics(self) -> dict[str, int]:
        """Keys that are good, webhooks, lines of the trail."""
        return {
            "api_keys": sum(not key.is_revoked for key in self.keys.values()),
            "webhooks": len(self.webhooks),
            "audit_records": len(self.audit),
        }

    def check_invariants(self) -> None:
        """There is a way in, each webhook has one delivery, and the trail is in order."""
        good = [key for key in self.keys.values() if is_good_admin(key)]
        assert good or not self.keys, "keys, and none of them can make another"
        assert len(self.keys) <= limits.KEYS_MAX and len(self.webhooks) <= limits.WEBHOOKS_MAX
        assert list(self.webhooks) == list(self.deliveries)
        indexes = [record.index for record in self.audit]
        assert indexes == sorted(set(indexes))

    # --- snapshots ---------------------------------------------------------------

    def encode(self) -> bytes:
        """All of it for a snapshot; equal states give equal bytes."""
        return dump(
            {
                "keys": [key_json(key, with_hashes=True) for key in self.keys.values()],
                "webhooks": [webhook_json(one, with_secret=True) for one in self.webhooks.values()],
                "deliveries": [delivery_json(one) for one in self.deliveries.values()],
                "audit": [audit_json(record) for record in self.audit],
                "generation": self.generation,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Administration:
        """What `encode` wrote; ValueError if it did not."""
        fields = Fields(parse(data, _SNAPSHOT_DEPTH_MAX), "administration")
        state = cls()
        for key in fields.items("keys", limits.KEYS_MAX, lambda one, _: key_of(one)):
            state.keys[key.id] = key
        most = limits.WEBHOOKS_MAX
        webhooks = fields.items("webhooks", most, lambda one, _: webhook_of(one))
        deliveries = fields.items("deliveries", most, lambda one, _: delivery_of(one))
        for webhook, delivery in zip(webhooks, deliveries, strict=True):
            state.webhooks[webhook.id], state.deliveries[webhook.id] = webhook, delivery
        most = limits.AUDIT_RECORDS_MAX
        state.audit.extend(fields.items("audit", most, lambda one, _: audit_of(one)))
        state.generation = fields.integer("generation")
        fields.finish()
        return state
