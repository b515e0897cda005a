"""docs/reference/sdk.md, run: its examples print what it says, its tables name what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import unimeter
from unimeter import Client
from unimeter.client.surface import AlertStream, Metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sdk.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", TEXT, re.DOTALL)


def test_every_python_block_has_its_output() -> None:
    assert len(EXAMPLES) == TEXT.count("```python") >= 4


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_prints_what_the_page_says(
    number: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    code, expected = EXAMPLES[number]
    if "localhost:7001" in code:
        node = request.getfixturevalue("node")
        code = code.replace("localhost:7001", node.address)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == (expected, "")


@pytest.mark.parametrize(
    ("cls", "prefix"), [(Client, ""), (Metrics, "metrics."), (AlertStream, "")]
)
def test_every_public_method_is_on_the_page(cls: type, prefix: str) -> None:
    for name in dir(cls):
        if not name.startswith("_"):
            assert f"`{prefix}{name}" in TEXT or f"{prefix}{name}(" in TEXT, name


def test_every_error_is_on_the_page() -> None:
    for name in unimeter.__all__:
        if name.endswith("Error"):
            assert name in TEXT, name
