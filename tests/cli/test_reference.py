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
    written, fresh = PAGE.read_text(encoding="utf-8"), reference.page()
    if reference.made_with() not in written:
        # Another release of click or Python lays help out differently; options are options.
        written, fresh = str(options_of(written)), str(options_of(fresh))
    assert written == fresh, "run: python -m unimeter.cli.reference docs/reference/cli.md"


def options_of(page: str) -> list[str]:
    """Every option named at the beginning of a line."""
    return re.findall(r"^ +(?:-h, )?(--[a-z-]+)", page, re.M)


def test_another_release_of_click_still_compares_the_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(options_of(reference.page())) > 100
    monkeypatch.setattr(reference, "made_with", lambda: "made with another")
    test_the_reference_page_is_fresh()


def test_the_page_has_every_verb_of_the_command() -> None:
    names = [name for name, _ in sections()]
    for verb in reference.VERBS:
        assert f"unimeter {verb}" in names
    assert "unimeter metric create" in names


@pytest.mark.parametrize(("name", "words"), sections())
def test_every_help_has_examples_that_name_the_command(name: str, words: str) -> None:
    if name not in ("unimeter metric", "unimeter keys", "unimeter webhooks"):  # groups
        examples = re.split(r"Examples?:", words)[-1]
        assert name in examples, "a help without an example helps little"


def test_every_exit_code_has_one_meaning() -> None:
    assert set(exit_codes.MEANINGS) == set(ExitCode)
    assert all(f"| {code.value} |" in reference.page() for code in ExitCode)
