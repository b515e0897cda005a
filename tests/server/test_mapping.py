"""The mapping file: its words, its refusals, and which rules hold for an item."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from unimeter import Server
from unimeter.errors import InvalidInputError
from unimeter.server.mapping import (
    RULES_MAX,
    SECTIONS,
    Rule,
    load_mapping,
    lookup,
    parse_mapping,
)

EXAMPLE = "examples/mapping.toml"
PAGE = "docs/reference/mapping.md"


def test_the_example_loads_and_is_what_the_page_shows(root: Path) -> None:
    text = (root / EXAMPLE).read_text(encoding="utf-8")
    sections = parse_mapping(text).sections
    assert all(sections[name].rules_count for name in SECTIONS), "each section has an example"
    page = (root / PAGE).read_text(encoding="utf-8")
    assert f"```toml\n{text}```" in page


def test_the_page_names_every_word_of_a_rule(root: Path) -> None:
    page = (root / PAGE).read_text(encoding="utf-8")
    for word in Rule.__struct_fields__:
        assert f"| `{word}` |" in page


def test_no_file_counts_everything_under_its_own_name() -> None:
    for section in load_mapping("").sections.values():
        assert section.unmapped == "by-name"
        assert section.rules("anything") == []


def test_rules_hold_in_the_order_of_the_file_exact_ones_and_stars_together() -> None:
    section = parse_mapping(
        """
        [[lago]]
        match = "a*"
        metric = "first"
        [[lago]]
        match = "ab"
        metric = "second"
        [[lago]]
        match = "*"
        metric = "third"
        """
    ).sections["lago"]
    assert [rule.metric for rule in section.rules("ab")] == ["first", "second", "third"]
    assert [rule.metric for rule in section.rules("a")] == ["first", "third"]
    assert [rule.metric for rule in section.rules("b")] == ["third"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =", "is not TOML"),
        ('[[cloudevent]]\nmatch = "a"', "unknown field `cloudevent`; the words are cloudevents"),
        ('[[lago]]\nmatch = "a"\nscal = 2', "lago[0]: object contains unknown field `scal`"),
        ('[[lago]]\nmetric = "a"', "lago[0]: object missing required field `match`"),
        ('[[lago]]\nmatch = ""', "lago[0].match"),
        ('[[lago]]\nmatch = "a"\nscale = 19', "lago[0].scale: expected `int` <= 18"),
        ('[[lago]]\nmatch = "a"\nvalue = 1.5', "lago[0].value"),
        ('[[lago]]\nmatch = "a"\naccount = []', "lago[0].account"),
        ('[unmapped]\nlago = "drop"', "unmapped.lago: invalid enum value 'drop'"),
        ('[[lago]]\nmatch = "a"\n' * (RULES_MAX + 1), "lago: expected `array` of length <="),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_mapping(text)
    assert said in str(caught.value)


def test_a_file_that_can_not_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="none here: No such file"):
        load_mapping(str(tmp_path / "none here"))
    (tmp_path / "latin").write_bytes(b"# \xe4")
    with pytest.raises(InvalidInputError, match="latin is not UTF-8: byte 2"):
        load_mapping(str(tmp_path / "latin"))


async def start(folder: Path, mapping_file: Path) -> None:
    async with Server(folder / "data", port=0, http_port=0, mapping_file=str(mapping_file)):
        pass


def test_a_server_does_not_start_with_a_file_that_breaks_a_rule(tmp_path: Path) -> None:
    file = tmp_path / "mapping.toml"
    file.write_text('[[lago]]\nmatch = "a"\nscal = 2')
    with pytest.raises(InvalidInputError, match=r"toml: lago\[0\]: object contains unknown"):
        asyncio.run(start(tmp_path, file))
    assert not (tmp_path / "data").exists(), "nothing was touched"


def test_a_path_finds_its_way_through_keys_that_have_dots() -> None:
    view = {"attributes": {"gen_ai.usage.input_tokens": 3, "a": {"b.c": {"d": 4}}}, "x.y": 5}
    assert lookup(view, "attributes.gen_ai.usage.input_tokens") == 3
    assert lookup(view, "attributes.a.b.c.d") == 4
    assert lookup(view, "x.y") == 5
    assert lookup(view, "attributes.gen_ai") is None
    assert lookup(view, "attributes.a.b.c.d.e") is None
    assert lookup(None, "x") is None
