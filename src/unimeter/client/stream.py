"""Streams that a program iterates: what they can do, without how they do it.

`Watch` is what ``client.watch(...)`` returns, on a connection or in the same process; the
stream of alerts alone is `surface.AlertStream`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from unimeter.client.checks import check_account, check_metric_code
from unimeter.client.feeds import Change
from unimeter.errors import InvalidInputError
from unimeter.types import Account
from unimeter.wire import messages as m

T = TypeVar("T")
_PLACE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?")


class Stream(ABC, Generic[T]):
    """Items as they come. Iterate; `close()` ends the iteration."""

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self.get()
        if item is None:
            raise StopIteration
        return item

    @abstractmethod
    def get(self, timeout: float | None = None) -> T | None:
        """The next item; None when `timeout` seconds passed or the stream is closed."""

    @abstractmethod
    def close(self) -> None:
        """End the stream; safe from another thread."""

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Watch(Stream[Change]):
    """Alerts, each once and in order, and totals as they change, the newest value of each."""

    def __enter__(self) -> Watch:
        return self

    @property
    @abstractmethod
    def position(self) -> str:
        """Where the stream stands: ``client.watch(after=...)`` goes on behind it.

        Save it after handling an item. It is also the id of ``GET /v1/stream``.
        """


def watch_request(
    accounts: Iterable[Account],
    metrics: Iterable[str],
    alerts: bool,
    totals: bool,
    after: str | int | None,
    interval: float,
) -> m.Watch:
    """The request that begins a stream; InvalidInputError for what can't be watched."""
    if not (alerts or totals):
        raise InvalidInputError("a watch of neither alerts nor totals has nothing to say")
    if isinstance(accounts, str) or isinstance(metrics, str):
        raise InvalidInputError("accounts and metrics are lists, also of one: accounts=['acme']")
    if not 0 <= interval <= 60:
        raise InvalidInputError(f"interval is 0 to 60 seconds, not {interval!r}")
    alert, entry = place_of(after)
    return m.Watch(
        [check_account(account) for account in accounts],
        [check_metric_code(code) for code in metrics],
        alerts=alerts,
        totals=totals,
        after=alert,
        entry=entry,
        interval_ms=round(interval * 1000),
    )


def place_of(after: str | int | None) -> tuple[int | None, int | None]:
    """(alert position, log index) of what `Watch.position` gave, or of an alert's position."""
    if after is None or after == "":
        return None, None
    match = None if isinstance(after, bool) else _PLACE.fullmatch(str(after))
    if match is None:
        raise InvalidInputError(f"after must be what Watch.position gave, not {after!r}")
    return int(match[1]), None if match[2] is None else int(match[2])
