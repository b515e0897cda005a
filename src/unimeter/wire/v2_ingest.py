"""The batch of version 2: tables of what repeats, then one column per field.

Owns the bytes of the INGEST request, both ways, and of its response. The
request is written by the SDK for every batch, so it is built from whole
columns with ``struct`` and dictionaries and does little per event. It is read
here only by tests, tools and examples: the node's decode kernel reads it on its own.

    session_hi u64 | session_lo u64 | sequence u64 | events u32 | flags u32
    metrics u16 | accounts u16 | tagsets u16 | columns u16
    [default timestamp i64]  with flag 1: what events without a timestamp get
    tables    metrics, string accounts: text8 each; tagsets: u8 pairs, (text8, text8) each
    columns   account u64 | value i64 | [timestamp i64] | metric u16 | [tagset u16]
              | [operation u8] | [account kind u8] | [id length u8] | [id bytes]

A column in brackets is there when its bit of `columns` is set. A tagged event
with a 16-byte id costs 45 bytes and its share of the tables.

Refuses only what the layout can't hold (a value beyond 64 bits, a key of 300
bytes). What it can hold but the node will not count (a key of 40 bytes, a
timestamp of 1970) is sent: the node refuses that one event with a reason and
counts the rest.

Rejected: a varint encoding. It saves some 10 bytes per event and costs a
branch per field in the kernel and a Python call per field here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.types import Account, Event, check_integer
from unimeter.wire.codec import Buffer, Reader, Writer, decode_text
from unimeter.wire.messages import Ingest, IngestReply, IngestRow, ProtocolError

HAS_TIMESTAMPS: Final = 1
HAS_TAGSETS: Final = 2
HAS_OPERATIONS: Final = 4
HAS_IDS: Final = 8
HAS_ACCOUNT_KINDS: Final = 16
_COLUMNS_KNOWN: Final = 31
HAS_DEFAULT_TIMESTAMP: Final = 1  # a flag, not a column

REPLY_IS_REMEMBERED: Final = 1
REPLY_IS_INCOMPLETE: Final = 2

_HEAD: Final = struct.Struct("<QQQIIHHHH")
_SESSION: Final = struct.Struct("<QQQ")  # the first fields of the head
_DEFAULT: Final = struct.Struct("<q")
_REPLY: Final = struct.Struct("<QIIIHH")
_RUN: Final = struct.Struct("<I")
_RUN_LENGTH_MAX: Final = 2**24 - 1
_KIND_STRING: Final = 1

Pairs = tuple[tuple[str, str], ...]
_Item = TypeVar("_Item")


@dataclass(slots=True)
class Columns:
    """A batch turned on its side: one list per field, all of the same length."""

    accounts: Sequence[Account]
    metric_codes: Sequence[str]
    values: Sequence[int]
    timestamps_ns: Sequence[int] | None = None  # 0 = not given
    properties: Sequence[Pairs] | None = None
    operations: Sequence[int] | None = None
    ids: Sequence[str | None] | None = None
    default_timestamp_ns: int = 0  # for those without; 0 leaves it to the node


def encode_ingest(
    events: Sequence[Event],
    *,
    session_hi: int = 0,
    session_lo: int = 0,
    sequence: int = 0,
    default_timestamp_ns: int = 0,
) -> bytes:
    """The payload of an INGEST request.

    `default_timestamp_ns` is for events without a timestamp. A client sets it
    once, before the first attempt, so that a retry is the same bytes. It travels
    once per batch and apart from the events, because it is not part of what an
    event is: one with an id that is sent again later is a duplicate, where a
    time of its own would make it another event of the same id, a conflict.
    """
    return encode_columns(
        _columns_of_events(events, default_timestamp_ns), session_hi, session_lo, sequence
    )


def encode_ingest_request(request: Ingest) -> bytes:
    """The payload of `request`: rows as they came off the wire."""
    rows = request.rows
    columns = Columns(
        accounts=[row.account for row in rows],
        metric_codes=[row.metric_code for row in rows],
        values=[row.value for row in rows],
        timestamps_ns=[row.timestamp_ns for row in rows],
        properties=[row.properties for row in rows],
        operations=[row.operation for row in rows],
        ids=[row.id for row in rows],
        default_timestamp_ns=request.default_timestamp_ns,
    )
    return encode_columns(columns, request.session_hi, request.session_lo, request.sequence)


def encode_columns(
    columns: Columns, session_hi: int = 0, session_lo: int = 0, sequence: int = 0
) -> bytes:
    """The payload of an INGEST request, from columns.

    Raises InvalidInputError naming the event that the layout can't hold. The
    check runs only after packing failed, so that a good batch does not pay for it.
    """
    count = len(columns.values)
    if count > limits.EVENTS_PER_BATCH_MAX:
        raise InvalidInputError(
            f"a batch of {count} events; the most is {limits.EVENTS_PER_BATCH_MAX}: split it"
        )
    try:
        return _pack(columns, count, session_hi, session_lo, sequence)
    except InvalidInputError:
        raise
    except (struct.error, TypeError, ValueError, AttributeError) as error:
        _name_the_culprit(columns)
        raise InvalidInputError(f"the batch can't be sent: {error}") from None


def _pack(columns: Columns, count: int, session_hi: int, session_lo: int, sequence: int) -> bytes:
    """Build the tables while building the columns that point into them."""
    metrics: dict[str, int] = {}
    metric_column = [metrics.setdefault(code, len(metrics)) for code in columns.metric_codes]
    account_table: dict[str, int] = {}
    account_column, kinds = _account_columns(columns.accounts, account_table)
    tagsets: dict[Pairs, int] = {}
    tagset_column = _tagset_column(columns.properties, tagsets)
    timestamps = _unless_empty(columns.timestamps_ns)
    operations = _unless_empty(columns.operations)
    ids = _encode_ids(columns.ids or ())
    flags = (
        HAS_TIMESTAMPS * bool(timestamps)
        | HAS_TAGSETS * bool(tagset_column)
        | HAS_OPERATIONS * bool(operations)
        | HAS_IDS * bool(ids)
        | HAS_ACCOUNT_KINDS * bool(kinds)
    )
    tables = (len(metrics), len(account_table), len(tagsets))
    default = b""
    if columns.default_timestamp_ns and not (timestamps and all(timestamps)):
        default = _DEFAULT.pack(columns.default_timestamp_ns)
    return b"".join(
        (
            _HEAD.pack(session_hi, session_lo, sequence, count, bool(default), *tables, flags),
            default,
            _encode_texts(metrics, "metric code"),
            _encode_texts(account_table, "account"),
            _encode_tagsets(tagsets),
            struct.pack(f"<{count}Q", *account_column),
            struct.pack(f"<{count}q", *columns.values),
            struct.pack(f"<{len(timestamps)}q", *timestamps),
            struct.pack(f"<{count}H", *metric_column),
            struct.pack(f"<{len(tagset_column)}H", *tagset_column),
            bytes(operations),
            kinds,
            bytes(map(len, ids)),
            *ids,
        )
    )


def _unless_empty(column: Sequence[_Item] | None) -> Sequence[_Item]:
    """`column`, or nothing where no event has anything in it: then it is left out."""
    if column is None or not any(column):
        return ()
    return column


def _columns_of_events(events: Sequence[Event], default_timestamp_ns: int) -> Columns:
    values = [event.value for event in events]
    if set(map(type, values)) - {int}:
        for index, value in enumerate(values):
            check_integer(value, f"event {index}: value")
    return Columns(
        accounts=[event.account_id for event in events],
        metric_codes=[event.metric_code for event in events],
        values=values,
        timestamps_ns=[0 if event.timestamp is None else _given_ns(event) for event in events],
        properties=[tuple(event.properties.items()) for event in events],
        operations=[event.operation_type for event in events],
        ids=[event.id for event in events],
        default_timestamp_ns=default_timestamp_ns,
    )


def _given_ns(event: Event) -> int:
    """The event's own time. 1970-01-01 would read as "not given" and be counted as of
    now; one nanosecond later is refused as too old, which is what it is."""
    assert event.timestamp is not None
    return event.timestamp_ns() or 1  # a subclass may know more digits than a datetime


def _account_columns(
    accounts: Sequence[Account], table: dict[str, int]
) -> tuple[Sequence[Account], bytes]:
    """The account column with positions in `table` for strings, and the kind column.

    Without a string among them the accounts are the column and the kinds are left out.
    """
    if str not in set(map(type, accounts)):
        return accounts, b""
    column = [
        table.setdefault(account, len(table)) if isinstance(account, str) else account
        for account in accounts
    ]
    return column, bytes(isinstance(account, str) for account in accounts)


def _tagset_column(properties: Sequence[Pairs] | None, table: dict[Pairs, int]) -> list[int]:
    """Positions in `table` plus one, 0 for an event without properties."""
    return [
        table.setdefault(pairs, len(table) + 1) if pairs else 0
        for pairs in _unless_empty(properties)
    ]


def _encode_texts(texts: Iterable[str], what: str) -> bytes:
    writer = Writer()
    for text in texts:
        writer.text8(text, what)
    return writer.payload()


def _encode_tagsets(tagsets: Iterable[Pairs]) -> bytes:
    writer = Writer()
    for pairs in tagsets:
        writer.u8(len(pairs), "number of properties")
        for key, value in pairs:
            writer.text8(key, "property key")
            writer.text8(value, "property value")
    return writer.payload()


def _encode_ids(ids: Sequence[str | None]) -> list[bytes]:
    if "" in ids:
        raise InvalidInputError("an event's id is empty: give None or something unique")
    if not any(ids):
        return []
    encoded = [b"" if key is None else key.encode("utf-8") for key in ids]
    if max(map(len, encoded)) > 255:
        raise InvalidInputError("an event's id has more than 255 bytes; the node takes 64")
    return encoded


def _name_the_culprit(columns: Columns) -> None:
    """Say which event it was; called only after packing failed."""
    for index, account in enumerate(columns.accounts):
        if isinstance(account, str):
            continue
        check_integer(account, f"event {index}: account_id")
        if not 0 <= account < 2**64:
            raise InvalidInputError(f"event {index}: account_id {account} is not unsigned 64-bit")
    for index, value in enumerate(columns.values):
        check_integer(value, f"event {index}: value")
        if not limits.VALUE_MIN <= value <= limits.VALUE_MAX:
            raise InvalidInputError(f"event {index}: value {value} does not fit 64 bits")
    for index, operation in enumerate(columns.operations or ()):
        if not 0 <= operation <= 255:
            raise InvalidInputError(f"event {index}: operation_type {operation} is not 0 to 255")
    for index, pairs in enumerate(columns.properties or ()):
        for key, text in pairs:
            if not isinstance(key, str) or not isinstance(text, str):
                raise InvalidInputError(f"event {index}: property {key!r}: {text!r} is not text")
    for index, name in enumerate(columns.metric_codes):
        if not isinstance(name, str):
            raise InvalidInputError(f"event {index}: metric_code {name!r} is not text")
    for index, identity in enumerate(columns.ids or ()):
        if not isinstance(identity, str | None):
            raise InvalidInputError(f"event {index}: id {identity!r} is not text")


# --- reading -------------------------------------------------------------------


def decode_ingest(payload: Buffer, is_sync: bool = True) -> Ingest:
    """The request that `payload` holds; it must end exactly with its last column."""
    reader = Reader(payload)
    head = reader.unpack(_HEAD, "ingest head")
    session_hi, session_lo, sequence, count, flags, metric_count, account_count = head[:7]
    tagset_count, columns = head[7:]
    if flags & ~HAS_DEFAULT_TIMESTAMP:
        raise ProtocolError(f"ingest flags are {flags:#x}; expected 0 or 1")
    if columns & ~_COLUMNS_KNOWN:
        raise ProtocolError(f"ingest columns are {columns:#x}; bits above {_COLUMNS_KNOWN:#x} set")
    if max(metric_count, account_count, tagset_count) > count:
        raise ProtocolError(f"a table has more entries than the {count} events of the batch")
    default = 0
    if flags & HAS_DEFAULT_TIMESTAMP:
        (default,) = reader.unpack(_DEFAULT, "default timestamp")
    metrics = [reader.text8("metric code") for _ in range(metric_count)]
    accounts = [reader.text8("account") for _ in range(account_count)]
    tagsets = [_decode_tagset(reader) for _ in range(tagset_count)]

    account_column = _column(reader, "Q", count, True, "accounts")
    values = _column(reader, "q", count, True, "values")
    timestamps = _column(reader, "q", count, columns & HAS_TIMESTAMPS, "timestamps")
    metric_column = _column(reader, "H", count, True, "metric indexes")
    tagset_column = _column(reader, "H", count, columns & HAS_TAGSETS, "tagset indexes")
    operations = _column(reader, "B", count, columns & HAS_OPERATIONS, "operations")
    kinds = _column(reader, "B", count, columns & HAS_ACCOUNT_KINDS, "account kinds")
    id_lengths = _column(reader, "B", count, columns & HAS_IDS, "id lengths")

    rows = [
        IngestRow(
            account=_account_at(account_column[i], kinds[i], accounts),
            metric_code=_item_at(metrics, metric_column[i], "metric"),
            value=values[i],
            timestamp_ns=timestamps[i],
            operation=operations[i],
            properties=_item_at(tagsets, tagset_column[i] - 1, "tagset")
            if tagset_column[i]
            else (),
            id=decode_text(reader.take(id_lengths[i], "id"), "id") if id_lengths[i] else None,
        )
        for i in range(count)
    ]
    reader.finish()
    return Ingest(rows, session_hi, session_lo, sequence, is_sync, default)


def _column(reader: Reader, letter: str, count: int, is_there: int, what: str) -> Sequence[int]:
    """One column; zeros where it was left out."""
    width = struct.calcsize(f"<{letter}")
    if not is_there:
        return bytes(count)
    return struct.unpack(f"<{count}{letter}", reader.take(count * width, what))


def _decode_tagset(reader: Reader) -> Pairs:
    pairs = reader.u8("number of properties")
    return tuple(
        (reader.text8("property key"), reader.text8("property value")) for _ in range(pairs)
    )


def _item_at(table: list[_Item], index: int, what: str) -> _Item:
    if index >= len(table):
        raise ProtocolError(f"{what} {index} of a table of {len(table)}")
    return table[index]


def _account_at(number: int, kind: int, table: list[str]) -> Account:
    if kind == 0:
        return number
    if kind != _KIND_STRING:
        raise ProtocolError(f"account kind is {kind}; expected 0 or 1")
    return _item_at(table, number, "account")


def session_of(payload: Buffer) -> tuple[int, int, int] | None:
    """(session high, session low, sequence) of a batch; None if it has no session.

    Reads the head only: a forwarder asks whether it may send the batch again. A
    payload too short for a head has no session, and is refused by whoever decodes it.
    """
    if len(payload) < _HEAD.size:
        return None
    high, low, sequence = _SESSION.unpack_from(payload)
    return (high, low, sequence) if high or low else None


# --- the response --------------------------------------------------------------


def encode_ingest_reply(reply: IngestReply) -> bytes:
    """The response after its position."""
    flags = REPLY_IS_REMEMBERED * reply.is_remembered | REPLY_IS_INCOMPLETE * reply.is_incomplete
    head = _REPLY.pack(
        reply.last_offset, reply.stored, reply.duplicates, reply.refused, len(reply.runs), flags
    )
    return head + b"".join(_RUN.pack(outcome << 24 | length) for outcome, length in reply.runs)


def decode_ingest_reply(reader: Reader) -> IngestReply:
    """The response after its position."""
    last_offset, stored, duplicates, refused, run_count, flags = reader.unpack(
        _REPLY, "ingest reply"
    )
    words = struct.unpack(f"<{run_count}I", reader.take(4 * run_count, "outcome runs"))
    return IngestReply(
        stored=stored,
        duplicates=duplicates,
        last_offset=last_offset,
        refused=refused,
        runs=[(word >> 24, word & _RUN_LENGTH_MAX) for word in words],
        is_remembered=bool(flags & REPLY_IS_REMEMBERED),
        is_incomplete=bool(flags & REPLY_IS_INCOMPLETE),
    )
