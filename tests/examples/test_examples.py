"""The examples run, and the guides show what they print.

A guide's ``console`` blocks are transcripts: a line after ``$`` is a command,
the lines under it are its output. `python examples/...` is run on a node of its
own and against a running one; `unimeter ...` against the running one, after the
example. So a guide can't show what does not happen.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unimeter.demo.process import NodeProcess

ROOT = Path(__file__).parents[2]
GUIDES = {
    "api_billing": "api-billing.md",
    "infrastructure": "infrastructure.md",
    "seats": "seats.md",
    "prepaid_credits": "prepaid-credits.md",
    "webhook_receiver": "webhooks.md",
}
LINES_MAX = 80


def transcripts(guide: str) -> Iterator[tuple[str, str]]:
    """Each command of a guide with the output shown under it."""
    text = (ROOT / "docs" / "guides" / guide).read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.replace("\\\n", "").partition("\n")
            yield command, output


def execute(command: str, address: str = "") -> str:
    """What a command prints; it must end with 0 and say nothing on stderr."""
    program, *arguments = shlex.split(command)
    words = [sys.executable, *(["-m", "unimeter"] if program == "unimeter" else []), *arguments]
    if program == "python" and address:
        words.append(address)
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "UNIMETER_SERVER": address},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize(("example", "guide"), GUIDES.items())
def test_an_example_prints_what_its_guide_shows(example: str, guide: str) -> None:
    shown = dict(transcripts(guide))
    assert execute(f"python examples/{example}.py") == shown[f"python examples/{example}.py"]


@pytest.mark.parametrize(("example", "guide"), GUIDES.items())
def test_a_guides_commands_print_what_it_shows(example: str, guide: str, node: NodeProcess) -> None:
    """After the example ran a second time too: its events have ids, so no total changes."""
    shown = list(transcripts(guide))
    assert shown[0][0] == f"python examples/{example}.py"
    for command, output in shown:
        assert execute(command, node.address) == output, command
    execute(shown[0][0], node.address)
    for command, output in shown[1:]:
        assert execute(command, node.address) == output, command


@pytest.mark.parametrize("example", [*GUIDES, "node"])
def test_an_example_is_short(example: str) -> None:
    text = (ROOT / "examples" / f"{example}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < LINES_MAX
