"""The report of a run: what was promised, what was found, and how to do it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

FOUND_SHOWN_MAX: Final = 5


@dataclass(slots=True)
class Promise:
    """One thing that must hold, and every sign that it did not."""

    name: str
    violations: list[str]
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.violations


def short(violation: str) -> str:
    """Return the first line of what was found and the last, which says how it ended."""
    lines = [line for line in violation.splitlines() if line.strip()]
    return "\n".join(lines[:1] + lines[1:][-1:])


@dataclass(slots=True)
class Report:
    """Everything that a reader of a failed run asks for first."""

    command: str
    commit: str
    seed: int
    notes: list[str]
    schedule: list[str]
    skipped: list[str] = field(default_factory=list)  # faults that this machine cannot do
    faults: list[dict[str, Any]] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)  # that clients met, by name
    totals: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_passed(self) -> bool:
        """Whether every promise was judged and holds."""
        return bool(self.promises) and all(promise.holds for promise in self.promises)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        text = json.dumps({"passed": self.is_passed, **asdict(self)}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")

    def show(self, folder: Path) -> None:
        """Print it; the last line is PASSED or FAILED with what reproduces the run."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False)
        for note in self.notes:
            console.print(f"note: {note}", markup=False)
        if self.skipped:
            console.print(f"note: {len(self.skipped)} faults left out, not possible here")
        table = Table("promise", "", "found", title=f"seed {self.seed}", title_justify="left")
        for promise in self.promises:
            shown = promise.violations[:FOUND_SHOWN_MAX]
            found = [short(violation) for violation in shown] or [promise.detail]
            more = len(promise.violations) - FOUND_SHOWN_MAX
            found += [f"and {more} more"] if more > 0 else []
            mark = Text("holds", "green") if promise.holds else Text("BROKEN", "bold red")
            table.add_row(promise.name, mark, Text("\n".join(found)))
        console.print(table)
        counted = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        console.print(f"steps: {counted}", markup=False)
        if self.errors:
            met = ", ".join(f"{count} {name}" for name, count in sorted(self.errors.items()))
            console.print(f"errors that clients met: {met}", markup=False)
        console.print(f"faults: {len(self.schedule)}; files: {folder}", markup=False)
        word = "PASSED" if self.is_passed else "FAILED"
        line = f"{word} seed {self.seed} commit {self.commit}: {self.command}"
        console.print(line, markup=False, soft_wrap=True)
