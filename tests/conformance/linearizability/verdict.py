"""Verdicts: what a checker may say about a history."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """RIGHT and WRONG are proofs; UNKNOWN is a limit of time or size that was reached."""

    RIGHT = "linearizable"
    WRONG = "not-linearizable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, why it is not RIGHT, and how many states it took to find out."""

    verdict: Verdict
    reason: str = ""
    states: int = 0

    @property
    def is_right(self) -> bool:
        """Whether the history was proved right."""
        return self.verdict == Verdict.RIGHT


def worst(judgements: list[Judgement]) -> Judgement:
    """Return one judgement for a history of parts: one wrong part is enough."""
    states = sum(one.states for one in judgements)
    for verdict in (Verdict.WRONG, Verdict.UNKNOWN):
        for one in judgements:
            if one.verdict == verdict:
                return Judgement(verdict, one.reason, states)
    return Judgement(Verdict.RIGHT, "", states)
