"""The kept seeds: the file can be read, and a bad line is named."""

from __future__ import annotations

import pytest

from unimeter.errors import InvalidInputError
from unimeter.sim.seeds import KeptSeed, fresh_seed, kept_seeds, parse


def test_lines_are_read_with_what_they_found() -> None:
    text = "# a comment\n\n17 swarm  # a lost event\n  18   lite # another # one\n"
    assert parse(text) == [
        KeptSeed(17, "swarm", "a lost event"),
        KeptSeed(18, "lite", "another # one"),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("17", "SEED PROFILE  # what it found"),
        ("17 swarm", "what it found"),
        ("17 swarm #", "what it found"),
        ("17 swarm lite # x", "SEED PROFILE"),
        ("-1 swarm # x", "a number from 0"),
        ("18446744073709551616 swarm # x", "a number from 0"),
        ("x swarm # x", "not 'x'"),
        ("17 swarms # x", "swarm, lite, soak, not 'swarms'"),
        ("16 swarm # twice", "seed 16 is there already"),
    ],
)
def test_a_bad_line_is_named(line: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=r"seeds\.txt, line 2: ") as caught:
        parse(f"16 swarm # x\n{line}\n")
    assert words in str(caught.value)


def test_the_file_of_the_package_is_readable() -> None:
    assert all(kept.found for kept in kept_seeds())


def test_fresh_seeds_differ_and_can_be_copied_by_hand() -> None:
    seeds = [fresh_seed() for _ in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**48 for seed in seeds)
