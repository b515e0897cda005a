"""What the node did in the last minutes, second by second: the overview's charts.

Owns one sample a second, taken by the site's own tick: totals that only go up, so a rate is
the difference of two. A page that is opened has its charts at once, whatever it polls, and
two pages cost no more than one. Nothing here is durable.

Rejected: the page taking readings itself. Its chart would begin empty, and nobody could
have it as CSV.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from unimeter.instants import format_ns

if TYPE_CHECKING:
    from unimeter.server.node import Node

SAMPLES_MAX: Final = 300  # five minutes at one a second: 200 bytes each
LATENCY_SAMPLES: Final = 60  # that the latest latency is told of


class Sample(NamedTuple):
    """The counters at an instant."""

    time_ns: int
    stored: int
    duplicates: int
    refused: int
    syncs: tuple[int, ...]  # how many took how long, by the histogram's bounds
    sync_seconds: float


class History:
    """The newest samples of one node."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def sample(self, node: Node) -> None:
        """Take a reading."""
        seen, machine = node.statistics.sync_seconds, node.machine
        self.samples.append(
            Sample(
                node.clock(),
                machine.stored,
                machine.duplicates,
                machine.refused,
                tuple(seen.counts),
                seen.total,
            )
        )

    def rates(self) -> Iterable[dict[str, Any]]:
        """Events a second, and the mean seconds of a sync, of each interval, oldest first."""
        for before, after in pairwise(self.samples):
            seconds = (after.time_ns - before.time_ns) / 1e9
            if seconds <= 0:
                continue  # the clock was set back
            syncs = sum(after.syncs) - sum(before.syncs)
            mean = (after.sync_seconds - before.sync_seconds) / syncs if syncs else None
            yield {
                "time": format_ns(after.time_ns),
                "stored": round((after.stored - before.stored) / seconds, 2),
                "duplicates": round((after.duplicates - before.duplicates) / seconds, 2),
                "refused": round((after.refused - before.refused) / seconds, 2),
                "sync_seconds": mean,
            }

    def latency(self, bounds: tuple[float, ...]) -> dict[str, float | None]:
        """The upper bound of the sync times of half, and of 99 of 100, in the last minute."""
        if len(self.samples) < 2:
            return {"p50": None, "p99": None}
        newest = self.samples[-1]
        oldest = self.samples[max(0, len(self.samples) - 1 - LATENCY_SAMPLES)]
        counts = [new - old for new, old in zip(newest.syncs, oldest.syncs, strict=True)]
        return {"p50": quantile(counts, bounds, 0.5), "p99": quantile(counts, bounds, 0.99)}


def quantile(counts: list[int], bounds: tuple[float, ...], part: float) -> float | None:
    """A value that `part` of the observations are at or below; None where there are none.

    Read off the histogram, straight between its bounds; above the last, that one.
    """
    wanted = part * sum(counts)
    if not wanted:
        return None
    running, low = 0.0, 0.0
    for count, bound in zip(counts, bounds, strict=False):
        if count and running + count >= wanted:
            return low + (bound - low) * (wanted - running) / count
        running, low = running + count, bound
    return bounds[-1]
