"""An instant as RFC 3339 text, to the nanosecond, both ways.

Owns what JSON, CSV and URLs say of time: UTC with a Z, and up to nine decimals. No float is
involved and nothing is rounded. Text without a zone is refused: which period it belongs to
would be a guess. What people type on a command line has more forms (`cli.moments`).

A batch of events names few different seconds, so the date arithmetic of each is done once and
remembered; the decimals are added.

Rejected: `datetime.fromisoformat` for each event, which keeps six decimals.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Final

from unimeter.errors import InvalidInputError
from unimeter.types import from_ns

EXPECTED: Final = "a time with its zone, such as 2026-11-05T10:30:00Z"
SECONDS_KEPT_MAX: Final = 4096  # texts of seconds whose arithmetic is remembered
NS_MIN: Final = 1  # 0 means "not given" on the wire; 1970 is refused as too old either way
NS_MAX: Final = 2**63 - 1

_FORM: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:([Zz])|([+\- ])([0-9]{2}):([0-9]{2}))"
)
_TENS: Final[tuple[int, ...]] = tuple(10 ** (9 - digits) for digits in range(10))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND: Final = timedelta(seconds=1)
_known: dict[str, int] = {}  # the first 19 characters of a text in UTC -> ns


def format_ns(ns: int) -> str:
    """RFC 3339 in UTC with all nine decimals that are there and no more."""
    seconds, fraction = divmod(ns, 10**9)
    text = from_ns(seconds * 10**9).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return text + (f".{fraction:09d}".rstrip("0") if fraction else "") + "Z"


def parse_ns(text: str) -> int:
    """Nanoseconds since 1970 UTC; InvalidInputError for what is not RFC 3339.

    Years that 64 bits can't hold become the nearest that they can: the meter refuses both,
    each event by itself, as outside 2000 to 2099.
    """
    second = _known.get(text[:19])
    if second is not None:
        tail = text[19:]
        if tail == "Z":
            return second
        digits = tail[1:-1]
        if tail[:1] == "." and tail[-1] == "Z" and digits.isdecimal() and digits.isascii():
            if len(digits) <= 9:
                return second + int(digits) * _TENS[len(digits)]
    return _parse_slowly(text)


def _parse_slowly(text: str) -> int:
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidInputError(f"{text[:40]!r} is not {EXPECTED}")
    day, clock, digits, is_utc, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}+00:00")
    except ValueError as error:
        raise InvalidInputError(f"{text[:40]!r} is no time: {error}") from None
    second: int = (moment - _EPOCH) // _SECOND * 10**9
    if is_utc:
        if NS_MIN <= second < NS_MAX - 10**9:
            _remember(text[:19], second)
    else:
        if int(hours) > 23 or int(minutes) > 59:
            raise InvalidInputError(f"{text[:40]!r} has an offset beyond 23:59")
        offset = (int(hours) * 3600 + int(minutes) * 60) * 10**9
        # A plus sign in the query of a URL arrives as a space.
        second += offset if sign == "-" else -offset
    fraction = int(digits) * _TENS[len(digits)] if digits else 0
    return min(max(second + fraction, NS_MIN), NS_MAX)


def _remember(text: str, second: int) -> None:
    if len(_known) >= SECONDS_KEPT_MAX:
        _known.clear()
    _known[text] = second
