"""``python -m unimeter.bench.cluster``: three nodes and the load generator on this machine.

    python -m unimeter.bench.cluster                      all lines
    python -m unimeter.bench.cluster --only failover      one line; repeat for more
    python -m unimeter.bench.cluster --seconds 10         longer loads

The lines, in `LINES`, come from cluster_load (ingest), cluster_reads, cluster_failover and
cluster_rejoin. Report, probe of the disk and the rule that a figure needs its sums are the
single node's bench's. Exit status 0 if everything was measured, whether or not a
target was reached; 1 if a line failed, which includes sums that do not agree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from unimeter.bench import cluster_load
from unimeter.bench.cluster_failover import CALM_SECONDS, ROUNDS, failover
from unimeter.bench.cluster_reads import follower_reads
from unimeter.bench.cluster_rejoin import EVENTS, rejoin
from unimeter.bench.load import LoadError
from unimeter.bench.probe import probe_disk
from unimeter.bench.report import (
    Figure,
    Report,
    format_heading,
    format_line,
    print_line,
    start_report,
    write_report,
)
from unimeter.bench.scenarios import Settings
from unimeter.errors import UnimeterError

COMMAND: Final = "python -m unimeter.bench.cluster"
METHOD: Final = (
    "three nodes and the load generator share this machine; an acknowledgement follows the "
    "sync on two nodes; sums are checked on all three"
)
LINES: Final[dict[str, Callable[[Settings, argparse.Namespace], list[Figure]]]] = {
    "batch500x64": lambda settings, options: cluster_load.batches(settings),
    "batch1x64": lambda settings, options: cluster_load.singles(settings),
    "batch1x1": lambda settings, options: cluster_load.lone_event(settings),
    "reads": lambda settings, options: follower_reads(settings),
    "failover": lambda settings, options: failover(settings, options.kills, options.calm),
    "rejoin": lambda settings, options: rejoin(settings, options.events),
}


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Measure a cluster of three nodes on this machine."
    )
    parser.add_argument("--only", action="append", choices=LINES, help="one line; repeatable")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default 5)")
    parser.add_argument("--kills", type=int, default=ROUNDS, help="of the leader (default 5)")
    parser.add_argument(
        "--events", type=int, default=EVENTS, help="that a wiped follower rejoins (default 10M)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("bench-results"), help="where the JSON goes"
    )
    parser.add_argument("--data", type=Path, help="measure on this disk (default: below --output)")
    parser.add_argument("--tiny", action="store_true", help="go through the motions in seconds")
    parser.set_defaults(calm=CALM_SECONDS)
    return parser


def run_line(name: str, settings: Settings, options: argparse.Namespace, report: Report) -> bool:
    """Measure one line and print it; False if it failed."""
    try:
        figures = LINES[name](settings, options)
    except (LoadError, UnimeterError, RuntimeError, OSError) as error:
        report.remarks.append(f"{name}: FAILED: {error}")
        print_line(report.remarks[-1])
        return False
    for figure in figures:
        report.figures.append(figure)
        print_line(format_line(figure))
    return True


def make_settings(options: argparse.Namespace) -> Settings:
    """The settings that the options ask for."""
    settings = Settings(directory=options.data or options.output, seconds=options.seconds)
    if not options.tiny:
        return settings
    options.kills, options.calm = 1, 0.1
    options.events = min(options.events, 5_000)
    return settings.tiny()


def main(argv: list[str] | None = None) -> int:
    """Run the lines with the given arguments and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options = make_parser().parse_args(argv)
    settings = make_settings(options)
    settings.directory.mkdir(parents=True, exist_ok=True)
    report = start_report(argv, probe_disk(settings.directory))
    report.command = " ".join([COMMAND, *argv])
    report.remarks.append(METHOD)
    load = report.machine["load_average"]
    print_line(f"{format_heading(report)}\n{METHOD}; load average {load:.1f} at the start\n")
    results = [run_line(name, settings, options, report) for name in options.only or LINES]
    print_line(f"\nwritten to {write_report(report, options.output)}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
