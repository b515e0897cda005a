"""Whether a finder finds a bug, and that it finds nothing where there is none.

Each question is a process of its own, because a planted bug stays in its process:

    a test      pytest with UNIMETER_PLANTED set, which tests/conftest.py honours
    seeds       `python -m tests.planted.seeds`, one line of JSON for each seed

A finder is believed only if it is quiet without the bug: the control runs the same test, or the
very seed, on the code as it is. Bugs that share a seed or a test share its control.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.planted.bug import Bug
from tests.planted.planting import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
TEST_SECONDS_MAX = 300.0
_NO_PROOF = frozenset({"FatalStorageError", "RottenEntryError", "CorruptionError"})
"""Ends of a run that a fault of the disk brings about; they prove bugs of the storage only."""

_SLIPS = frozenset({"AttributeError", "ImportError", "NameError", "TypeError", "UnboundLocalError"})
"""Ends of a run that come from a slip in the planted lines, and not from the bug they mean."""

_TESTS_FAILED = 1  # pytest's exit code; others mean that the tests could not be run
_NO_END = 1e9  # seconds


@dataclass(frozen=True)
class Found:
    """How the search for one bug ended."""

    bug: Bug
    is_found: bool
    finder: str = ""  # the checker of a simulated run, or "test"
    where: str = ""  # its seed, or the test's node id
    effort: str = ""  # in words
    seed: int = 0  # of the run that found it; 0 = none did
    profile: str = ""
    sentence: str = ""  # what the checker said
    trouble: str = ""  # why it does not count, as a sentence


def environment(name: str, *, is_pure: bool) -> dict[str, str]:
    """The environment of a finder, with the bug of that name, or "" as its control."""
    found = {key: value for key, value in os.environ.items() if key != VARIABLE}
    found.pop("UNIMETER_PURE", None)
    if is_pure:
        found["UNIMETER_PURE"] = "1"
    if name:
        found[VARIABLE] = name
    return found


# --- a named test ----------------------------------------------------------------------


def run_test(node_id: str, name: str, *, is_pure: bool) -> tuple[int, str]:
    """Run a test until its first failure, with a bug: pytest's exit code and what it said."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, node_id],
            cwd=ROOT,
            env=environment(name, is_pure=is_pure),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TEST_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        return -1, f"it ran for more than {TEST_SECONDS_MAX:.0f} s"
    return done.returncode, done.stdout


@cache
def control_of_test(node_id: str, is_pure: bool) -> str:
    """What a test says against the code as it is; "" if it passes."""
    code, output = run_test(node_id, "", is_pure=is_pure)
    return tail_of(output) if code else ""


def find_by_test(bug: Bug) -> Found:
    """Run the directed test with the bug, where it must fail, and without, where it must not."""
    assert bug.test is not None
    began = time.monotonic()
    node_id, is_pure = bug.test.node_id, bug.is_in_kernel
    code, output = run_test(node_id, bug.name, is_pure=is_pure)
    seconds = time.monotonic() - began
    trouble = ""
    if code != _TESTS_FAILED:
        trouble = f"the test did not fail: {tail_of(output)}"
    elif not bug.test.is_reason(output):
        trouble = f"the test failed, and not for {bug.test.says!r}: {tail_of(output)}"
    elif words := control_of_test(node_id, is_pure):
        trouble = f"the test fails without the bug as well: {words}"
    where = node_id.removeprefix("tests/")
    return Found(bug, not trouble, "test", where, f"{seconds:.1f} s", trouble=trouble)


def tail_of(output: str) -> str:
    """The last words of a finder, for a message."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return " | ".join(lines[-6:])[-600:]


# --- seeds -----------------------------------------------------------------------------


def run_seeds(
    seeds: range, profile: str, seconds: float, name: str, *, is_pure: bool
) -> Iterator[dict[str, Any]]:
    """Run seeds one after the other until one fails or the time is up; what each came to."""
    numbers = [str(seeds.start), str(seeds.stop - 1), profile, str(seconds)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.planted.seeds", *numbers],
        cwd=ROOT,
        env=environment(name, is_pure=is_pure),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode != 0:
        yield {"seed": 0, "passed": False, "checker": "", "failure": "the process of seeds died"}


@cache
def passes_without(seed: int, profile: str, is_pure: bool) -> bool:
    """The control of a seed."""
    results = run_seeds(range(seed, seed + 1), profile, _NO_END, "", is_pure=is_pure)
    return all(result["passed"] for result in results)


def find_by_seeds(bug: Bug, seeds: range, profile: str, seconds: float = _NO_END) -> Found:
    """Run seeds with the bug until one fails that passes without it."""
    began, tried, left = time.monotonic(), 0, seeds
    trouble = ""
    while left:
        rest = seconds - (time.monotonic() - began)
        if tried and rest <= 0:
            break
        results = list(run_seeds(left, profile, rest, bug.name, is_pure=bug.is_in_kernel))
        result, tried = results[-1], tried + len(results)
        if result["passed"]:
            break
        seed, checker = result["seed"], result["checker"]
        if not seed:
            return Found(bug, False, trouble=result["failure"])
        if checker in _SLIPS or (checker in _NO_PROOF and bug.kind != "storage"):
            trouble = f"; seed {seed} ended with {checker}, which proves nothing"
        elif passes_without(seed, profile, bug.is_in_kernel):
            effort = f"{tried} seed{'s' * (tried > 1)}, {time.monotonic() - began:.0f} s"
            where = f"seed {seed}"
            return Found(bug, True, checker, where, effort, seed, profile, result["failure"])
        else:
            trouble = f"; seed {seed} fails without the bug as well"
        left = range(seed + 1, seeds.stop)
    effort = f"{tried} seeds, {time.monotonic() - began:.0f} s"
    return Found(bug, False, effort=effort, trouble=f"none of {tried} seeds found it{trouble}")
