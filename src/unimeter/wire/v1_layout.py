"""The fixed fields of version 1, and what they can't hold.

Owns the layouts that requests and responses share: NUL-padded text, the total,
the alert record. A text field is cut at its first NUL; the bytes before it must be
UTF-8. What does not fit a field on the way out is an error with the limit in it,
never a silent cut: two values cut to the same 32 bytes would become one.

v1 numbers are unsigned where ours are signed. A negative total goes out as its
two's complement, the sum over both of its words.
"""

from __future__ import annotations

import struct
from typing import Final

from unimeter.errors import InvalidInputError
from unimeter.types import Account, AggValue
from unimeter.wire.codec import decode_text, join_i128, split_i128
from unimeter.wire.messages import AlertRow, ErrorCode, ProtocolError

CODE_BYTES: Final = 64
KEY_BYTES: Final = 32
VALUE_BYTES: Final = 64
ADDRESS_BYTES: Final = 24
FILTER_VALUES_MAX: Final = 8
BREAKDOWN_KEYS_MAX: Final = 4

INGEST_HEAD: Final = struct.Struct("<II")
EVENT: Final = struct.Struct("<64sQqQBB6x")
PROPERTY: Final = struct.Struct("<32s64s")
INGEST_REPLY: Final = struct.Struct("<IIQ")
METRIC: Final = struct.Struct("<64sBBBx64s")
FILTER: Final = struct.Struct("<32sB3x256s")
THRESHOLD: Final = struct.Struct("<32sQB7x")
COUNT: Final = struct.Struct("<B7x")
PERIOD: Final = struct.Struct("<BB6x")
CODE: Final = struct.Struct("<64s")
QUERY: Final = struct.Struct("<Qqq64sB7x")
REALTIME: Final = struct.Struct("<Q64s")
EVENTS_LIST: Final = struct.Struct("<Qqq")
ALERTS_LIST: Final = struct.Struct("<QQ")
KEY: Final = struct.Struct("<32s")
VALUE: Final = struct.Struct("<QQQQQqQ")
EVENT_RECORD: Final = struct.Struct("<QqQ64sQB7x")
ALERT_RECORD: Final = struct.Struct("<QQ64s32sQq8x")
PUSH_NODE: Final = struct.Struct("<B7x")
BREAKDOWN_HEAD: Final = struct.Struct("<B7x")
ROUTE: Final = struct.Struct("<24s24s24s24x")
NODE: Final = struct.Struct("<BB6xQQQq")
NODE_PARTITION: Final = struct.Struct("<IHBB")

U64_MASK: Final = 2**64 - 1
_I64_SIGN: Final = 2**63


def field(text: str, size: int, what: str) -> bytes:
    """`text` NUL-padded to `size` bytes; one that is longer is refused.

    A text that fills its field has no NUL behind it. That is legal, and so is
    every reader of ours; the published client sends one byte less at most.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError(f"{what} {text!r} is not valid Unicode text") from None
    if len(data) > size:
        raise InvalidInputError(
            f"{what} {text!r} has {len(data)} bytes; version 1 of the protocol carries {size}"
        )
    return data.ljust(size, b"\0")


def text_of(data: bytes, what: str) -> str:
    """The text of a NUL-padded field."""
    return decode_text(data.split(b"\0", 1)[0], what)


def address_field(address: str) -> bytes:
    """A ``host:port``. Its last byte stays NUL: clients of v1 look for the NUL."""
    if len(address.encode("utf-8", "replace")) >= ADDRESS_BYTES:
        raise InvalidInputError(
            f"address {address!r} is longer than the {ADDRESS_BYTES - 1} bytes that version 1 of "
            "the protocol carries; advertise a shorter name or an IPv4 address"
        )
    return field(address, ADDRESS_BYTES, "address")


def integer_account(account: Account) -> int:
    """`account`, which v1 can only name if it is an integer."""
    if not isinstance(account, int) or not 0 <= account <= U64_MASK:
        raise InvalidInputError(
            f"account {account!r} is not an unsigned 64-bit integer; "
            "string accounts need version 2 of the protocol"
        )
    return account


def signed(number: int, what: str) -> int:
    """A u64 that must also fit our signed 64 bits."""
    if number >= _I64_SIGN:
        raise ProtocolError(f"{what} {number} does not fit 63 bits", ErrorCode.INVALID_INPUT)
    return number


def from_complement(number: int) -> int:
    """The signed number whose two's complement is the u64 `number`."""
    return number - 2**64 if number >= _I64_SIGN else number


def put_value(value: AggValue) -> bytes:
    """The seven words of a total."""
    low, high = split_i128(value.sum, "sum")
    return VALUE.pack(
        low,
        high & U64_MASK,
        value.count,
        value.max & U64_MASK,
        value.last_value & U64_MASK,
        value.last_timestamp,
        value.alert_flags,
    )


def get_value(data: bytes, position: int = 0) -> AggValue:
    """The total at `position`."""
    low, high, count, most, last, last_ns, flags = VALUE.unpack_from(data, position)
    return AggValue(
        sum=join_i128(low, from_complement(high)),
        count=count,
        max=from_complement(most),
        last_value=from_complement(last),
        last_timestamp=last_ns,
        alert_flags=flags,
    )


def put_alert(alert: AlertRow) -> bytes:
    """The 136 bytes of an alert. A crossing beyond 64 bits shows the nearest number."""
    crossing = max(-_I64_SIGN, min(alert.value, U64_MASK)) & U64_MASK
    return ALERT_RECORD.pack(
        alert.offset,
        integer_account(alert.account),
        field(alert.metric_code, CODE_BYTES, "metric code"),
        field(alert.threshold_code, KEY_BYTES, "threshold code"),
        crossing,
        alert.timestamp_ns,
    )


def get_alert(data: bytes, position: int = 0) -> AlertRow:
    """The alert at `position`. v1 has neither the alert's position nor its direction."""
    offset, account, code, threshold, crossing, timestamp_ns = ALERT_RECORD.unpack_from(
        data, position
    )
    return AlertRow(
        offset=offset,
        account=account,
        metric_code=text_of(code, "metric code"),
        threshold_code=text_of(threshold, "threshold code"),
        value=from_complement(crossing),
        timestamp_ns=timestamp_ns,
    )


def rows_of(payload: bytes, layout: struct.Struct, what: str) -> range:
    """Where each row of a list starts; the payload must be whole rows."""
    if len(payload) % layout.size:
        raise ProtocolError(
            f"{what} of {len(payload)} bytes is not a whole number of {layout.size}-byte rows"
        )
    return range(0, len(payload), layout.size)


def expect_size(payload: bytes, size: int, what: str) -> None:
    """Refuse a payload of another length."""
    if len(payload) != size:
        raise ProtocolError(f"{what} has {len(payload)} bytes; expected {size}")
