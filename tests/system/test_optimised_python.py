"""`python -O` removes the assertions that keep a wrong total from being answered: refused."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("flag", ["-O", "-OO"])
@pytest.mark.parametrize(
    "words",
    [["-m", "unimeter", "version"], ["-m", "unimeter", "serve"], ["-c", "import unimeter"]],
    ids=["version", "serve", "import"],
)
def test_optimised_python_is_refused_with_the_reason(flag: str, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, flag, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "-O" in done.stderr
    assert "assert" in done.stderr
    assert done.stdout == ""
