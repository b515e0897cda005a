"""The kinds of log entry. Everything that changes state is one entry.

    NOOP            nothing: begins a leader's term, says "the time of the entry before"
    GENESIS         cluster id (16 bytes), hash key (16 bytes); the first entry of every log
    EVENTS          one turn's batches, written by `decode.EntryBuilder`
    METRIC_PUT      mode u8, schema (`catalog.encode_schema`)
    METRIC_DELETE   the code, UTF-8
    ADMIN           a change of what administrators make: JSON (`engine.changes`)
    ON_BEHALF       actor length u16, actor JSON, kind u8 (METRIC_PUT or METRIC_DELETE), its body

Numbers are for ever: a new meaning gets a new number. That NOOP is 0 makes no blank
log an entry: what an entry is, its header's magic says.
"""

from __future__ import annotations

from typing import Any, Final

from unimeter.canonical import dump, parse
from unimeter.control import Actor
from unimeter.control_json import actor_json, actor_of
from unimeter.errors import InvalidInputError

NOOP: Final = 0
GENESIS: Final = 1
EVENTS: Final = 2
METRIC_PUT: Final = 3
METRIC_DELETE: Final = 4
ADMIN: Final = 5
ON_BEHALF: Final = 6

NAMES: Final = {
    NOOP: "noop",
    GENESIS: "genesis",
    EVENTS: "events",
    METRIC_PUT: "metric",
    METRIC_DELETE: "delete",
    ADMIN: "admin",
    ON_BEHALF: "on behalf",
}

_WRAPPED: Final = (METRIC_PUT, METRIC_DELETE)
_BAD_ON_BEHALF: Final = "the change does not say whose it is"
_PUT_CODE: Final = 15  # of a METRIC_PUT: after the mode and the definition's fixed fields


def genesis_body(cluster_id: bytes, hash_key: bytes) -> bytes:
    """The body of the first entry. `hash_key` must come from a secret random source."""
    assert len(cluster_id) == 16 and len(hash_key) == 16
    return cluster_id + hash_key


def next_offset_of(body: bytes | memoryview) -> int:
    """The offset of the first event after this EVENTS entry: its own first one and its count."""
    return int.from_bytes(body[40:48], "little") + int.from_bytes(body[8:12], "little")


def admin_body(operation: str, actor: Actor, **fields: Any) -> bytes:
    """The body of an ADMIN entry; `engine.changes` lists the operations and their fields."""
    return dump({"op": operation, "actor": actor_json(actor), **fields})


def on_behalf_body(actor: Actor, kind: int, body: bytes) -> bytes:
    """The body of an ON_BEHALF entry: a change of the catalog, and whose it is."""
    assert kind in _WRAPPED
    who = dump(actor_json(actor))
    return len(who).to_bytes(2, "little") + who + bytes([kind]) + body


def parse_on_behalf(body: bytes) -> tuple[Actor, int, bytes]:
    """(actor, kind, body) of what `on_behalf_body` made; InvalidInputError if it did not."""
    end = 2 + int.from_bytes(body[:2], "little")
    if len(body) <= end or body[end] not in _WRAPPED:
        raise InvalidInputError(_BAD_ON_BEHALF)
    return actor_of(parse(body[2:end])), body[end], body[end + 1 :]


def code_of_put(body: bytes) -> str:
    """The code that a METRIC_PUT names, as well as it can be read."""
    at = _PUT_CODE + 1
    return body[at : at + int.from_bytes(body[_PUT_CODE:at], "little")].decode("utf-8", "replace")
