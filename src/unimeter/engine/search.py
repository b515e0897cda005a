"""Finding accounts by what they are called.

Owns the walk over the series of the machine, newest first, in steps: whoever asks holds the lock
for one step (`SERIES_PER_STEP`, a few milliseconds) and lets others in between two. An account
is found once, at its newest series of a metric that is not deleted, so pages follow one another
without a memory of what was given.

It refuses to keep an index of names: it would cost memory and time for each new account, and
people search seldom.
"""

from __future__ import annotations

from typing import Any, Final

from unimeter.engine.cells import STRING
from unimeter.types import Account

SERIES_PER_STEP: Final = 4096
STRING_PREFIX: Final = "str:"


def series_end(machine: Any) -> int:
    """Where a search begins: one more than the newest series."""
    return int(machine.counter.totals.series_count)


def known_account(machine: Any, account: Account) -> bool:
    """Whether a live metric has ever counted something of the account."""
    return bool(metrics_of(machine, account))


def metrics_of(machine: Any, account: Account) -> list[str]:
    """The codes of the metrics that have counted something of the account, oldest first."""
    word, kind = _key(machine, account)
    if word is None:
        return []
    totals = machine.counter.totals
    return [
        metric.code
        for metric in machine.catalog.live()
        if totals.series_row(word, metric.number | kind) >= 0
    ]


def _key(machine: Any, account: Account) -> tuple[int | None, int]:
    if isinstance(account, int):
        return (account if 0 <= account < 2**64 else None), 0
    number = machine.counter.accounts.number(account.encode("utf-8", "surrogatepass"))
    return number or None, STRING


def step(machine: Any, prefix: str, end: int) -> tuple[list[Account], int]:
    """Accounts that begin with `prefix`, of the next step below series `end`; where to go on.

    0 is the end. Integers are taken by their digits; ``str:`` in front leaves them out.
    """
    assert end >= 0
    end = min(end, series_end(machine))
    start = max(0, end - SERIES_PER_STEP)
    only_strings = prefix.startswith(STRING_PREFIX)
    encoded = prefix.removeprefix(STRING_PREFIX).encode("utf-8", "surrogatepass")
    counter = machine.counter
    series_at = counter.totals.series_at
    live = machine.catalog.live()
    numbers = {metric.number for metric in live}
    found: list[Account] = []
    for row in range(end - 1, start - 1, -1):
        account, metric = series_at(row)[:2]
        kind = metric & STRING
        if metric - kind not in numbers:
            continue
        if kind:
            text = bytes(counter.accounts.text(account))
            if text.startswith(encoded) and _is_newest(counter, live, account, kind, row):
                found.append(text.decode())
        elif not only_strings and str(account).encode().startswith(encoded):
            if _is_newest(counter, live, account, kind, row):
                found.append(account)
    return found, start


def _is_newest(counter: Any, live: list[Any], account: int, kind: int, row: int) -> bool:
    """Whether no live metric has a newer series of this account."""
    series_row = counter.totals.series_row
    return all(series_row(account, metric.number | kind) <= row for metric in live)
