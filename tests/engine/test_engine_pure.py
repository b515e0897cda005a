"""Compiled and interpreted kernels give the same bytes (P10), and replays of a log too (P4)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engine.dice import throw

from unimeter.engine import COMPILED

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(200, 212)
SCRIPT = """
import sys
from tests.engine.dice import throw
from unimeter.engine import COMPILED
assert not COMPILED
for seed in map(int, sys.argv[1:]):
    print(throw(seed).machine.state_hash())
"""


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="the kernels are interpreted here already")
def test_interpreted_kernels_reach_the_same_bytes() -> None:
    environment = {
        **os.environ,
        "UNIMETER_PURE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, SEEDS)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [throw(seed).machine.state_hash() for seed in SEEDS]


def test_the_same_log_gives_the_same_bytes_twice() -> None:
    assert throw(300).machine.state_hash() == throw(300).machine.state_hash()
