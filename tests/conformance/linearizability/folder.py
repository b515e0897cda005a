"""Judging a folder of histories whose verdicts are known.

The verdict of a file is in `verdicts.txt` beside it (a name and a verdict a
line), or in its name (`c10-bad.txt`, `c10-ok.txt`). Folders inside are judged
too. A file that has no verdict or is no history is passed over, unless
verdicts.txt names it: then it counts, and not as right.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conformance.linearizability.forms import maybe_checker
from tests.conformance.linearizability.verdict import Judgement, Verdict

VERDICTS_FILE: Final = "verdicts.txt"
SECONDS_PER_HISTORY: Final = 30.0
NAMED: Final = {
    "linearizable": Verdict.RIGHT,
    "ok": Verdict.RIGHT,
    "good": Verdict.RIGHT,
    "not-linearizable": Verdict.WRONG,
    "bad": Verdict.WRONG,
}


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one file."""

    path: Path
    expected: Verdict
    judgement: Judgement
    seconds: float

    @property
    def is_as_expected(self) -> bool:
        """Whether the verdict is the known one; UNKNOWN never is."""
        return self.judgement.verdict == self.expected

    def __str__(self) -> str:
        mark = "right" if self.is_as_expected else f"NOT RIGHT, expected {self.expected.value}"
        found = f"{self.judgement.verdict.value} ({self.seconds:.2f} s)"
        return f"{self.path.parent.name}/{self.path.name}: {found}: {mark}"


def judge_folder(folder: Path, seconds: float = SECONDS_PER_HISTORY) -> Iterator[Line]:
    """Yield one line a history, in order of names."""
    for path, expected in histories(folder):
        started = time.monotonic()
        yield Line(path, expected, judge(path, seconds), time.monotonic() - started)


def judge(path: Path, seconds: float = SECONDS_PER_HISTORY) -> Judgement:
    """Judge one file within a time."""
    give_up = time.monotonic() + seconds
    if not path.is_file():
        return Judgement(Verdict.UNKNOWN, "no such file")
    try:
        checker = maybe_checker(path)
    except ValueError as error:
        return Judgement(Verdict.UNKNOWN, str(error))
    return checker(give_up) if checker else Judgement(Verdict.UNKNOWN, "no history")


def histories(folder: Path) -> list[tuple[Path, Verdict]]:
    """Return the files with a known verdict, from here downwards."""
    found: dict[Path, Verdict] = {}
    for table in sorted(folder.rglob(VERDICTS_FILE)):
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                name, verdict = line.split(maxsplit=1)
                found[table.parent / name] = NAMED[verdict.strip()]
    for path in sorted(folder.rglob("*")):
        word = re.search(r"[-_](ok|good|bad)$", path.stem)
        if word and path.is_file() and path not in found and maybe_is_history(path):
            found[path] = NAMED[word[1]]
    return sorted(found.items())


def maybe_is_history(path: Path) -> bool:
    """Whether a file has one of the known forms, or tries to and is damaged."""
    try:
        return maybe_checker(path) is not None
    except ValueError:
        return True
