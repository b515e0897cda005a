"""The seeds that once failed, kept in `seeds.txt` beside this module, and fresh ones.

A line is a seed, a profile and what it found; what it found is not optional, because a
number alone helps nobody a year later.

    184467 swarm  # a follower acknowledged an entry that its disk had refused
"""

from __future__ import annotations

import os
from importlib import resources
from typing import Final, NamedTuple

from unimeter.errors import InvalidInputError
from unimeter.sim.result import PROFILES
from unimeter.sim.worker import Task

FILE: Final = "seeds.txt"
SEED_MAX: Final = 2**64 - 1  # what a `Chance` is made from

_FRESH_BITS: Final = 48
"""Of a fresh seed: short enough to be copied by hand, too many to be drawn twice."""


class KeptSeed(NamedTuple):
    """One line of the file."""

    seed: int
    profile: str
    found: str

    @property
    def task(self) -> Task:
        """What to run."""
        return Task(self.seed, self.profile)


def kept_seeds() -> list[KeptSeed]:
    """All seeds of the file, in its order."""
    return parse(resources.files("unimeter.sim").joinpath(FILE).read_text(encoding="utf-8"))


def parse(text: str) -> list[KeptSeed]:
    """Read the file's text; InvalidInputError names the line that is wrong."""
    found: dict[tuple[int, str], KeptSeed] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        kept = _parse_line(line, f"{FILE}, line {number}")
        if (kept.seed, kept.profile) in found:
            raise InvalidInputError(f"{FILE}, line {number}: seed {kept.seed} is there already")
        found[kept.seed, kept.profile] = kept
    return list(found.values())


def _parse_line(line: str, place: str) -> KeptSeed:
    words, _, note = line.partition("#")
    parts = words.split()
    if len(parts) != 2 or not note.strip():
        raise InvalidInputError(f"{place}: must be 'SEED PROFILE  # what it found', not {line!r}")
    seed, profile = parts
    if not (seed.isascii() and seed.isdigit() and int(seed) <= SEED_MAX):
        raise InvalidInputError(f"{place}: a seed is a number from 0 to {SEED_MAX}, not {seed!r}")
    if profile not in PROFILES:
        raise InvalidInputError(f"{place}: a profile is {', '.join(PROFILES)}, not {profile!r}")
    return KeptSeed(int(seed), profile, note.strip())


def fresh_seed() -> int:
    """A seed nobody has run: the only draw in this package that can't be repeated."""
    return int.from_bytes(os.urandom(8), "little") >> (64 - _FRESH_BITS)
