"""Keys, webhooks and the trail: what each request about them means.

Owns the handlers of these requests, and what the leader itself writes about them: how far
deliveries have come, and lines of the trail for what is no change of the state.

    KeyPut ... WebhookControl ─> an ADMIN entry, with who asked ─> applied ─> Done, or a refusal
    KeyList, WebhookList, AuditList ─> the applied state, without hashes and secrets

A change is refused when its entry is applied and nowhere before: only there is known what else
was changed meanwhile. Whose it is, the request says (`actor`), which the connection has set.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from unimeter import limits
from unimeter.control import UNKNOWN, Actor, Delivery, Webhook
from unimeter.control_json import delivery_json, key_json, webhook_json
from unimeter.engine import entries
from unimeter.engine.applied import Applied
from unimeter.errors import BackpressureError, InvalidInputError
from unimeter.server.answering import Done, check_read, propose
from unimeter.server.node import Node
from unimeter.wire import messages as m

# --- changes -----------------------------------------------------------------------


def _body(request: m.Administration, operation: str, **fields: Any) -> bytes:
    body = entries.admin_body(operation, request.actor or UNKNOWN, **fields)
    if len(body) > limits.ADMIN_BODY_BYTES_MAX:
        raise InvalidInputError(
            f"the change has {len(body)} bytes; at most {limits.ADMIN_BODY_BYTES_MAX} are allowed"
        )
    return body


def _key_put(node: Node, request: m.KeyPut, done: Done) -> None:
    body = _body(request, "key.put", key=key_json(request.record, with_hashes=True))
    propose(node, entries.ADMIN, body, done)


def _key_revoke(node: Node, request: m.KeyRevoke, done: Done) -> None:
    propose(node, entries.ADMIN, _body(request, "key.revoke", id=request.id), done)


def _webhook_put(node: Node, request: m.WebhookPut, done: Done) -> None:
    body = _body(request, "webhook.put", webhook=webhook_json(request.record, with_secret=True))
    propose(node, entries.ADMIN, body, done, _as_kept)


def _as_kept(applied: Applied) -> m.Response:
    """The webhook with its secret, as it begins."""
    record = applied.webhook
    assert record is not None and record.start is not None, "an accepted put has its webhook"
    delivery = Delivery(through=record.start, updated_ns=record.created_ns)
    return m.WebhookPutReply(Webhook(record, delivery))


def _webhook_delete(node: Node, request: m.WebhookDelete, done: Done) -> None:
    propose(node, entries.ADMIN, _body(request, "webhook.delete", id=request.id), done)


def _webhook_control(node: Node, request: m.WebhookControl, done: Done) -> None:
    body = _body(
        request,
        "webhook.control",
        id=request.id,
        action=request.action.name.lower(),
        after=request.after,
        reason=request.reason,
    )
    propose(node, entries.ADMIN, body, done)


# --- reads -------------------------------------------------------------------------


def _key_list(node: Node, request: m.KeyList, done: Done) -> m.Response:
    check_read(node, request)
    keys = node.machine.administration.keys.values()
    return m.KeyListReply([replace(key, verifier=b"", portal_secret=b"") for key in keys])


def _webhook_list(node: Node, request: m.WebhookList, done: Done) -> m.Response:
    check_read(node, request)
    state = node.machine.administration
    return m.WebhookListReply(
        [
            Webhook(replace(record, secret=""), state.deliveries[ident])
            for ident, record in state.webhooks.items()
        ]
    )


def _audit_list(node: Node, request: m.AuditList, done: Done) -> m.Response:
    check_read(node, request, limits.AUDIT_RECORDS_MAX)
    records, more = node.machine.administration.trail(request.before, request.limit)
    return m.AuditListReply(records, more)


HANDLERS: Final[dict[type, Callable[[Node, Any, Done], m.Response | None]]] = {
    m.KeyPut: _key_put,
    m.KeyRevoke: _key_revoke,
    m.KeyList: _key_list,
    m.WebhookPut: _webhook_put,
    m.WebhookDelete: _webhook_delete,
    m.WebhookList: _webhook_list,
    m.WebhookControl: _webhook_control,
    m.AuditList: _audit_list,
}


# --- what the leader writes by itself --------------------------------------------------


def propose_progress(
    node: Node,
    webhook_id: str,
    delivery: Delivery,
    done: Callable[[Applied | BackpressureError, int], None],
) -> None:
    """Write how far a webhook has come; `done` hears whether it stands.

    Refused, with nothing changed, if the webhook is gone, or was replayed after `delivery` was
    made (its `epoch` is another), or if it goes back. Raises BackpressureError where nothing
    can be proposed.
    """
    fields = {**delivery_json(delivery), "updated": 0}  # the log's clock says when
    body = entries.admin_body("webhook.progress", UNKNOWN, id=webhook_id, delivery=fields)
    node.propose(entries.ADMIN, body, done)


def note(node: Node, actor: Actor | None, action: str, target: str) -> None:
    """Add a line to the trail for what is no change of the state.

    It may be lost: with the lead, or where nothing can be written. What it tells of does not
    wait for it; a full disk is a reason to hand over the lead.
    """
    body = entries.admin_body("note", actor or UNKNOWN, action=action, target=target)
    with suppress(BackpressureError):
        node.propose(entries.ADMIN, body, lambda applied, index: None)


def on_behalf(actor: Actor | None, kind: int, body: bytes) -> tuple[int, bytes]:
    """(kind, body) of the entry that changes the catalog, with who asked if that is known."""
    if actor is None:
        return kind, body
    return entries.ON_BEHALF, entries.on_behalf_body(actor, kind, body)
