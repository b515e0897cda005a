"""The swim-lane picture of a run: an SVG with a lane for each node and client, time downwards.

Owns where things stand. A lane has a box while its process runs, coloured while it leads
(a colour per term), hatched while it stands still; a line between lanes is a message from
its sending to its arrival; small marks are commits, crashes, faults and situations.

    time   world    n1        n2        c1
    0.2             ┌──┐      ┌──┐                 ┌──┐  a process that runs
    0.3             │  │──────│> │      ▌ call     ──>   a message
    0.4    fault    │▒▒│      │─ │ 7    ▌          ─ 7   entry 7 committed
    0.5             └✕─┘      │  │                 ✕     killed

Time is not drawn to scale: what happens is apart by at least a few points and a quiet
minute is no longer than `_GAP_MAX`, or a picture would be either a smear or empty.
Every shape carries the number of its happening (``data-h``) and its sentence as a tooltip.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from unimeter.sim.spans import Span, spans
from unimeter.sim.story import Happening, Word
from unimeter.sim.trace import (
    MESSAGES,
    first_word,
    lanes,
    quiet_numbers,
    sentence,
    who_of,
    word_text,
)

AXIS_WIDTH: Final = 90
LANE_WIDTH: Final = 120

_GAP_MAX: Final = 30.0  # points that any time without happenings takes at most
_POINTS_PER_SECOND: Final = 300.0
_STEP: Final = 5.0  # points a happening takes
_STEP_MESSAGE: Final = 1.0  # a message takes less: there are many
_TOP: Final = 12.0
_BOX: Final = 40  # width of a process
_LABEL_APART: Final = 11.0  # a number is written where there is room for it
_AXIS_APART: Final = 50.0

_MARKS: Final = {  # what stands for a happening that is a moment
    "kill": ("✕", "bad"),
    "power": ("✕", "bad"),
    "failed": ("✕", "bad"),
    "stopped": ("■", "dim"),
    "start": ("▸", "good"),
    "ready": ("✓", "good"),
    "fault": ("▲", "warn"),
    "cut": ("✂", "warn"),
    "heal": ("○", "good"),
    "snapshot": ("◆", "info"),
    "reach": ("★", "info"),
    "said": ("·", "dim"),
}

_LABELS: Final = {  # what is written beside it, with its first word
    "commit": "{0}",
    "lead": "term {0}",
    "power": "power",
    "failed": "failed",
    "fault": "{0}",
    "cut": "no way to {0}",
    "pause": "pause",
}
_LABEL_LETTERS: Final = 18
_LAYERS: Final = ("axis", "start", "lead", "pause", "call", "message", "mark")


class Picture:
    """The shapes of happenings `first` to the end; what was before only sets the state."""

    def __init__(self, happenings: Sequence[Happening], first: int, ending: str) -> None:
        """`ending` is written across the end: how the run failed, or nothing."""
        self.lanes = lanes(happenings)
        self._all, self._first = happenings, first
        self._x = {who: AXIS_WIDTH + LANE_WIDTH * (n + 0.5) for n, who in enumerate(self.lanes)}
        self.quiet = quiet_numbers(happenings)
        self._y = _places(happenings, first, self.quiet)
        self._end = (self._y[-1] if self._y else _TOP) + 2 * _STEP
        # What is drawn later lies above: a pause over the leader's colour over the process.
        self._layers: dict[str, list[str]] = {name: [] for name in _LAYERS}
        self._boxes()
        self._messages()
        self._marks()
        self._axis()
        if ending:
            self._ending(ending)

    @property
    def width(self) -> int:
        """Points from left to right."""
        return AXIS_WIDTH + LANE_WIDTH * len(self.lanes)

    def svg(self) -> str:
        """The picture as an element of a page."""
        height = self._end + 40
        return "\n".join(
            [
                f'<svg width="{self.width}" height="{height:.0f}" role="img" '
                'aria-label="What each node and client did, time downwards">',
                '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
                'patternTransform="rotate(45)"><rect width="2" height="6" class="hatch"/>'
                "</pattern></defs>",
                *(shape for layer in self._layers.values() for shape in layer),
                "</svg>",
            ]
        )

    def place(self, number: int) -> float:
        """Where a happening stands; what was before the picture stands at its top."""
        return self._y[number - self._first] if number >= self._first else 0.0

    # --- what lasts: processes, leaders, pauses, calls --------------------------------

    def _boxes(self) -> None:
        for span in spans(self._all):
            end = self._end if span.end is None else self.place(span.end)
            if end > 0.0:  # else it was over before the picture begins
                self._box(span, self.place(span.begin), end)

    def _box(self, span: Span, start: float, end: float) -> None:
        x, width, style = self._x[span.who] - _BOX / 2, float(_BOX), ""
        if span.kind == "lead":
            style = f' style="--hue:{_hue(span.word)}"'
        elif span.kind == "call":
            row = int(span.word) % 4 if span.word.isdigit() else 0
            x, width = x + row * _BOX / 4, _BOX / 4 - 2
        self._layers[span.kind].append(
            f'<rect class="b-{span.kind}" x="{x:.1f}" y="{start:.1f}" width="{width:.1f}" '
            f'height="{max(end - start, 2.0):.1f}"{style} {self._about(span.begin)}</rect>'
        )

    # --- messages -----------------------------------------------------------------------

    def _messages(self) -> None:
        sent: dict[Word, int] = {}
        for number in range(self._first, len(self._all)):
            happening = self._all[number]
            if happening.kind not in MESSAGES or len(happening.words) < 2:
                continue
            other, message = word_text(happening.words[0]), happening.words[1]
            if other not in self._x:
                continue
            if happening.kind == "send":
                sent[message] = number
            elif happening.kind == "drop":
                self._message(number, number, who_of(happening), other)
            else:  # a message may come twice, or in parts: each has its line
                self._message(sent.get(message, number), number, other, who_of(happening))

    def _message(self, begun: int, number: int, sender: str, to: str) -> None:
        style = "drop" if self._all[number].kind == "drop" else "m"
        x1, y1, x2, y2 = self._x[sender], self.place(begun), self._x[to], self.place(number)
        if style == "drop":
            x2 = x1 + (x2 - x1) * 0.4
            self._layers["mark"].append(_mark(x2, y2, "×", "bad", self._about(number)))
        quiet = " quiet" if number in self.quiet else ""
        self._layers["message"].append(
            f'<line class="{style}{quiet}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
            f'y2="{y2:.1f}" data-o="{escape(sender if style == "m" else to)}" '
            f"{self._about(number, begun)}</line>"
        )

    # --- moments ------------------------------------------------------------------------

    def _marks(self) -> None:
        labelled: dict[str, float] = {}
        for number in range(self._first, len(self._all)):
            happening = self._all[number]
            kind, who = happening.kind, who_of(happening)
            x, y = self._x[who], self.place(number)
            if kind in _MARKS:
                sign, style = _MARKS[kind]
                self._layers["mark"].append(_mark(x, y, sign, style, self._about(number)))
            elif kind == "commit":
                self._tick(number, x, y)
            if kind not in _LABELS:
                continue
            if kind != "commit" or y - labelled.get(who, -_LABEL_APART) >= _LABEL_APART:
                labelled[who] = y
                self._label(number, x + _BOX / 2 + 4, y)

    def _tick(self, number: int, x: float, y: float) -> None:
        self._layers["mark"].append(
            f'<rect class="tick" x="{x - _BOX / 2:.1f}" y="{y - 1:.1f}" '
            f'width="{_BOX}" height="2" {self._about(number)}</rect>'
        )

    def _label(self, number: int, x: float, y: float) -> None:
        happening = self._all[number]
        text = _LABELS[happening.kind].format(first_word(happening))[:_LABEL_LETTERS]
        self._layers["mark"].append(
            f'<text class="label" x="{x:.1f}" y="{y + 3:.1f}" '
            f"{self._about(number)}{escape(text)}</text>"
        )

    def _axis(self) -> None:
        last = -_AXIS_APART
        for number in range(self._first, len(self._all)):
            y = self.place(number)
            if y - last < _AXIS_APART:
                continue
            last = y
            self._layers["axis"].append(
                f'<line class="grid" x1="{AXIS_WIDTH - 4}" y1="{y:.1f}" x2="{self.width}" '
                f'y2="{y:.1f}"/><text class="time" x="{AXIS_WIDTH - 8}" y="{y + 4:.1f}">'
                f"{self._all[number].time_ns / 1e9:.3f} s</text>",
            )

    def _ending(self, words: str) -> None:
        self._layers["mark"].append(
            f'<rect class="ending" x="0" y="{self._end:.1f}" width="{self.width}" height="30"/>'
            f'<text class="ending-words" x="8" y="{self._end + 20:.1f}">{escape(words)}</text>'
        )

    def _about(self, number: int, begun: int | None = None) -> str:
        """The attributes all shapes have, the end of the opening tag, and the tooltip."""
        happening = self._all[number]
        words = (
            f"#{number} {happening.time_ns / 1e9:.6f} s  {who_of(happening)} {sentence(happening)}"
        )
        if begun is not None and begun != number:
            earlier = self._all[begun]
            words = f"#{begun} {who_of(earlier)} {sentence(earlier)}\n{words}"
        return (
            f'data-h="{number}" data-w="{escape(who_of(happening))}" '
            f'data-k="{escape(happening.kind)}"><title>{escape(words)}</title>'
        )


def _places(happenings: Sequence[Happening], first: int, quiet: set[int]) -> list[float]:
    """How far down each happening stands, from the first that is drawn."""
    places: list[float] = []
    place = _TOP
    before = happenings[first].time_ns if first < len(happenings) else 0
    for number in range(first, len(happenings)):
        happening = happenings[number]
        gap = min((happening.time_ns - before) / 1e9 * _POINTS_PER_SECOND, _GAP_MAX)
        before = happening.time_ns
        if number in quiet:
            place += min(gap, _STEP_MESSAGE)
        else:
            place += gap + (_STEP_MESSAGE if happening.kind in MESSAGES else _STEP)
        places.append(place)
    return places


def _mark(x: float, y: float, sign: str, style: str, about: str) -> str:
    return f'<text class="mark {style}" x="{x:.1f}" y="{y + 4:.1f}" {about}{sign}</text>'


def _hue(term: str) -> int:
    """A colour for a term, far from that of the next: steps of the golden angle."""
    return int(term) * 137 % 360 if term.isdigit() else 0
