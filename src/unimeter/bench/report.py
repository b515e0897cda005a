"""Figures as a table for people and as JSON for machines.

Owns what a figure is: a name, a number with its unit, the target it is judged
by and whether more or less is better. Both outputs carry what is needed to
doubt them: the command, the commit and whether the tree was clean, the
machine, the versions, and what the raw disk did in the same minute.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from unimeter.bench.probe import DiskFacts

SOURCE_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Figure:
    """One measured number. `target` None means: for information."""

    name: str
    value: float
    unit: str  # "events/s", "requests/s", "s", "bytes"
    target: float | None = None
    more_is_better: bool = True
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target


@dataclass
class Report:
    """Everything one run of the bench found."""

    command: str
    started: str
    commit: str
    machine: dict[str, Any]
    disk: DiskFacts
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """The report as indented JSON."""
        data = asdict(self)
        for entry, figure in zip(data["figures"], self.figures, strict=True):
            entry["reached"] = figure.reached
        return json.dumps(data, indent=2) + "\n"


def format_quantity(value: float, unit: str) -> str:
    """`value` in the unit a reader expects: seconds become us, ms or s."""
    if unit == "s":
        for limit, factor, name in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
            if value < limit:
                return f"{value * factor:,.1f} {name}"
        return f"{value:,.2f} s"
    if unit == "bytes":
        return f"{value:,.1f} bytes"
    return f"{value:,.0f} {unit}"


def format_line(figure: Figure) -> str:
    """One line of the table."""
    target, verdict = "", ""
    if figure.target is not None:
        sign = ">=" if figure.more_is_better else "<="
        target = f"{sign} {format_quantity(figure.target, figure.unit)}"
        verdict = "reached" if figure.reached else "MISSED"
    value = format_quantity(figure.value, figure.unit)
    return f"{figure.name:<48} {value:>20} {target:>22} {verdict:<8} {figure.note}".rstrip()


def format_heading(report: Report) -> str:
    """What was measured, on what, at which commit."""
    disk, machine = report.disk, report.machine
    return "\n".join(
        [
            f"{report.command}",
            f"commit {report.commit}, {report.started}",
            f"{machine['cores']} x {machine['processor']}, {machine['memory_gib']} GiB, "
            f"Linux {machine['kernel']}, Python {machine['python']}, {machine['loop']}, "
            f"kernels {machine['kernels']}",
            f"disk: {disk.filesystem}; 4 KiB write + fdatasync "
            f"{format_quantity(disk.small_p50, 's')} p50, "
            f"{format_quantity(disk.small_p99, 's')} p99; 256 KiB "
            f"{format_quantity(disk.large_p50, 's')} p50; "
            f"loopback round trip {format_quantity(disk.loopback_p50, 's')} p50",
        ]
    )


def start_report(argv: list[str], disk: DiskFacts) -> Report:
    """An empty report with the facts of this run."""
    return Report(
        command=" ".join(["unimeter bench", *argv]),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit=describe_commit(),
        machine=describe_machine(),
        disk=disk,
    )


def write_report(report: Report, directory: Path) -> Path:
    """Write the JSON into `directory` under a name that sorts by time."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = report.started.replace(":", "").replace("-", "")[:15]
    path = directory / f"{stamp}-{report.commit.split()[0]}.json"
    path.write_text(report.to_json())
    return path


def describe_commit() -> str:
    """The source's commit, marked where the tree differs from it."""
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return "unknown"
    return commit + (" (changed)" if _git("status", "--porcelain", "-uno") else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE_ROOT), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def describe_machine() -> dict[str, Any]:
    """Processor, memory, versions: what figures depend on, and no name of the host."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages * page_bytes / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "loop": "uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        "kernels": describe_kernels(),
        "load_average": os.getloadavg()[0],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe_kernels() -> str:
    """``compiled`` or ``interpreted``."""
    if os.environ.get("UNIMETER_PURE") == "1":
        return "interpreted"
    import unimeter.engine.tables as tables

    return "compiled" if str(tables.__file__).endswith(".so") else "interpreted"


def print_line(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
