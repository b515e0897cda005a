"""An account as text: on a command line, in a URL, in a CSV file.

An account is an unsigned 64-bit integer or a string, and 42 and "42" are two accounts. Where
there is only text, digits without leading zeros are the integer, anything else is the
string, and a string account that looks like a number is written with the prefix ``str:``.

    42          the integer 42
    acme, 007   the strings "acme", "007"
    str:42      the string "42"
"""

from __future__ import annotations

import re
from typing import Final

from unimeter.types import Account

STRING_PREFIX: Final = "str:"
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
