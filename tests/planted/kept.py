"""What found each bug the last time: `found.toml`, written by `make planted ARGS=--keep`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.planted.finding import Found

PATH = Path(__file__).with_name("found.toml")
_HEAD = """\
# Which simulated seed finds which planted bug: `make planted ARGS=--keep` writes this file.
# A bug that is not here is found by the test that it names.
"""


@dataclass(frozen=True)
class Kept:
    """A seed that found a bug, and the checker that spoke."""

    seed: int
    profile: str
    checker: str


def kept_seeds() -> dict[str, Kept]:
    """The seeds by the bug's name."""
    if not PATH.exists():
        return {}
    found = tomllib.loads(PATH.read_text(encoding="utf-8"))
    return {name: Kept(**fields) for name, fields in found.items()}


def keep(results: Iterable[Found]) -> None:
    """Note the seeds of these searches; what was not searched for stays as it is."""
    seeds = kept_seeds()
    for found in results:
        if found.is_found:
            seeds.pop(found.bug.name, None)
            if found.seed:
                seeds[found.bug.name] = Kept(found.seed, found.profile, found.finder)
    blocks = [
        f'["{name}"]\nseed = {one.seed}\nprofile = "{one.profile}"\nchecker = "{one.checker}"\n'
        for name, one in sorted(seeds.items())
    ]
    PATH.write_text("\n".join([_HEAD, *blocks]), encoding="utf-8")
