"""An account as text: on a command line, in a URL, in a CSV file.

An account is an unsigned 64-bit integer or a string, and 42 and "42" are two accounts. Where
there is only text, digits without leading zeros are the integer, anything else is the
string, and a string account that looks like a number is written with the prefix ``str:``.

    42          the integer 42
    acme, 007   the strings "acme", "007"
    str:42      the string "42"

JSON has both kinds, but its readers round integers beyond 2^53 - 1. Those are written as strings
of digits, and a string account that looks like one, or begins with ``str:``, gets that prefix:

    42, "42"                42, "42"         the integer, the string
    "9007199254740993"      the integer      "str:9007199254740993" is the string
"""

from __future__ import annotations

import re
from typing import Final

from unimeter.types import Account

STRING_PREFIX: Final = "str:"
EXACT_MAX: Final = 2**53 - 1  # the largest integer that every reader of JSON keeps
_INTEGER = re.compile(r"0|[1-9][0-9]{0,19}")


def parse_account(text: str) -> Account:
    """The account that `text` names."""
    if text.startswith(STRING_PREFIX):
        return text.removeprefix(STRING_PREFIX)
    if _INTEGER.fullmatch(text) and int(text) < 2**64:
        return int(text)
    return text


def account_text(account: Account) -> str:
    """The text that names `account`; the inverse of `parse_account`."""
    if isinstance(account, int):
        return str(account)
    return account if parse_account(account) == account else STRING_PREFIX + account


def json_account(account: Account) -> int | str:
    """`account` as it stands in JSON."""
    if isinstance(account, int):
        return account if account <= EXACT_MAX else str(account)
    is_plain = not account.startswith(STRING_PREFIX) and not _is_large(account)
    return account if is_plain else STRING_PREFIX + account


def account_of_json(value: int | str) -> Account:
    """The account that a JSON value names; the inverse of `json_account`."""
    if isinstance(value, int):
        return value
    if value.startswith(STRING_PREFIX):
        return value.removeprefix(STRING_PREFIX)
    return int(value) if _is_large(value) else value


def _is_large(text: str) -> bool:
    """Whether these are the digits of an integer that JSON's readers would round."""
    if len(text) < 16 or _INTEGER.fullmatch(text) is None:
        return False
    return EXACT_MAX < int(text) < 2**64
