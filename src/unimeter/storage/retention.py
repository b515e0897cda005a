"""When stored events may go: by age, by size, never past the last snapshots.

Skeleton of the interface.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetentionPolicy:
    """0 means: keep. Removal is by whole segments."""

    age_ns: int = 0
    bytes: int = 0
