"""``unimeter bench``: run the scenarios, print the table, write the JSON.

    unimeter bench                       all lines, Redis and PostgreSQL where installed
    unimeter bench --only batch1x1       one line; repeat for more
    unimeter bench --seconds 20          longer runs
    unimeter bench --no-rivals           leave the others out

Exit status 0 if everything was measured, whether or not a target was reached;
1 if a scenario failed, which includes sums that do not agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from unimeter.bench.lines import SCENARIOS
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
from unimeter.bench.rivals import RIVALS, RivalMissingError
from unimeter.bench.scenarios import Settings


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="unimeter bench",
        description="Measure speed and size of a node of its own, through the real socket.",
        epilog="Example: unimeter bench --only batch500x8 --only batch1x1 --seconds 10",
    )
    parser.add_argument(
        "--only", action="append", choices=[*SCENARIOS, *RIVALS], help="one scenario; repeatable"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default 5)")
    parser.add_argument(
        "--depth", type=int, default=0, help="requests in flight on each connection"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("bench-results"), help="where the JSON goes"
    )
    parser.add_argument("--data", type=Path, help="measure on this disk (default: below --output)")
    parser.add_argument("--no-rivals", action="store_true", help="leave Redis and PostgreSQL out")
    parser.add_argument(
        "--install-rivals",
        action="store_true",
        help="apt-get install redis-server and postgresql where missing (needs root)",
    )
    parser.add_argument("--tiny", action="store_true", help="go through the motions in seconds")
    return parser


def make_settings(options: argparse.Namespace) -> Settings:
    """The settings that the options ask for."""
    directory = options.data or options.output
    settings = Settings(directory=directory, seconds=options.seconds)
    if options.depth:
        settings = dataclasses.replace(
            settings, depth_batches=options.depth, depth_singles=options.depth
        )
    return settings.tiny() if options.tiny else settings


def run_scenario(name: str, settings: Settings, report: Report, install: bool) -> bool:
    """Measure one line and print it; False if it failed."""
    try:
        if name in SCENARIOS:
            figures = SCENARIOS[name](settings)
        else:
            figures = RIVALS[name](settings, install)
    except RivalMissingError as missing:
        return _remark(report, f"{name}: skipped, {missing}", True)
    except (LoadError, RuntimeError, OSError) as error:
        return _remark(report, f"{name}: FAILED: {error}", False)
    for figure in figures:
        add_figure(report, figure)
    return True


def add_figure(report: Report, figure: Figure) -> None:
    """Keep and print one figure."""
    report.figures.append(figure)
    print_line(format_line(figure))


def _remark(report: Report, text: str, good: bool) -> bool:
    report.remarks.append(text)
    print_line(text)
    return good


def main(argv: list[str] | None = None) -> int:
    """Run the bench with the given arguments and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options = make_parser().parse_args(argv)
    settings = make_settings(options)
    settings.directory.mkdir(parents=True, exist_ok=True)
    report = start_report(argv, probe_disk(settings.directory))
    print_line(format_heading(report) + "\n")
    names = options.only or [*SCENARIOS, *([] if options.no_rivals else RIVALS)]
    results = [run_scenario(name, settings, report, options.install_rivals) for name in names]
    path = write_report(report, options.output)
    print_line(f"\nwritten to {path}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
