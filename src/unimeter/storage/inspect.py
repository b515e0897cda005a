"""Explain a data directory record by record (skeleton)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One record of one file."""

    file: str  # relative to the directory
    offset: int
    what: str  # superblock, segment, entry, event, snapshot, outcomes, damage, ...
    detail: str


def inspect(path: str, *, events: bool = False, from_index: int = 1) -> Iterator[Row]:
    """Every record of every file, in reading order; damage is a row, not an exception."""
    raise NotImplementedError
