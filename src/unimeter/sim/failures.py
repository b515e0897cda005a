"""How a run of the simulator fails: a promise was broken, and which checker saw it."""

from __future__ import annotations


class CheckFailed(AssertionError):
    """A promise was broken."""

    def __init__(self, checker: str, sentence: str) -> None:
        super().__init__(f"{checker}: {sentence}")
        self.checker = checker  # the class that found it
        self.sentence = sentence  # what was expected and what was found


def check(condition: bool, checker: str, sentence: str) -> None:
    """Raise CheckFailed unless the condition holds. For cheap sentences only."""
    if not condition:
        raise CheckFailed(checker, sentence)
