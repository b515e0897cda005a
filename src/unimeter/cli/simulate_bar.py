"""How far a sweep of ``unimeter simulate`` is: a bar where someone looks, lines elsewhere.

The bar is on stderr and says seeds done, failed, seeds per hour and what is left. In a
log there is a line now and then, so that a sweep of an hour does not look dead. Either
way a seed that fails is told at once, in one line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from unimeter.cli.output import say
from unimeter.sim.report import failure_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from unimeter.sim.result import Result

LINE_SECONDS: Final = 60.0
"""Between two lines of a log: a sweep of 30 minutes is a page of them."""


class SeedBar:
    """Counts seeds; where nobody looks it only says a line now and then."""

    is_shown = False

    def __init__(self, total: int | None, tell: Callable[[str], object]) -> None:
        self._total, self._tell = total, tell
        self._done = self._failed = 0
        self._since = self._said = time.monotonic()

    def count(self, result: Result) -> None:
        """One more seed has ended."""
        self._done += 1
        if not result.passed:
            self._failed += 1
            self.tell_failure(failure_line(result))
        self.show()

    def tell_failure(self, line: str) -> None:
        """A seed failed."""
        self._tell(line)

    def show(self) -> None:
        """Tell how far it is, if it is time."""
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS:
            self._said = now
            of = "" if self._total is None else f" of {self._total:,}"
            say(f"{self._done:,}{of} seeds, {self.words()}")

    def words(self) -> str:
        """Failed, and how fast."""
        spent = time.monotonic() - self._since
        return f"{self._failed:,} failed, {self._done * 3600 / max(spent, 0.001):,.0f}/hour"


class _ShownBar(SeedBar):
    """The bar on a terminal."""

    is_shown = True

    def __init__(self, total: int | None, minutes: float | None, bars: Progress) -> None:
        super().__init__(total, lambda line: None)
        self._bars, self._minutes = bars, minutes
        self._task = bars.add_task("seeds", total=total, words="")

    def tell_failure(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self) -> None:
        spent = time.monotonic() - self._since
        words = self.words()
        if self._minutes is not None:
            words += f", {max(self._minutes - spent / 60, 0):.0f} min left"
        self._bars.update(self._task, completed=self._done, words=words)


@contextmanager
def seed_bar(
    total: int | None, minutes: float | None, tell: Callable[[str], object]
) -> Iterator[SeedBar]:
    """A bar while the block runs; `total` None: nobody knows how many there will be."""
    if not sys.stderr.isatty():
        yield SeedBar(total, tell)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _ShownBar(total, minutes, bars)
