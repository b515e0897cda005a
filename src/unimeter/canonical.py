"""JSON with one spelling, read without trust: the form of what administrators make.

Owns the bytes, and the shape of each noun in them, for the log, for snapshots and for the wire:

    dump({...})      sorted keys, no spaces, UTF-8, integers only
    parse(bytes)     the object, or InvalidInputError: never another exception, however bad
    Fields(object)   its fields one by one, each of a stated kind and bound; none may be left

Bodies come from the log, so that every replica must say the same of them, on whatever Python it
runs. That is why nothing here repeats a library's words, why numbers are bounded before they are
converted (the interpreter's own bound is a setting of the process), and nesting before it is
parsed (the parser's is the depth of the stack). What is not spelled as `dump` would spell it is
refused, which also catches fields that are given twice.

Rejected: structs, as in the other entries. These change with the product, are few, and people
read them in `unimeter inspect`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.types import Account

NUMBER_MAX: Final = 2**64 - 1
_DIGITS_MAX: Final = 20  # of a number of 64 bits
_NOT_CANONICAL: Final = "the body is not JSON as this version writes it"
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKET: Final = re.compile(rb"[^\[\]{}]+")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")

T = TypeVar("T")


def dump(fields: Mapping[str, Any]) -> bytes:
    """The one spelling of an object; InvalidInputError for a text that is no Unicode."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("a text holds half a character") from None


def parse(data: bytes, depth_max: int = limits.ADMIN_DEPTH_MAX) -> dict[str, Any]:
    """The object that `dump` wrote as `data`."""
    if _depth(data) > depth_max:
        raise InvalidInputError(_NOT_CANONICAL)
    try:
        found = json.loads(
            data.decode("utf-8"),
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
        if isinstance(found, dict) and dump(found) == data:
            return found
    except ValueError:  # UnicodeDecodeError, JSONDecodeError and InvalidInputError are such
        pass
    raise InvalidInputError(_NOT_CANONICAL)


def line(text: str, characters_max: int) -> str:
    """`text` as `Fields.text` takes it: cut, without control characters and half characters."""
    whole = text[:characters_max].encode("utf-8", "replace").decode()
    return _CONTROL.sub(" ", whole)


def _depth(data: bytes) -> int:
    """How deep brackets nest outside of texts."""
    depth = deepest = 0
    for byte in _NO_BRACKET.sub(b"", _TEXT.sub(b"", data)):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _DIGITS_MAX:
        raise ValueError("more than 64 bits")
    return int(digits)


def _no_number(text: str) -> Any:
    raise ValueError("not an integer")


class Fields:
    """An object's fields, taken one by one."""

    def __init__(self, found: object, what: str) -> None:
        """`what` begins the sentence of a refusal."""
        if not isinstance(found, dict):
            raise InvalidInputError(f"{what} is not an object")
        self._left = dict(found)
        self._what = what

    def take(self, name: str) -> Any:
        """A field of any kind, null where it is not given."""
        return self._left.pop(name, None)

    def text(self, name: str, characters_max: int, least: int = 0) -> str:
        """A text of one line."""
        found = self._left.pop(name, "")
        if not isinstance(found, str) or not least <= len(found) <= characters_max:
            raise self.bad(name, f"a text of {least} to {characters_max} characters")
        if _CONTROL.search(found):
            raise self.bad(name, "a text without control characters")
        return found

    def integer(self, name: str, most: int = NUMBER_MAX) -> int:
        """A number from 0 up; 0 where it is not given."""
        return self.number(self._left.pop(name, 0), name, most)

    def number(self, found: object, name: str, most: int = NUMBER_MAX) -> int:
        """`found` as a number from 0 to `most`."""
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= most:
            raise self.bad(name, f"a whole number from 0 to {most}")
        return found

    def data(self, name: str, size: int) -> bytes:
        """So many bytes in lower-case hex, or none at all."""
        found = self._left.pop(name, "")
        if not isinstance(found, str) or not re.fullmatch(f"([0-9a-f]{{{2 * size}}})?", found):
            raise self.bad(name, f"{size} bytes in hex")
        return bytes.fromhex(found)

    def account(self, found: object, name: str) -> Account:
        """`found` as an account."""
        if isinstance(found, str) and len(found) <= limits.ACCOUNT_BYTES_MAX:
            return found
        return self.number(found, name)

    def items(self, name: str, most: int, read: Callable[[object, str], T]) -> tuple[T, ...]:
        """A list of at most `most`, each through `read`."""
        found = self._left.pop(name, [])
        if not isinstance(found, list) or len(found) > most:
            raise self.bad(name, f"a list of at most {most}")
        return tuple(read(one, name) for one in found)

    def finish(self) -> None:
        """Nothing may be left."""
        if self._left:
            raise InvalidInputError(f"{self._what} has a field that is not known here")

    def bad(self, name: str, expected: str) -> InvalidInputError:
        """The refusal of a field, without repeating what was in it."""
        return InvalidInputError(f"{self._what}: {name} is not {expected}")
