"""One ADMIN entry carried out: the rules of each change, decided where it stands in the log.

    key.put          the first key has the scope admin; equal to the one that is there: no change
    key.revoke       never the last good key with the scope admin: there is no way back to open
    webhook.put      begins after the newest alert, unless it says where
    webhook.delete, webhook.control (pause, resume, replay)
    webhook.progress how far the leader's deliveries have come; void after a replay
    note             nothing but a line of the trail

Once there is a key, whoever came by a port without showing one changes nothing: a node that had
not applied the first key yet may have let them in, the log has the last word.

A body that is no such change is refused with a code and a sentence, like a change that the
rules forbid; the entry stays in the log and changes nothing. Every replica must say the same, so
nothing here asks the host, and no sentence is made by a library. Sentences repeat nothing of the
body: there may be a secret in it.

Rejected: refusing before the entry is proposed. Two nodes that each revoke one of the last two
keys are both right when they ask; only the log knows which came first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from unimeter import limits
from unimeter.canonical import Fields, dump, parse
from unimeter.control import (
    ACTIVE,
    PAUSED,
    POSITION_MAX,
    UNKNOWN,
    Delivery,
    WebhookRecord,
    webhook_complaint,
)
from unimeter.control_json import (
    ID_CHARACTERS_MAX,
    actor_of,
    actor_text,
    delivery_complaint,
    delivery_of,
    key_complaint,
    key_of,
    webhook_of,
)
from unimeter.errors import InvalidInputError
from unimeter.keys import KeyRecord, Scope

if TYPE_CHECKING:
    from unimeter.engine.administration import Administration

# The numbers of wire.messages.ErrorCode, which the engine may not import.
OK: Final = 0
INVALID_INPUT: Final = 4
NOT_FOUND: Final = 5
ALREADY_EXISTS: Final = 6

UNAUTHENTICATED: Final = 13

NO_KEY: Final = "there is a key, and whoever asks for this showed none"
INVALID: Final = "invalid"  # the trail's word for a body that is no change
_ACTION_CHARACTERS_MAX: Final = 32
_SECRETS: Final = ("verifier", "portal_secret", "secret")  # fields that nobody is shown


class Refused(Exception):
    """A change that the rules forbid: code and sentence."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def is_good_admin(key: KeyRecord) -> bool:
    """Whether it can make other keys."""
    return Scope.ADMIN in key.scopes and not key.is_revoked


class Change:
    """One ADMIN entry being carried out."""

    def __init__(self, state: Administration, timestamp_ns: int, alerts: int) -> None:
        self.state, self.timestamp_ns, self.alerts = state, timestamp_ns, alerts
        self.actor, self.action, self.target = UNKNOWN, INVALID, ""
        self.is_told = True
        self.webhook: WebhookRecord | None = None  # the one that was put

    def carry_out(self, body: bytes) -> bool:
        """Whether anything changed. Raises Refused or InvalidInputError, with nothing changed."""
        if len(body) > limits.ADMIN_BODY_BYTES_MAX:
            raise InvalidInputError(f"the body has over {limits.ADMIN_BODY_BYTES_MAX} bytes")
        fields = Fields(parse(body), "the change")
        operation = fields.text("op", _ACTION_CHARACTERS_MAX)
        self.is_told = operation != "webhook.progress"
        actor = fields.take("actor")
        self.actor = UNKNOWN if actor is None else actor_of(actor)
        change = _OPERATIONS.get(operation)
        if change is None:
            raise InvalidInputError("the change is none that is known here")
        self.action = operation
        if operation != "key.put":  # which may repeat the very first one
            self._check_let_in()
        return change(self, fields)

    # --- keys --------------------------------------------------------------------

    def key_put(self, fields: Fields) -> bool:
        key = key_of(fields.take("key"))
        fields.finish()
        self.target = key.id
        self._check(key_complaint(key))
        keys = self.state.keys
        known = keys.get(key.id)
        if known is not None:
            if known.is_revoked:
                raise Refused(ALREADY_EXISTS, "this key was revoked and stays so; make another")
            if replace(known, created_ns=0) != replace(key, created_ns=0, revoked_ns=0):
                raise Refused(ALREADY_EXISTS, "there is another key of that id")
            return False
        self._check_let_in()
        if not keys and Scope.ADMIN not in key.scopes:
            raise Refused(
                INVALID_INPUT,
                "the first key needs the scope admin: from then on only such a key can make others",
            )
        if len(keys) >= limits.KEYS_MAX:
            self._forget_a_key()
        keys[key.id] = replace(key, created_ns=self.timestamp_ns, revoked_ns=0)
        self.state.generation += 1
        return True

    def _forget_a_key(self) -> None:
        """Make room: the key that was revoked first."""
        revoked = [key for key in self.state.keys.values() if key.is_revoked]
        if not revoked:
            raise Refused(INVALID_INPUT, f"there are {limits.KEYS_MAX} keys, the most allowed")
        del self.state.keys[min(revoked, key=lambda key: key.revoked_ns).id]

    def key_revoke(self, fields: Fields) -> bool:
        key = self._named(fields, self.state.keys, "key")
        if key.is_revoked:
            return False
        others = (one for one in self.state.keys.values() if one.id != key.id)
        if is_good_admin(key) and not any(is_good_admin(one) for one in others):
            raise Refused(
                INVALID_INPUT,
                "this is the last key with the scope admin; make another one before it goes",
            )
        self.state.keys[key.id] = replace(key, revoked_ns=self.timestamp_ns)
        self.state.generation += 1
        return True

    # --- webhooks ----------------------------------------------------------------

    def webhook_put(self, fields: Fields) -> bool:
        webhook = webhook_of(fields.take("webhook"))
        fields.finish()
        self.target = webhook.id
        self._check(webhook_complaint(webhook))
        known = self.state.webhooks.get(webhook.id)
        if known is not None:
            if _wanted(known) != _wanted(webhook):
                raise Refused(ALREADY_EXISTS, "there is another webhook of that id")
            self.webhook = known
            return False
        if len(self.state.webhooks) >= limits.WEBHOOKS_MAX:
            raise Refused(
                INVALID_INPUT, f"there are {limits.WEBHOOKS_MAX} webhooks, the most allowed"
            )
        start = self.alerts if webhook.start is None else self._position(webhook.start)
        self.webhook = replace(
            webhook,
            start=start,
            created_ns=self.timestamp_ns,
            state=ACTIVE,
            paused_reason="",
        )
        self.state.webhooks[webhook.id] = self.webhook
        self.state.deliveries[webhook.id] = Delivery(through=start, updated_ns=self.timestamp_ns)
        return True

    def webhook_delete(self, fields: Fields) -> bool:
        webhook = self._named(fields, self.state.webhooks, "webhook")
        del self.state.webhooks[webhook.id]
        del self.state.deliveries[webhook.id]
        return True

    def webhook_control(self, fields: Fields) -> bool:
        action = fields.text("action", _ACTION_CHARACTERS_MAX)
        after = fields.integer("after", POSITION_MAX)
        reason = fields.text("reason", limits.WEBHOOK_REASON_CHARACTERS_MAX)
        if action not in ("pause", "resume", "replay"):
            raise fields.bad("action", "pause, resume or replay")
        self.action = f"webhook.{action}"
        webhook = self._named(fields, self.state.webhooks, "webhook")
        if action == "replay":
            return self._replay(webhook, after)
        paused = replace(webhook, state=PAUSED, paused_reason=reason)
        changed = replace(webhook, state=ACTIVE, paused_reason="") if action == "resume" else paused
        if changed == webhook:
            return False
        self.state.webhooks[webhook.id] = changed
        if action == "resume":  # what failed is tried at once, and the failures count anew
            old = self.state.deliveries[webhook.id]
            self.state.deliveries[webhook.id] = replace(
                old, attempts={}, failures=0, error="", updated_ns=self.timestamp_ns
            )
        return True

    def _replay(self, webhook: WebhookRecord, after: int) -> bool:
        old = self.state.deliveries[webhook.id]
        self.state.deliveries[webhook.id] = Delivery(
            through=self._position(after), epoch=old.epoch + 1, updated_ns=self.timestamp_ns
        )
        return True

    def webhook_progress(self, fields: Fields) -> bool:
        delivery = delivery_of(fields.take("delivery"))
        webhook = self._named(fields, self.state.webhooks, "webhook")
        old = self.state.deliveries[webhook.id]
        self._check(delivery_complaint(delivery, old, self.alerts))
        self.state.deliveries[webhook.id] = replace(delivery, updated_ns=self.timestamp_ns)
        return True

    # --- the trail -----------------------------------------------------------------

    def note(self, fields: Fields) -> bool:
        action = fields.text("action", _ACTION_CHARACTERS_MAX, 1)
        self.target = fields.text("target", limits.AUDIT_TEXT_CHARACTERS_MAX)
        fields.finish()
        self.action = action
        return True

    # --- checks --------------------------------------------------------------------

    def _check_let_in(self) -> None:
        if self.state.is_closed_to(self.actor):
            raise Refused(UNAUTHENTICATED, NO_KEY)

    def _named(self, fields: Fields, among: dict[str, Any], what: str) -> Any:
        """What the change is about, which must be there."""
        ident = fields.text("id", ID_CHARACTERS_MAX)
        fields.finish()
        self.target = ident
        found = among.get(ident)
        if found is None:
            raise Refused(NOT_FOUND, f"there is no {what} of that id")
        return found

    def _position(self, after: int) -> int:
        if after > self.alerts:
            raise Refused(
                INVALID_INPUT, f"the newest alert has position {self.alerts}; none has that one yet"
            )
        return after

    def _check(self, complaint: str) -> None:
        if complaint:
            raise Refused(INVALID_INPUT, complaint)


def _wanted(webhook: WebhookRecord) -> tuple[object, ...]:
    """All that makes two webhooks of one id the same; an account's kind counts."""
    accounts = [(type(account).__name__, account) for account in webhook.accounts]
    return webhook.url, webhook.secret, accounts, webhook.metrics


_OPERATIONS: Final[dict[str, Callable[[Change, Fields], bool]]] = {
    "key.put": Change.key_put,
    "key.revoke": Change.key_revoke,
    "webhook.put": Change.webhook_put,
    "webhook.delete": Change.webhook_delete,
    "webhook.control": Change.webhook_control,
    "webhook.progress": Change.webhook_progress,
    "note": Change.note,
}


def change_text(body: bytes) -> str:
    """An ADMIN entry as a sentence, without what must stay secret; for `unimeter inspect`."""
    fields = parse(body)
    operation = fields.pop("op", None)
    if operation not in _OPERATIONS:
        return "a change that is not known here"
    actor = actor_of(fields.pop("actor", {}))
    for name in _SECRETS:
        for inner in fields.values():
            if isinstance(inner, dict):
                inner.pop(name, None)
    return f"{actor_text(actor)}: {operation} {dump(fields).decode()}"
