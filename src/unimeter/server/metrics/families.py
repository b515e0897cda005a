"""How a family of the exposition format is made: one function a kind.

Owns the only contact with `prometheus_client`'s families, which is imported when the first page
is made: a program that only embeds a node never loads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unimeter.server.statistics import Histogram

Rows = Iterable[tuple[tuple[str, ...], float]]
"""(label values, value) pairs."""


def counter(name: str, text: str, value: float) -> Any:
    """A counter without labels; ``_total`` is added."""
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, text, value=value)


def gauge(name: str, text: str, value: float) -> Any:
    """A gauge without labels."""
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value=value)


def counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Any:
    """A counter with one label."""
    return counter_rows(name, text, (label,), (((key,), value) for key, value in values.items()))


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Any:
    """A gauge with one label."""
    return gauge_rows(name, text, (label,), (((key,), value) for key, value in values.items()))


def counter_rows(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Any:
    """A counter with several labels."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def gauge_rows(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Any:
    """A gauge with several labels."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def histogram(name: str, text: str, seen: Histogram) -> Any:
    """A histogram without labels."""
    return histogram_rows(name, text, (), [((), seen)])


def histogram_rows(
    name: str,
    text: str,
    labels: tuple[str, ...],
    rows: Iterable[tuple[tuple[str, ...], Histogram]],
) -> Any:
    """A histogram with labels."""
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=labels)
    for values, seen in rows:
        family.add_metric(values, buckets=seen.buckets(), sum_value=seen.total)
    return family
