"""What lasts in a story: processes, leaders, pauses and calls, each with its begin and end.

Owns which happening ends which. A process ends with its death or the power of the world,
and takes its pause, its lead and its calls along; a leader ends when another leads; a pause
when its time is over, whether somebody says so or not; a call with its reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from unimeter.sim.story import Happening
from unimeter.sim.trace import first_word, who_of

_BEGINS: Final = ("start", "lead", "pause", "call")
_ENDS: Final = ("kill", "power", "stopped", "failed")
_WORLD: Final = "world"


@dataclass
class Span:
    """Something that lasts, from one happening to another."""

    who: str
    kind: str  # start (a process), lead, pause or call
    begin: int  # place in the story
    word: str  # the first of the beginning: a term, a call's number
    end: int | None = None  # None: it lasts to the end of the story
    until_ns: int | None = None  # a pause says how long it is


def spans(happenings: Sequence[Happening]) -> list[Span]:
    """All of a story, in the order of their beginnings."""
    found: list[Span] = []
    lasting: list[Span] = []
    for number, happening in enumerate(happenings):
        for span in lasting:
            if _is_end(span, happening):
                span.end = number
        lasting = [span for span in lasting if span.end is None]
        if happening.kind in _BEGINS:
            lasting.append(_span(number, happening))
            found.append(lasting[-1])
    return found


def _span(number: int, happening: Happening) -> Span:
    word = first_word(happening)
    span = Span(who_of(happening), happening.kind, number, word)
    if span.kind == "pause":
        try:
            span.until_ns = happening.time_ns + round(float(word) * 1e9)
        except ValueError:
            pass  # no number: somebody will say that it is over
    return span


def _is_end(span: Span, happening: Happening) -> bool:
    who, kind = who_of(happening), happening.kind
    if span.until_ns is not None and happening.time_ns >= span.until_ns:
        return True
    if kind in _ENDS:
        return who == span.who or (who == _WORLD and span.kind != "call")
    if kind == "lead":
        return span.kind == "lead"
    if kind == "reply":
        return who == span.who and span.kind == "call" and span.word == first_word(happening)
    if who != span.who:
        return False
    return (kind, span.kind) in (("resume", "pause"), ("start", "start"), ("pause", "pause"))
