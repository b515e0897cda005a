"""The nouns of administration as JSON: one shape each, for the log, snapshots and the wire.

Owns which field is called what (docs/internals/entries.md has the list) and that each is of its
kind and within its bound. What is read may still be refused: `webhook_complaint` and
`key_complaint` say why a new one is not taken, on every replica in the same words.

Hashes of keys and secrets of webhooks are written only where the caller says so.
"""

from __future__ import annotations

import re
from typing import Any, Final

from unimeter import limits
from unimeter.canonical import Fields, line
from unimeter.control import (
    ACTIVE,
    PAUSED,
    POSITION_MAX,
    Actor,
    AuditRecord,
    Delivery,
    WebhookRecord,
    size_of,
)
from unimeter.errors import InvalidInputError
from unimeter.keys import KeyRecord, Scope

ID_CHARACTERS_MAX: Final = 64  # of what claims to be an id
ATTEMPTS_MAX: Final = 1_000_000
_HASH_BYTES: Final = 32
_KEY_ID: Final = re.compile(r"[a-z2-7]{12}")


# --- who -----------------------------------------------------------------------------


def actor_json(actor: Actor) -> dict[str, Any]:
    """An actor; empty fields are left out."""
    fields = {"key": actor.key, "name": actor.name, "via": actor.via, "address": actor.address}
    most = limits.AUDIT_TEXT_CHARACTERS_MAX
    return {name: line(text, most) for name, text in fields.items() if text}


def actor_of(found: object) -> Actor:
    """The actor that was written."""
    fields = Fields(found, "the actor")
    most = limits.AUDIT_TEXT_CHARACTERS_MAX
    actor = Actor(*(fields.text(name, most) for name in ("key", "name", "via", "address")))
    fields.finish()
    return actor


def actor_text(actor: Actor) -> str:
    """An actor for a sentence."""
    who = f"key {actor.key} ({actor.name})" if actor.key else actor.name or "somebody unknown"
    way = f" by {actor.via}" if actor.via else ""
    return f"{who}{way}{f' from {actor.address}' if actor.address else ''}"


def audit_json(record: AuditRecord) -> dict[str, Any]:
    """One line of the trail."""
    return {
        "index": record.index,
        "time": record.timestamp_ns,
        "actor": actor_json(record.actor),
        "action": record.action,
        "target": record.target,
        "result": record.result,
    }


def audit_of(found: object) -> AuditRecord:
    """The line that was written."""
    fields = Fields(found, "an audit record")
    most = limits.AUDIT_TEXT_CHARACTERS_MAX
    record = AuditRecord(
        fields.integer("index"),
        fields.integer("time"),
        actor_of(fields.take("actor")),
        fields.text("action", most),
        fields.text("target", most),
        fields.text("result", most),
    )
    fields.finish()
    return record


# --- keys ----------------------------------------------------------------------------


def key_json(record: KeyRecord, *, with_hashes: bool) -> dict[str, Any]:
    """A key's record, with what recognises it or without."""
    fields: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "scopes": list(record.scopes),
        "account": record.account,
        "metric": record.metric,
        "created": record.created_ns,
        "revoked": record.revoked_ns,
    }
    if with_hashes:
        fields["verifier"] = record.verifier.hex()
        fields["portal_secret"] = record.portal_secret.hex()
    return fields


def key_of(found: object) -> KeyRecord:
    """The record that was written; of its rules `key_complaint` tells."""
    fields = Fields(found, "the key")
    account, metric = fields.take("account"), fields.take("metric")
    if metric is not None and not isinstance(metric, str):
        raise fields.bad("metric", "a metric's code")
    record = KeyRecord(
        fields.text("id", ID_CHARACTERS_MAX),
        fields.text("name", limits.KEY_NAME_CHARACTERS_MAX),
        fields.items("scopes", len(Scope), _scope),
        fields.data("verifier", _HASH_BYTES),
        fields.data("portal_secret", _HASH_BYTES),
        None if account is None else fields.account(account, "account"),
        metric,
        fields.integer("created"),
        fields.integer("revoked"),
    )
    fields.finish()
    return record


def _scope(found: object, name: str) -> Scope:
    for scope in Scope:
        if scope == found:
            return scope
    raise InvalidInputError(f"the key: {name} are {', '.join(Scope)}")


def key_complaint(record: KeyRecord) -> str:
    """What is wrong with a new key, in words; empty if nothing is."""
    if not _KEY_ID.fullmatch(record.id):
        return "a key's id is 12 characters of a-z and 2-7"
    if not record.name:
        return f"a key needs a name of 1 to {limits.KEY_NAME_CHARACTERS_MAX} characters"
    if not record.scopes or list(record.scopes) != sorted(set(record.scopes)):
        return "a key needs scopes, each once and in the order of the alphabet"
    if not record.verifier or not record.portal_secret:
        return "a key's record needs both of its hashes"
    if Scope.ADMIN in record.scopes and (record.account is not None or record.metric is not None):
        return "a key with the scope admin can't be for one account or metric"
    if isinstance(record.account, str) and not 1 <= size_of(record.account) <= (
        limits.ACCOUNT_BYTES_MAX
    ):
        return f"an account has 1 to {limits.ACCOUNT_BYTES_MAX} bytes"
    if record.metric is not None and not 1 <= size_of(record.metric) <= (
        limits.METRIC_CODE_BYTES_MAX
    ):
        return f"a metric's code has 1 to {limits.METRIC_CODE_BYTES_MAX} bytes"
    return ""


# --- webhooks ------------------------------------------------------------------------


def webhook_json(record: WebhookRecord, *, with_secret: bool) -> dict[str, Any]:
    """A webhook's record, with its secret or without."""
    fields: dict[str, Any] = {
        "id": record.id,
        "url": record.url,
        "accounts": list(record.accounts),
        "metrics": list(record.metrics),
        "start": record.start,
        "created": record.created_ns,
        "state": record.state,
        "paused_reason": record.paused_reason,
    }
    if with_secret:
        fields["secret"] = record.secret
    return fields


def webhook_of(found: object) -> WebhookRecord:
    """The record that was written; of its rules `webhook_complaint` tells."""
    fields = Fields(found, "the webhook")
    start, state = fields.take("start"), fields.text("state", 16)
    if state not in (ACTIVE, PAUSED):
        raise fields.bad("state", f"{ACTIVE} or {PAUSED}")
    most = limits.WEBHOOK_FILTERS_MAX
    record = WebhookRecord(
        id=fields.text("id", ID_CHARACTERS_MAX),
        url=fields.text("url", limits.WEBHOOK_URL_BYTES_MAX),
        secret=fields.text("secret", ID_CHARACTERS_MAX * 2),
        accounts=fields.items("accounts", most, fields.account),
        metrics=fields.items("metrics", most, _metric),
        start=None if start is None else fields.number(start, "start", POSITION_MAX),
        created_ns=fields.integer("created"),
        state=state,
        paused_reason=fields.text("paused_reason", limits.WEBHOOK_REASON_CHARACTERS_MAX),
    )
    fields.finish()
    return record


def _metric(found: object, name: str) -> str:
    if not isinstance(found, str):
        raise InvalidInputError(f"the webhook: {name} are metrics' codes")
    return found


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """How far a webhook has come."""
    return {
        "through": delivery.through,
        "done": list(delivery.done),
        "attempts": [[at, *delivery.attempts[at]] for at in sorted(delivery.attempts)],
        "failures": delivery.failures,
        "error": delivery.error,
        "epoch": delivery.epoch,
        "updated": delivery.updated_ns,
    }


def delivery_of(found: object) -> Delivery:
    """What was written; `delivery_complaint` says whether it makes sense."""
    fields = Fields(found, "the delivery")
    attempts = fields.items("attempts", limits.DELIVERY_ATTEMPTS_MAX, _attempt)
    delivery = Delivery(
        through=fields.integer("through", POSITION_MAX),
        done=fields.items("done", limits.DELIVERY_DONE_MAX, _position),
        attempts={position: (count, next_ns) for position, count, next_ns in attempts},
        failures=fields.integer("failures", ATTEMPTS_MAX),
        error=fields.text("error", limits.WEBHOOK_REASON_CHARACTERS_MAX),
        epoch=fields.integer("epoch", POSITION_MAX),
        updated_ns=fields.integer("updated"),
    )
    fields.finish()
    if list(delivery.attempts) != sorted(position for position, _, _ in attempts):
        raise fields.bad("attempts", "ascending by position, each once")
    return delivery


def _position(found: object, name: str) -> int:
    return Fields({}, "the delivery").number(found, name, POSITION_MAX)


def _attempt(found: object, name: str) -> tuple[int, int, int]:
    if not isinstance(found, list) or len(found) != 3:
        raise InvalidInputError("the delivery: each of the attempts is [position, count, next]")
    read = Fields({}, "the delivery")
    position, count = read.number(found[0], name, POSITION_MAX), found[1]
    return position, read.number(count, name, ATTEMPTS_MAX), read.number(found[2], name)


def delivery_complaint(new: Delivery, old: Delivery, alerts: int) -> str:
    """What is wrong with progress from `old` to `new`, with so many alerts; empty if nothing."""
    if new.epoch != old.epoch:
        return "the webhook was replayed since; this progress is void"
    if not old.through <= new.through <= alerts:
        return "progress goes forward, up to the newest alert"
    ahead = list(new.done)
    if ahead != sorted(set(ahead)) or (ahead and not new.through < ahead[0]):
        return "what is done ahead lies above what is done, ascending, each once"
    tried = list(new.attempts)
    if tried and not new.through < tried[0]:
        return "what is tried again is not done"
    if (ahead and ahead[-1] > alerts) or (tried and tried[-1] > alerts):
        return "no alert has such a position yet"
    if any(position in new.attempts for position in ahead):
        return "what is tried again is not done"
    return ""
