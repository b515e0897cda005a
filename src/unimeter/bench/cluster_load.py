"""The lines of ingest: durable on a quorum, and the same on a single node beside it.

Generator, frames and checks are those of `load` and `scenarios`; the clients are connected to
the leader. Each shape runs on a fresh group of three and then on a fresh node alone, in the
same minute and on the same disk, so that the ratio is not one of two machines' moods. All
processes share this machine's cores with the generator: what a cluster on machines of
its own would do is bounded by its busiest node, and the processor time of each node for
a request, in the note, says more about that than the rate does.

A figure counts only if every event was acknowledged as new and the totals of every node,
leader and followers, agree with what was acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from unimeter.bench.cluster_nodes import Group, running_group
from unimeter.bench.frames import Tape
from unimeter.bench.load import IngestSource, LoadResult, connect, run_load
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import (
    NO_SNAPSHOT,
    Settings,
    check_stored,
    make_tape,
    quantile,
    time_ingests,
)

NODES: Final = 3
CONNECTIONS: Final = 64
QUORUM: Final = "durable on a quorum"
ALONE: Final = "single node"


@dataclass(frozen=True)
class Costs:
    """Processor seconds of each node for one request, the leader's first."""

    seconds: list[float]

    def __str__(self) -> str:
        names = ["leader", *["follower"] * (len(self.seconds) - 1)]
        shares = (f"{name} {one * 1e6:.1f}" for name, one in zip(names, self.seconds, strict=True))
        return "CPU us/request: " + ", ".join(shares)


def measure(
    settings: Settings, count: int, batch: int, load: Callable[[Group, Tape], int]
) -> Costs:
    """Run `load`, which returns its requests, on a fresh group; check sums on every node."""
    with running_group(settings, count, NO_SNAPSHOT) as group:
        tape = make_tape(settings, batch)
        before = group.cpu_seconds()
        requests = load(group, tape)
        group.wait_level()  # what followers still apply belongs to the requests too
        after = group.cpu_seconds()
        group.check_totals(tape)
    return Costs([(late - early) / requests for early, late in zip(before, after, strict=True)])


def throughput(settings: Settings, count: int, batch: int, depth: int) -> tuple[LoadResult, Costs]:
    """Load the leader over 64 connections."""
    results = []

    def load(group: Group, tape: Tape) -> int:
        source = IngestSource(tape)
        sockets = connect(group.leader.place, CONNECTIONS)
        results.append(run_load(source, sockets, depth, settings.seconds, settings.warm_up))
        check_stored(source, results[0])
        return results[0].requests_total

    costs = measure(settings, count, batch, load)
    return results[0], costs


def _both(
    settings: Settings, batch: int, depth: int, unit: str, target: float | None
) -> list[Figure]:
    """The same shape on three nodes and on one."""
    shape = f"batch {batch} x {CONNECTIONS}, depth {depth}"
    figures = []
    for count, where, wanted in ((NODES, QUORUM, target), (1, ALONE, None)):
        result, costs = throughput(settings, count, batch, depth)
        rate = result.events_per_second if unit == "events/s" else result.requests_per_second
        figures.append(Figure(f"{where}: {shape}", rate, unit, wanted, note=_note(result, costs)))
    return [*figures, _ratio(shape, figures)]


def _ratio(shape: str, figures: list[Figure]) -> Figure:
    share = 100 * figures[0].value / figures[1].value
    return Figure(f"quorum of the single node: {shape}", share, "%")


def _note(result: LoadResult, costs: Costs) -> str:
    generator = result.client_cpu_seconds / result.seconds
    return (
        f"p50 {result.percentile(0.5) * 1e3:.2f} ms, p99 {result.percentile(0.99) * 1e3:.2f} ms; "
        f"{costs}; generator {generator:.2f} cores; load average {os.getloadavg()[0]:.1f}"
    )


def batches(settings: Settings) -> list[Figure]:
    """Events per second in batches of 500."""
    return _both(settings, settings.batch, settings.depth_batches, "events/s", 1e6)


def singles(settings: Settings) -> list[Figure]:
    """Requests per second at batch 1, pipelined and not."""
    return [
        *_both(settings, 1, settings.depth_singles, "requests/s", 25_000.0),
        *_both(settings, 1, 1, "requests/s", None),
    ]


def lone_event(settings: Settings) -> list[Figure]:
    """Round trip of one event with nothing else in flight."""
    figures = []
    for count, where, targets in ((NODES, QUORUM, (1e-3, 4e-3)), (1, ALONE, (None, None))):
        seconds: list[float] = []

        def load(group: Group, tape: Tape, seconds: list[float] = seconds) -> int:
            rounds = settings.latency_rounds
            with group.leader.connect() as sock:
                time_ingests(sock, tape, rounds // 10)
                seconds += time_ingests(sock, tape, rounds)
            return rounds + rounds // 10

        costs = measure(settings, count, 1, load)
        note = f"{costs}; load average {os.getloadavg()[0]:.1f}"
        for share, target in zip((0.5, 0.99), targets, strict=True):
            name = f"{where}: one event, nothing else in flight: p{share * 100:.0f}"
            figures.append(Figure(name, quantile(seconds, share), "s", target, False, note))
    return figures
