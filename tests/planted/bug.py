"""What a planted bug is, and who is known to find it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tests.planted.planting import Edit

_SLIP = re.compile(
    r"^E +(\w+\.)*(AttributeError|ImportError|NameError|StaleBug|SyntaxError|TypeError|"
    r"UnboundLocalError)\b",
    re.MULTILINE,
)
Kind = Literal["raft", "storage", "engine", "sessions", "server", "client"]


@dataclass(frozen=True)
class Test:
    """A named test that fails with the bug, and why."""

    __test__ = False  # not one of pytest's own

    node_id: str
    says: str  # a pattern: it stands in what pytest prints, or the test failed for another reason

    def is_reason(self, output: str) -> bool:
        """Whether the test failed for the reason that it should, and not by a slip in the bug."""
        return bool(re.search(self.says, output)) and not _SLIP.search(output)


@dataclass(frozen=True)
class Bug:
    """A mistake that somebody could make, or has made."""

    name: str
    kind: Kind
    story: str  # what goes wrong, in one sentence
    edits: tuple[Edit, ...]
    test: Test | None = None  # a directed test that finds it as well, or alone
    is_simulated: bool = True  # False: no history of a cluster can show it; only the test does

    @property
    def is_in_kernel(self) -> bool:
        """Whether it needs the interpreted kernels."""
        return any(edit.is_in_kernel for edit in self.edits)
