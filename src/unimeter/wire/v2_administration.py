"""Keys, webhooks and the trail in version 2.

Owns packet types 0x50-0x57: JSON in one text, because these messages are few, are read by
people, and grow with the product.

    request     [reads: min_position u64 | flags u8 |]  text32: one JSON object
    response    position u64 | text32: one JSON object       (a plain "done": position only)
    text32      u32 length, then that many bytes of UTF-8

A key's hashes travel one way, to the node; a webhook's secret comes back once, to whoever
creates it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from unimeter import limits
from unimeter.canonical import Fields, dump, parse
from unimeter.control import POSITION_MAX, Webhook
from unimeter.control_json import (
    ID_CHARACTERS_MAX,
    audit_json,
    audit_of,
    delivery_json,
    delivery_of,
    key_json,
    key_of,
    webhook_json,
    webhook_of,
)
from unimeter.errors import InvalidInputError
from unimeter.wire.codec import Reader, Writer
from unimeter.wire.messages import (
    AuditList,
    AuditListReply,
    Done,
    ErrorCode,
    KeyList,
    KeyListReply,
    KeyPut,
    KeyRevoke,
    PacketType,
    ProtocolError,
    WebhookAction,
    WebhookControl,
    WebhookDelete,
    WebhookList,
    WebhookListReply,
    WebhookPut,
    WebhookPutReply,
)
from unimeter.wire.v2_read import get_read, put_read

_REPLY_DEPTH_MAX: Final = 8  # a list of webhooks, each with its deliveries' attempts

Put = Callable[[Writer, Any], None]
Get = Callable[[Reader], Any]


# --- the text ----------------------------------------------------------------------


def _put_text(writer: Writer, fields: dict[str, Any]) -> None:
    data = dump(fields)
    writer.u32(len(data), "length of the text")
    writer.raw(data)


def _get_text(reader: Reader, what: str, depth_max: int, bytes_max: int) -> Fields:
    length = reader.u32("length of the text")
    if length > bytes_max:
        raise ProtocolError(f"the text may have {bytes_max} bytes", ErrorCode.TOO_LARGE)
    return Fields(parse(reader.take(length, "text"), depth_max), what)


def _request(reader: Reader, what: str) -> Fields:
    return _get_text(reader, what, limits.ADMIN_DEPTH_MAX, limits.ADMIN_BODY_BYTES_MAX)


def _reply(reader: Reader) -> Fields:
    return _get_text(reader, "the reply", _REPLY_DEPTH_MAX, limits.FRAME_BYTES_MAX)


def _refused_as_protocol(get: Get) -> Get:
    """A bad field is a mistake of whoever sent the message."""

    def read(reader: Reader) -> Any:
        try:
            return get(reader)
        except ProtocolError:
            raise
        except InvalidInputError as error:
            raise ProtocolError(str(error), ErrorCode.INVALID_INPUT) from None

    return read


# --- requests ----------------------------------------------------------------------


def _put_key(writer: Writer, request: KeyPut) -> None:
    _put_text(writer, {"key": key_json(request.record, with_hashes=True)})


def _get_key(reader: Reader) -> KeyPut:
    fields = _request(reader, "the request")
    request = KeyPut(key_of(fields.take("key")))
    fields.finish()
    return request


def _put_id(writer: Writer, request: KeyRevoke | WebhookDelete) -> None:
    _put_text(writer, {"id": request.id})


def _get_id(reader: Reader) -> str:
    fields = _request(reader, "the request")
    ident = fields.text("id", ID_CHARACTERS_MAX)
    fields.finish()
    return ident


def _put_webhook(writer: Writer, request: WebhookPut) -> None:
    _put_text(writer, {"webhook": webhook_json(request.record, with_secret=True)})


def _get_webhook(reader: Reader) -> WebhookPut:
    fields = _request(reader, "the request")
    request = WebhookPut(webhook_of(fields.take("webhook")))
    fields.finish()
    return request


def _put_control(writer: Writer, request: WebhookControl) -> None:
    _put_text(
        writer,
        {
            "id": request.id,
            "action": WebhookAction(request.action).name.lower(),
            "after": request.after,
            "reason": request.reason,
        },
    )


def _get_control(reader: Reader) -> WebhookControl:
    fields = _request(reader, "the request")
    action = fields.text("action", ID_CHARACTERS_MAX).upper()
    if action not in WebhookAction.__members__:
        raise fields.bad("action", "pause, resume or replay")
    request = WebhookControl(
        fields.text("id", ID_CHARACTERS_MAX),
        WebhookAction[action],
        fields.integer("after", POSITION_MAX),
        fields.text("reason", limits.WEBHOOK_REASON_CHARACTERS_MAX),
    )
    fields.finish()
    return request


def _put_list(writer: Writer, request: KeyList | WebhookList) -> None:
    put_read(writer, request)
    _put_text(writer, {})


def _get_list(kind: type[KeyList] | type[WebhookList]) -> Get:
    def read(reader: Reader) -> KeyList | WebhookList:
        request = kind(**get_read(reader))
        _request(reader, "the request").finish()
        return request

    return read


def _put_audit(writer: Writer, request: AuditList) -> None:
    put_read(writer, request)
    _put_text(writer, {"before": request.before, "limit": request.limit})


def _get_audit(reader: Reader) -> AuditList:
    read = get_read(reader)
    fields = _request(reader, "the request")
    request = AuditList(fields.integer("before"), fields.integer("limit"), **read)
    fields.finish()
    return request


REQUESTS: Final[dict[int, tuple[type, Put, Get]]] = {
    kind: (message, put, _refused_as_protocol(get))
    for kind, message, put, get in (
        (PacketType.KEY_PUT, KeyPut, _put_key, _get_key),
        (PacketType.KEY_REVOKE, KeyRevoke, _put_id, lambda reader: KeyRevoke(_get_id(reader))),
        (PacketType.KEY_LIST, KeyList, _put_list, _get_list(KeyList)),
        (PacketType.WEBHOOK_PUT, WebhookPut, _put_webhook, _get_webhook),
        (
            PacketType.WEBHOOK_DELETE,
            WebhookDelete,
            _put_id,
            lambda reader: WebhookDelete(_get_id(reader)),
        ),
        (PacketType.WEBHOOK_LIST, WebhookList, _put_list, _get_list(WebhookList)),
        (PacketType.WEBHOOK_CONTROL, WebhookControl, _put_control, _get_control),
        (PacketType.AUDIT_LIST, AuditList, _put_audit, _get_audit),
    )
}


# --- responses ----------------------------------------------------------------------


def _put_done(writer: Writer, reply: Done) -> None:
    """Nothing beside the position."""


def _put_keys(writer: Writer, reply: KeyListReply) -> None:
    _put_text(writer, {"keys": [key_json(key, with_hashes=False) for key in reply.keys]})


def _get_keys(reader: Reader) -> KeyListReply:
    fields = _reply(reader)
    keys = fields.items("keys", limits.KEYS_MAX, lambda found, _: key_of(found))
    fields.finish()
    return KeyListReply(list(keys))


def _put_created(writer: Writer, reply: WebhookPutReply) -> None:
    _put_text(writer, _webhook(reply.webhook, with_secret=True))


def _get_created(reader: Reader) -> WebhookPutReply:
    return WebhookPutReply(_webhook_of(_reply(reader)))


def _put_webhooks(writer: Writer, reply: WebhookListReply) -> None:
    found = [_webhook(webhook, with_secret=False) for webhook in reply.webhooks]
    _put_text(writer, {"webhooks": found})


def _get_webhooks(reader: Reader) -> WebhookListReply:
    fields = _reply(reader)
    webhooks = fields.items(
        "webhooks", limits.WEBHOOKS_MAX, lambda found, _: _webhook_of(Fields(found, "a webhook"))
    )
    fields.finish()
    return WebhookListReply(list(webhooks))


def _webhook(webhook: Webhook, *, with_secret: bool) -> dict[str, Any]:
    return {
        "webhook": webhook_json(webhook.record, with_secret=with_secret),
        "delivery": delivery_json(webhook.delivery),
    }


def _webhook_of(fields: Fields) -> Webhook:
    webhook = Webhook(webhook_of(fields.take("webhook")), delivery_of(fields.take("delivery")))
    fields.finish()
    return webhook


def _put_trail(writer: Writer, reply: AuditListReply) -> None:
    records = [audit_json(record) for record in reply.records]
    _put_text(writer, {"records": records, "more": int(reply.more)})


def _get_trail(reader: Reader) -> AuditListReply:
    fields = _reply(reader)
    records = fields.items("records", limits.AUDIT_RECORDS_MAX, lambda found, _: audit_of(found))
    reply = AuditListReply(list(records), fields.integer("more", 1) == 1)
    fields.finish()
    return reply


RESPONSES: Final[dict[int, tuple[type, Put, Get]]] = {
    kind: (message, put, _refused_as_protocol(get))
    for kind, message, put, get in (
        (PacketType.KEY_PUT, Done, _put_done, lambda reader: Done()),
        (PacketType.KEY_REVOKE, Done, _put_done, lambda reader: Done()),
        (PacketType.KEY_LIST, KeyListReply, _put_keys, _get_keys),
        (PacketType.WEBHOOK_PUT, WebhookPutReply, _put_created, _get_created),
        (PacketType.WEBHOOK_DELETE, Done, _put_done, lambda reader: Done()),
        (PacketType.WEBHOOK_LIST, WebhookListReply, _put_webhooks, _get_webhooks),
        (PacketType.WEBHOOK_CONTROL, Done, _put_done, lambda reader: Done()),
        (PacketType.AUDIT_LIST, AuditListReply, _put_trail, _get_trail),
    )
}
