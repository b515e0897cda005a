"""Counters and histograms."""

from __future__ import annotations

from unimeter.server.statistics import Histogram, Statistics


def test_histogram_counts_at_or_below_each_bound() -> None:
    seen = Histogram([1, 10])
    for value in (0.5, 1, 2, 10, 11):
        seen.observe(value)
    assert seen.buckets() == [("1", 2.0), ("10", 4.0), ("+Inf", 5.0)]
    assert seen.total == 24.5


def test_counters_are_flat_integers() -> None:
    counts = Statistics(events_stored=3)
    assert counts.counters()["events_stored"] == 3
    assert "sync_seconds" not in counts.counters()
