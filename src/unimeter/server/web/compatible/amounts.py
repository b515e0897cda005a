"""Numbers and times as other products write them, as the integers that are counted.

Owns the one rule of amounts: what is counted is an integer, and nothing is rounded on the way.
``25``, ``25.0`` and ``"25"`` are 25; ``0.75`` is 75 where the mapping says ``scale = 2`` and is
refused where it does not. JSON's numbers are read as decimals (`exact_json`), never as
binary floats. A double of protobuf has no decimals of its own: it is taken for the shortest
decimal that names it, which is what its JSON form would say.

Raises `Refused` for one event: the others of its request go on.
"""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.instants import EXPECTED, NS_MAX, NS_MIN, parse_ns
from unimeter.server.web.call import decode
from unimeter.server.web.problems import bad
from unimeter.server.web.shapes import fault_of
from unimeter.types import Outcome

DIGITS_MAX: Final = 64  # of a number that could still be an amount
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
_INDEX: Final = re.compile(r"\[([0-9]{1,9})\]")
_MEMBER_BITS: Final = 63
_SHOWN_MAX: Final = 80


class Refused(Exception):
    """Why one event is not counted; `field` is the path of what is wrong."""

    def __init__(self, outcome: Outcome, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.outcome, self.reason, self.field = outcome, reason, field


def exact_json(data: bytes, kind: Any = Any) -> Any:
    """JSON whose fractions are decimals; a problem if it is none."""
    return decode(data, kind, float_hook=_decimal)


def checked(value: Any, kind: Any) -> Any:
    """Parsed JSON held against a `kind` (msgspec); a problem names the place."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        fault = fault_of(error, kind)
        index = _INDEX.search(fault.path)
        number = int(index[1]) if index else None
        raise bad(fault.path, fault.reason, fault.expected, number) from None


def _decimal(text: str) -> Decimal | str:
    """A fraction of JSON; one of absurd length stays text, which no amount may be."""
    try:
        return Decimal(text) if len(text) <= DIGITS_MAX else text
    except InvalidOperation:
        return text


def amount(value: Any, scale: int, field: str) -> int:
    """The integer that `value` stands for with `scale` decimals kept."""
    if type(value) is int and not scale and limits.VALUE_MIN <= value <= limits.VALUE_MAX:
        return value  # what most are, without the way through decimals
    number = _number(value, field)
    if not number:
        return 0
    if number.adjusted() + scale > DIGITS_MAX:
        raise Refused(Outcome.BAD_VALUE, f"{shown(value)} does not fit 64 bits", field)
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "finite"
    whole = int("".join(map(str, digits)))
    exponent += scale
    if exponent >= 0:
        found: int = whole * 10**exponent
    else:
        found, rest = divmod(whole, 10**-exponent)
        if rest:
            kept = f"with the {scale} decimals that its mapping keeps" if scale else "as it is"
            text = f"{shown(value)} is not a whole number {kept}; set a larger scale in the mapping"
            raise Refused(Outcome.BAD_VALUE, text, field)
    found = -found if sign else found
    if not limits.VALUE_MIN <= found <= limits.VALUE_MAX:
        raise Refused(Outcome.BAD_VALUE, f"{shown(value)} does not fit 64 bits", field)
    return found


def _number(value: Any, field: str) -> Decimal:
    text = str(value) if type(value) in (int, float, Decimal, str) else ""
    text = text if isinstance(value, str) else text.replace("E+", "e")
    if len(text) > DIGITS_MAX or not _NUMBER.fullmatch(text):
        raise Refused(Outcome.BAD_VALUE, f"{shown(value)} is not a number", field)
    return Decimal(text)


def shown(value: Any) -> str:
    """A value in the words of a reason, cut where it is long."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = repr(str(value) if isinstance(value, Decimal) else value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def member(value: Any) -> int:
    """The number of a member that has a name: 63 bits of its text's hash."""
    text = value if isinstance(value, str) else str(value)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _MEMBER_BITS)


def moment(value: Any, field: str) -> int:
    """Nanoseconds of RFC 3339 text, or of Unix seconds as a number or its digits."""
    if isinstance(value, str) and (value[4:5] == "-" or not _NUMBER.fullmatch(value)):
        try:
            return parse_ns(value)
        except InvalidInputError as error:
            raise Refused(Outcome.BAD_TIMESTAMP, str(error), field) from None
    try:
        found = amount(value, 9, field)
    except Refused:
        text = f"{shown(value)} is not {EXPECTED}, and not Unix seconds"
        raise Refused(Outcome.BAD_TIMESTAMP, text, field) from None
    return min(max(found, NS_MIN), NS_MAX)


def key(parts: list[str]) -> str:
    """The event key that one part or several make: itself where it fits, else a hash."""
    if (
        len(parts) == 1
        and 0 < len(parts[0].encode("utf-8", "surrogatepass")) <= limits.EVENT_ID_BYTES_MAX
    ):
        return parts[0]
    hashed = hashlib.blake2b(digest_size=24)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "big") + data)
    return "b2:" + hashed.hexdigest()


_canonical = msgspec.json.Encoder(order="sorted", decimal_format="string").encode


def canonical(value: Any) -> str:
    """JSON that is the same for equal values, for `key`."""
    return _canonical(value).decode()
