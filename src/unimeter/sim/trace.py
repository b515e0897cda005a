"""The story of one run in sentences: what `unimeter simulate --trace` prints.

Owns a sentence for each kind of happening. A kind without one, or with fewer words than
its sentence needs, is told with its bare words: a trace must never hide what it does not
know. Numbers (#12) are places in the story and the same as on the page.

    #       seconds       since      who    what
    #41     3.204118     +0.000210   n2     becomes leader of term 3
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from unimeter.sim.result import Result
from unimeter.sim.story import Happening, Word

SENTENCES: Final[dict[str, str]] = {
    "start": "starts",
    "ready": "is ready",
    "kill": "is killed",
    "power": "loses its power",
    "pause": "stands still for {0} s",
    "resume": "goes on",
    "stop": "is asked to stop",
    "stopped": "has stopped",
    "failed": "stops itself: {0}",
    "said": "says: {0}",
    "lead": "becomes leader of term {0}",
    "send": "sends message {1} to {0}: {2}, {3} bytes",
    "deliver": "hears message {1} from {0}",
    "drop": "message {1} to {0} is lost",
    "cut": "can't reach {0} any more",
    "heal": "heals",
    "fault": "fault: {0}",
    "commit": "commits entry {0}",
    "snapshot": "has a snapshot of entry {0}",
    "call": "call {0}: {1}",
    "reply": "call {0} ends: {1}",
    "alert": "is handed alert {0}",
    "reach": "situation reached: {0}",
}
"""By kind, with the words of the happening by number; further words follow the sentence."""

MESSAGES: Final = ("send", "deliver", "drop")
"""Kinds that are about one message; their words begin with the other end and its number."""

_QUIET: Final = ("MsgHeartbeat", "MsgHeartbeatResp", "ping", "pong")
_WORLD: Final = "world"
_ADDRESS: Final = re.compile(r"\b10\.0\.([01])\.(\d+)\b")
"""Addresses of the fake network: 10.0.0.2 is the host of node n2, 10.0.1.2 that of client c2."""


def trace_lines(result: Result) -> Iterator[str]:
    """The story, one line for each happening, under a head."""
    yield f"{'#':<8} {'seconds':>12} {'since':>12}  {'who':<6} what"
    before = 0
    for number, happening in enumerate(result.happenings):
        since = (happening.time_ns - before) / 1e9
        before = happening.time_ns
        yield (
            f"{f'#{number}':<8} {happening.time_ns / 1e9:12.6f} {f'+{since:.6f}':>12}  "
            f"{who_of(happening):<6} {sentence(happening)}"
        ).rstrip()


def sentence(happening: Happening) -> str:
    """What happened, on one line."""
    words = [word_text(word) for word in happening.words]
    template = SENTENCES.get(happening.kind)
    used = template.count("{") if template else 0
    if template is None or len(words) < used:
        return " ".join([happening.kind, *words])
    rest = ", ".join(word for word in words[used:] if word)
    return template.format(*words) + (f" ({rest})" if rest else "")


def who_of(happening: Happening) -> str:
    """Whose it is: of a node's or client's host too, it is their lane."""
    return _named(happening.who)


def word_text(word: Word) -> str:
    """A word of a happening as text without line ends, hosts by the name of their lane."""
    text = word.hex() if isinstance(word, bytes) else str(word)
    return _named(" ".join(text.split()))


def first_word(happening: Happening) -> str:
    """The first word as text, or nothing."""
    return word_text(happening.words[0]) if happening.words else ""


def _named(text: str) -> str:
    return _ADDRESS.sub(lambda found: "nc"[int(found[1])] + found[2], text)


def lanes(happenings: Iterable[Happening]) -> list[str]:
    """Everybody in the story: the world, the nodes, the clients, each by number."""
    return sorted({who_of(happening) for happening in happenings}, key=_lane_order)


def _lane_order(who: str) -> tuple[int, int, str]:
    if who == _WORLD:
        return 0, 0, who
    number = int(who[1:]) if who[1:].isdigit() else 0
    return (1 if who.startswith("n") else 2), number, who


def quiet_numbers(happenings: Sequence[Happening]) -> set[int]:
    """Places of messages that only say that a node is alive: hidden at first on the page."""
    quiet: set[int] = set()
    messages: set[Word] = set()
    for number, happening in enumerate(happenings):
        if happening.kind not in MESSAGES or len(happening.words) < 2:
            continue
        message = happening.words[1]
        if happening.kind == "send" and any(word in _QUIET for word in happening.words[2:]):
            messages.add(message)
        if message in messages:
            quiet.add(number)
    return quiet
