"""What a running node counts about itself.

Owns the counters that the node and the connections add to, and two helpers of
the same kind: a histogram with fixed bounds and a rate-free view as a flat
dict, which `/metrics`, the cluster status and the tests all read. Counters go
up and are never reset; whoever wants a rate takes two readings.

Everything is counted per turn, per request or per sync, never per event, so
counting costs nothing that matters. What a batch was refused for is counted only in
a batch that has refusals, by looking for bytes in its outcomes. Nothing here is durable
and nothing here takes part in a decision.

Rejected: `prometheus_client` counters on the hot path. They take a lock and a
label lookup for each increment; plain integers on one thread need neither, and
the package stays usable without that library.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from unimeter.types import Outcome

REFUSALS = tuple(outcome for outcome in Outcome if not outcome.counted)
WAYS = ("binary", "http", "otlp", "peer")
"""How events come in; `peer`: another node took them in and sends them on to this one."""

SYNC_SECONDS_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
COMMIT_SECONDS_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
APPLY_SECONDS_BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
SNAPSHOT_SECONDS_BOUNDS = (0.01, 0.1, 1, 5, 15, 60, 300, 1_800)
BATCH_EVENTS_BOUNDS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 20_000)


class Histogram:
    """Observations counted under fixed upper bounds, with their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        assert list(bounds) == sorted(bounds), "bounds of a histogram ascend"
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)  # the last one is +Inf
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative (upper bound, count) pairs, as the exposition format wants them."""
        pairs, running = [], 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            running += count
            pairs.append((str(bound), float(running)))
        return pairs


class Intake:
    """What came in by one way, as far as this node took it in by itself."""

    __slots__ = ("bytes", "events")

    def __init__(self) -> None:
        self.events = self.bytes = 0


class Elections:
    """How often terms and leaders changed, as this node saw it."""

    __slots__ = ("_last_lead", "lead_changes", "term", "term_changes", "times_led")

    def __init__(self) -> None:
        self.term = self.term_changes = self.times_led = self.lead_changes = 0
        self._last_lead = 0  # the last one known

    def note(self, lead: int, term: int, is_own: bool) -> None:
        """The node's part, its leader or its term is another one than before."""
        if term != self.term:
            self.term_changes += bool(self.term)  # the first one is no change
            self.term = term
        if lead and lead != self._last_lead:
            self.lead_changes += bool(self._last_lead)
            self._last_lead = lead
            self.times_led += is_own


@dataclass(slots=True)
class Statistics:
    """The counters of one node, all since it was opened."""

    events_stored: int = 0
    events_duplicate: int = 0
    events_refused: int = 0
    entries_appended: int = 0
    entries_applied: int = 0
    bytes_appended: int = 0
    log_bytes_replayed: int = 0  # at the last start
    syncs_inline: int = 0  # on the loop's own thread
    syncs_handed: int = 0  # on the sync thread
    requests_backpressure: int = 0
    requests_not_leading: int = 0  # taken in, and refused because another node leads
    requests_forwarded: int = 0  # to the node that leads
    requests_refused: int = 0  # malformed, too large, unknown
    requests_answered: int = 0  # other than ingest
    ingest_replies: int = 0  # writes of rendered ingest replies, one a connection and turn
    edge_scans: int = 0  # queries that needed stored events
    snapshots_written: int = 0
    snapshots_failed: int = 0
    alerts_raised: int = 0
    connections_opened: int = 0
    connections_closed: int = 0
    closed_bad_magic: int = 0
    closed_slow_reader: int = 0
    closed_too_many: int = 0
    closed_strangers: int = 0  # connections that did not log in
    sync_seconds: Histogram = field(default_factory=lambda: Histogram(SYNC_SECONDS_BOUNDS))
    entry_events: Histogram = field(default_factory=lambda: Histogram(BATCH_EVENTS_BOUNDS))
    apply_seconds: Histogram = field(default_factory=lambda: Histogram(APPLY_SECONDS_BOUNDS))
    commit_seconds: Histogram = field(default_factory=lambda: Histogram(COMMIT_SECONDS_BOUNDS))
    snapshot_seconds: Histogram = field(default_factory=lambda: Histogram(SNAPSHOT_SECONDS_BOUNDS))
    refused: dict[int, int] = field(default_factory=lambda: dict.fromkeys(REFUSALS, 0))
    intakes: dict[str, Intake] = field(default_factory=lambda: {way: Intake() for way in WAYS})
    elections: Elections = field(default_factory=Elections)

    def count_refused(self, outcomes: memoryview, refused: int) -> None:
        """Count what the events of a batch were refused for; `refused` of them were."""
        data = bytes(outcomes)
        for outcome in REFUSALS:
            found = data.count(outcome)
            if found:
                self.refused[outcome] += found
                refused -= found
                if not refused:
                    return
        raise AssertionError("a batch has fewer refused events than it says")

    def counters(self) -> dict[str, int]:
        """The plain counters by name, without the histograms."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if isinstance(getattr(self, item.name), int)
        }
