"""Read everything, check every checksum, recompute every total (skeleton)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Report:
    """What verify found. `ok` when there is no problem."""

    path: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    segments: int = 0
    entries: int = 0
    events: int = 0  # counted events recomputed
    snapshots: int = 0
    totals: int = 0  # totals compared
    bytes: int = 0
    seconds: float = 0.0
    state_hash: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(path: str, progress: Callable[[str, int, int], None] | None = None) -> Report:
    """Check the directory at `path` without changing it. progress(stage, done, total)."""
    raise NotImplementedError
