"""Read and write the small values that messages are made of.

Owns bounds checking: every read names what it wanted, and a payload that is
too short, too long or not UTF-8 is a ``ProtocolError``, never an IndexError
or a silent cut. Refuses to know any message.

    text8   u8 length, then that many bytes of UTF-8
    account u8 kind: 0 = u64 follows, 1 = text8 follows, 2 = none
    i128    low u64, high i64

Rejected: one struct per message. Most messages hold strings, and a reader that
moves forward checks each of them in the one place.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from unimeter.errors import InvalidInputError
from unimeter.types import Account
from unimeter.wire.messages import ErrorCode, ProtocolError

Buffer = bytes | bytearray | memoryview

U8: Final = struct.Struct("<B")
U16: Final = struct.Struct("<H")
U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
I64: Final = struct.Struct("<q")
I128: Final = struct.Struct("<Qq")

_U64_MASK: Final = 2**64 - 1
_KIND_INTEGER: Final = 0
_KIND_STRING: Final = 1
_KIND_NONE: Final = 2


def split_i128(value: int, what: str) -> tuple[int, int]:
    """`value` as (low u64, high i64)."""
    if not -(2**127) <= value < 2**127:
        raise InvalidInputError(f"{what} {value} does not fit 128 bits")
    return value & _U64_MASK, value >> 64


def join_i128(low: int, high: int) -> int:
    """The number that ``split_i128`` took apart."""
    return (high << 64) | low


class Writer:
    """A payload that grows. `payload()` gives the bytes."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def pack(self, layout: struct.Struct, what: str, *values: object) -> None:
        """Append `values`; one that does not fit is the caller's mistake."""
        try:
            self._buffer += layout.pack(*values)
        except struct.error as error:
            raise InvalidInputError(f"{what} {values!r} can't be sent: {error}") from None

    def raw(self, data: Buffer) -> None:
        """Append bytes as they are."""
        self._buffer += data

    def u8(self, value: int, what: str) -> None:
        """Append a byte: a flag, a small count, an enumeration."""
        self.pack(U8, what, value)

    def u16(self, value: int, what: str) -> None:
        """Append an unsigned 16-bit number."""
        self.pack(U16, what, value)

    def u32(self, value: int, what: str) -> None:
        """Append an unsigned 32-bit number."""
        self.pack(U32, what, value)

    def blob8(self, data: bytes, what: str) -> None:
        """Append a length byte and `data`."""
        if len(data) > 255:
            raise InvalidInputError(f"{what} has {len(data)} bytes; the most is 255")
        self._buffer.append(len(data))
        self._buffer += data

    def text8(self, text: str, what: str) -> None:
        """Append a length byte and UTF-8."""
        try:
            self.blob8(text.encode("utf-8"), what)
        except (UnicodeEncodeError, AttributeError):
            raise InvalidInputError(f"{what} {text!r} is not text in valid Unicode") from None

    def account(self, account: Account | None) -> None:
        """Append an account, or none."""
        if account is None:
            self._buffer.append(_KIND_NONE)
        elif isinstance(account, str):
            self._buffer.append(_KIND_STRING)
            self.text8(account, "account")
        else:
            self._buffer.append(_KIND_INTEGER)
            self.pack(U64, "account", account)

    def payload(self) -> bytes:
        """All that was written."""
        return bytes(self._buffer)


class Reader:
    """A payload that is read once, front to back. Ends with ``finish()``."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: Buffer) -> None:
        self._data = bytes(data)
        self._position = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._position

    def unpack(self, layout: struct.Struct, what: str) -> tuple[Any, ...]:
        """Read one fixed layout."""
        start = self._position
        end = start + layout.size
        if end > len(self._data):
            raise self._short(what, layout.size)
        self._position = end
        return layout.unpack_from(self._data, start)

    def take(self, size: int, what: str) -> bytes:
        """Read `size` bytes."""
        start = self._position
        end = start + size
        if end > len(self._data):
            raise self._short(what, size)
        self._position = end
        return self._data[start:end]

    def u8(self, what: str) -> int:
        """Read a byte."""
        position = self._position
        if position >= len(self._data):
            raise self._short(what, 1)
        self._position = position + 1
        return self._data[position]

    def u16(self, what: str) -> int:
        """Read an unsigned 16-bit number."""
        return int(self.unpack(U16, what)[0])

    def u32(self, what: str) -> int:
        """Read an unsigned 32-bit number."""
        return int(self.unpack(U32, what)[0])

    def count(self, layout: struct.Struct, what: str, item_bytes_min: int) -> int:
        """Read a count, and check that so many items can follow at all.

        Without the check a 4-byte lie would make us reserve memory for
        four thousand million items.
        """
        number = int(self.unpack(layout, f"{what} count")[0])
        if number * item_bytes_min > self.remaining:
            raise ProtocolError(
                f"{number} {what} announced, which need at least {number * item_bytes_min} bytes, "
                f"and {self.remaining} bytes follow"
            )
        return number

    def blob8(self, what: str) -> bytes:
        """Read a length byte and that many bytes."""
        return self.take(self.u8(f"length of {what}"), what)

    def text8(self, what: str) -> str:
        """Read a length byte and UTF-8."""
        return decode_text(self.blob8(what), what)

    def flag(self, what: str) -> bool:
        """Read a byte that is 0 or 1."""
        value = self.u8(what)
        if value > 1:
            raise ProtocolError(f"{what} is {value}; expected 0 or 1")
        return value == 1

    def account_or_none(self) -> Account | None:
        """Read an account, or none."""
        kind = self.u8("account kind")
        if kind == _KIND_INTEGER:
            return int(self.unpack(U64, "account")[0])
        if kind == _KIND_STRING:
            return self.text8("account")
        if kind == _KIND_NONE:
            return None
        raise ProtocolError(f"account kind is {kind}; expected 0, 1 or 2")

    def account(self) -> Account:
        """Read an account that must be given."""
        account = self.account_or_none()
        if account is None:
            raise ProtocolError("no account given", ErrorCode.INVALID_INPUT)
        return account

    def finish(self) -> None:
        """Check that nothing follows."""
        if self.remaining:
            raise ProtocolError(
                f"{self.remaining} bytes follow the message, which ended at byte {self._position}"
            )

    def _short(self, what: str, size: int) -> ProtocolError:
        return ProtocolError(
            f"payload of {len(self._data)} bytes ends inside {what}: "
            f"{size} bytes expected at byte {self._position}, {self.remaining} found"
        )


def decode_text(data: bytes, what: str) -> str:
    """UTF-8, strictly."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from None
