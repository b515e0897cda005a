"""ON_BEHALF: a request that a node sends on, together with who made it.

    actor length u16 | actor, JSON | packet type u8 | the request's own payload

Its answer is that of the request inside. Only a node may send one: `server.connection` refuses
it from a client, and the actor of any other request is who is logged in.

Rejected: a field for the actor in each request. A client could fill it in, and each node would
have to remember to empty it.
"""

from __future__ import annotations

from typing import Final

from unimeter.canonical import dump, parse
from unimeter.control import Actor
from unimeter.control_json import actor_json, actor_of
from unimeter.errors import InvalidInputError
from unimeter.wire.codec import Buffer, Reader, Writer
from unimeter.wire.messages import PacketType, ProtocolError

WITH_ACTOR: Final = frozenset(
    {
        PacketType.METRIC_PUT,
        PacketType.METRIC_DELETE,
        PacketType.TRANSFER_LEADER,
        PacketType.KEY_PUT,
        PacketType.KEY_REVOKE,
        PacketType.WEBHOOK_PUT,
        PacketType.WEBHOOK_DELETE,
        PacketType.WEBHOOK_CONTROL,
    }
)
"""Requests of which the trail says who made them: what ON_BEHALF may hold."""


def encode_on_behalf(actor: Actor, packet_type: int, payload: Buffer) -> bytes:
    """The payload of ON_BEHALF: a request's own payload, and who made it."""
    assert packet_type in WITH_ACTOR
    writer = Writer()
    who = dump(actor_json(actor))
    writer.u16(len(who), "length of the actor")
    writer.raw(who)
    writer.u8(packet_type, "packet type")
    writer.raw(payload)
    return writer.payload()


def decode_on_behalf(payload: Buffer) -> tuple[Actor, int, bytes]:
    """(actor, packet type, payload) of the request inside; ProtocolError if there is none."""
    reader = Reader(payload)
    who = reader.take(reader.u16("length of the actor"), "actor")
    packet_type = reader.u8("packet type")
    if packet_type not in WITH_ACTOR:
        raise ProtocolError(f"packet type {packet_type:#04x} is not made on behalf of anybody")
    try:
        actor = actor_of(parse(who))
    except InvalidInputError as error:
        raise ProtocolError(str(error)) from None
    return actor, packet_type, reader.take(reader.remaining, "request")


def packet_type_on_behalf(payload: Buffer) -> int:
    """The packet type of the request inside; -1 if there is none."""
    view = memoryview(payload)
    at = 2 + int.from_bytes(view[:2], "little")
    return view[at] if at < len(view) else -1
