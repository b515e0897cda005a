"""Whether a finder finds a bug, and that it finds nothing where there is none.

Each question is a process of its own, because a planted bug stays in its process:

    a test      pytest with UNIMETER_PLANTED set, which tests/conftest.py honours
    seeds       `python -m tests.planted.seeds`, one line of JSON for each seed

A finder is believed only if it is quiet without the bug: `control` runs the same test, or the
very seed, on the code as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
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


def environment(bug: Bug, *, is_planted: bool) -> dict[str, str]:
    """The environment of a finder, with the bug or as its control."""
    found = {name: value for name, value in os.environ.items() if name != VARIABLE}
    found.pop("UNIMETER_PURE", None)
    if bug.is_in_kernel:
        found["UNIMETER_PURE"] = "1"
    if is_planted:
        found[VARIABLE] = bug.name
    return found


# --- a named test ----------------------------------------------------------------------


def run_test(bug: Bug, *, is_planted: bool) -> tuple[int, str]:
    """Run the bug's test until its first failure: pytest's exit code and what it said."""
    assert bug.test is not None
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, bug.test.node_id],
            cwd=ROOT,
            env=environment(bug, is_planted=is_planted),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TEST_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        return -1, f"it ran for more than {TEST_SECONDS_MAX:.0f} s"
    return done.returncode, done.stdout


def find_by_test(bug: Bug) -> Found:
    """Run the directed test with the bug, where it must fail, and without, where it must not."""
    assert bug.test is not None
    began = time.monotonic()
    name = bug.test.node_id.removeprefix("tests/")
    code, output = run_test(bug, is_planted=True)
    seconds = time.monotonic() - began
    if code != _TESTS_FAILED:
        return Found(bug, False, "test", name, trouble=f"the test did not fail: {tail_of(output)}")
    if not bug.test.is_reason(output):
        trouble = f"the test failed, and not for {bug.test.says!r}: {tail_of(output)}"
        return Found(bug, False, "test", name, trouble=trouble)
    code, output = run_test(bug, is_planted=False)
    if code != 0:
        trouble = f"the test fails without the bug as well: {tail_of(output)}"
        return Found(bug, False, "test", name, trouble=trouble)
    return Found(bug, True, "test", name, f"{seconds:.1f} s")


def tail_of(output: str) -> str:
    """The last words of a finder, for a message."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return " | ".join(lines[-6:])[-600:]


# --- seeds -----------------------------------------------------------------------------


def run_seeds(
    bug: Bug, first: int, last: int, profile: str, seconds: float, *, is_planted: bool
) -> Iterator[dict[str, Any]]:
    """Run seeds one after the other until one fails or the time is up; what each came to."""
    words = ["-m", "tests.planted.seeds", str(first), str(last), profile, str(seconds)]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(bug, is_planted=is_planted),
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


def find_by_seeds(bug: Bug, seeds: range, profile: str = "swarm", seconds: float = 1e9) -> Found:
    """Run seeds with the bug until one fails that passes without it."""
    began, tried, first = time.monotonic(), 0, seeds.start
    trouble = ""
    while first < seeds.stop:
        left = seconds - (time.monotonic() - began)
        if tried and left <= 0:
            break
        results = list(run_seeds(bug, first, seeds.stop - 1, profile, left, is_planted=True))
        result, tried = results[-1], tried + len(results)
        if result["passed"]:
            break
        first = result["seed"] + 1
        if first == 1:
            return Found(bug, False, trouble=result["failure"])
        checker = result["checker"]
        if checker in _SLIPS or (checker in _NO_PROOF and bug.kind != "storage"):
            trouble = f"; seed {result['seed']} ended with {checker}, which proves nothing"
        elif passes_without(bug, result["seed"], profile):
            effort = f"{tried} seed{'s' * (tried > 1)}, {time.monotonic() - began:.0f} s"
            seed, where = result["seed"], f"seed {result['seed']}"
            return Found(bug, True, checker, where, effort, seed, profile, result["failure"])
        else:
            trouble = f"; seed {result['seed']} fails without the bug as well"
    effort = f"{tried} seeds, {time.monotonic() - began:.0f} s"
    return Found(bug, False, effort=effort, trouble=f"none of {tried} seeds found it{trouble}")


def passes_without(bug: Bug, seed: int, profile: str) -> bool:
    """The control of a seed."""
    results = run_seeds(bug, seed, seed, profile, 1e9, is_planted=False)
    return all(result["passed"] for result in results)
