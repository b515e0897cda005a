"""The reference page is what --help says, and every help text is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unimeter.cli import exit_codes, reference
from unimeter.cli.exit_codes import ExitCode

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def sections() -> list[tuple[str, str]]:
    return re.findall(r"^## (unimeter.*?)\n(.*?)(?=^## |\Z)", reference.page(), re.M | re.S)


def test_the_reference_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.page(), (
        "run: python -m unimeter.cli.reference docs/reference/cli.md"
    )


def test_the_page_has_every_verb_of_the_command() -> None:
    names = [name for name, _ in sections()]
    for verb in reference.VERBS:
        assert f"unimeter {verb}" in names
    assert "unimeter metric create" in names


@pytest.mark.parametrize(("name", "words"), sections())
def test_every_help_has_examples_that_name_the_command(name: str, words: str) -> None:
    if name != "unimeter metric":
        examples = re.split(r"Examples?:", words)[-1]
        assert name in examples, "a help without an example helps little"


def test_every_exit_code_has_one_meaning() -> None:
    assert set(exit_codes.MEANINGS) == set(ExitCode)
    assert all(f"| {code.value} |" in reference.page() for code in ExitCode)
