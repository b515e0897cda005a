"""When stored events may go: by age, by size, never past the older kept snapshot.

Owns one pure decision: which entries a policy lets go. Whole segments go, oldest
first. An entry goes only when two snapshots cover it, so that one damaged
snapshot file can still be replaced by the one before it and the log.

What is lost with it: events can't be listed any more, a range that cuts a bucket
among them is refused (never rounded), and `verify` recomputes from the base
snapshot on instead of from the first event. Totals of whole buckets stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RetentionPolicy:
    """0 means: keep. Removal is by whole segments."""

    age_ns: int = 0  # since the segment's last entry was written
    bytes: int = 0  # of log, the segment being written included


def first_kept(
    segments: Sequence[tuple[int, int, int, int]],
    policy: RetentionPolicy,
    now_ns: int,
    covered_index: int,
) -> int:
    """The first index that must stay, given `Wal.segments()`."""
    stored = sum(size for _, _, size, _ in segments)
    keep = segments[0][0] if segments else 1
    for _, last, size, timestamp_ns in segments[:-1]:
        is_old = policy.age_ns > 0 and now_ns - timestamp_ns > policy.age_ns
        is_over = policy.bytes > 0 and stored > policy.bytes
        if last > covered_index or not (is_old or is_over):
            break
        stored -= size
        keep = last + 1
    return keep
