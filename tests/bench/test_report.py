"""A figure knows its target; a report carries what is needed to doubt it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unimeter.bench.probe import DiskFacts, filesystem_of, probe_disk
from unimeter.bench.report import (
    Figure,
    format_heading,
    format_line,
    format_quantity,
    start_report,
    write_report,
)

DISK = DiskFacts(127e-6, 900e-6, 300e-6, 50e-6, "ext4 on /dev/disk")


@pytest.mark.parametrize(
    ("value", "target", "more", "reached"),
    [(3, 2, True, True), (1, 2, True, False), (1, 2, False, True), (3, 2, False, False)],
)
def test_a_figure_knows_whether_its_target_is_met(
    value: float, target: float, more: bool, reached: bool
) -> None:
    assert Figure("f", value, "s", target, more).reached is reached


def test_a_figure_without_target_is_neither_reached_nor_missed() -> None:
    figure = Figure("f", 1, "requests/s")
    assert figure.reached is None
    assert "MISSED" not in format_line(figure)


def test_times_are_shown_in_the_unit_a_reader_expects() -> None:
    assert format_quantity(0.000_2166, "s") == "216.6 us"
    assert format_quantity(0.0123, "s") == "12.3 ms"
    assert format_quantity(4.0, "s") == "4.00 s"
    assert format_quantity(2_345_678.9, "events/s") == "2,345,679 events/s"


def test_the_json_holds_figures_command_commit_machine_and_disk(tmp_path: Path) -> None:
    report = start_report(["--only", "query"], DISK)
    report.figures.append(Figure("query", 9e-5, "s", 1e-4, False))
    written = json.loads(write_report(report, tmp_path).read_text())
    assert written["command"] == "unimeter bench --only query"
    assert written["commit"]
    assert {"processor", "cores", "memory_gib", "kernel", "python", "loop", "kernels"} <= set(
        written["machine"]
    )
    assert written["disk"]["small_p50"] == 127e-6
    assert written["figures"][0]["reached"] is True
    assert "4 KiB write + fdatasync 127.0 us p50" in format_heading(report)


def test_the_probe_measures_this_disk_and_leaves_nothing(tmp_path: Path) -> None:
    facts = probe_disk(tmp_path, rounds=10)
    assert 0 < facts.small_p50 <= facts.small_p99
    assert facts.large_p50 > 0
    assert facts.loopback_p50 > 0
    assert " on " in facts.filesystem
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    assert filesystem_of(Path("/proc/self")).startswith("proc on")
