"""Damage to what was durable: rotten bytes and writes that went elsewhere.

Owns which place a fault at rest may hit, and the way back: each `Damage` remembers what
was there, less what has been written over since (repair does that), so that an operator
of a single node can put the right bytes back.

    rot         1 to 3 flipped bits, or one sector blank, or one sector of other bytes
    misdirect   a write that was synced: its place is as before it, and its sectors
                stand somewhere else in a log, over what was there

Both hit the platter and the page cache; what was pending in a file is settled before, as
the kernel may do whenever it likes. Both parse nothing. They choose places in use (64
bytes that are not all zero), never one that is damaged already, and in a superblock
never a second of its four copies.

`but_newest` keeps a promise that the format can't: the last group of a log, blank
without a trace, together with a lost witness, looks like a clean end or a torn tail
(docs/internals/formats.md, example g). So the last group of the newest segment is not
blanked, not misdirected and not written over; bits in it may flip, which is always seen.
`but_heads` leaves the first 4,096 bytes of segments alone, which no peer can repair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from unimeter.sim.chance import Chance
from unimeter.sim.disk_content import Content, Patch, Synced
from unimeter.sim.disk_names import shown
from unimeter.storage.disk import SECTOR_BYTES

KINDS: Final = ("log", "snapshots", "outcomes", "superblock", "witness")  # of files that may rot

_WINDOW_BYTES: Final = 64  # a place is in use when so many bytes around it are not all zero
_HEAD_BYTES: Final = 4096  # of a segment
_COPY_BYTES: Final = 4096  # of a superblock
_FLIPS_MAX: Final = 3  # bits

PathFilter = Callable[[str], bool]
Chosen = Sequence[tuple[str, Content]]  # (path, file), in order


def kind_of(path: str) -> str:
    """Which of KINDS the file is, by its name, or ""."""
    folder, _, name = path.rpartition("/")
    if name in ("superblock", "synced"):
        return "witness" if name == "synced" else name
    for kind, suffix in (("log", ".seg"), ("snapshots", ".snap"), ("outcomes", ".out")):
        if name.endswith(suffix) and folder.rpartition("/")[2] == kind:
            return kind
    return ""


@dataclass
class Damage:
    """One fault at rest."""

    number: int
    told: str  # what was done
    places: list[tuple[Content, Patch]] = field(default_factory=list)

    def standing(self) -> list[tuple[Content, Patch]]:
        """The places that were neither healed nor written over whole."""
        return [(content, patch) for content, patch in self.places if any(patch.marks)]


class _Bounds(NamedTuple):
    """What a fault must leave alone, of the files it may hit."""

    but_newest: bool
    but_heads: bool
    newest: dict[str, int]  # path of the newest segment of each log: where its last group begins

    def may_damage(self, path: str, start: int, stop: int) -> bool:
        """Whether any kind of damage may stand in that range."""
        is_head = kind_of(path) == "log" and start < _HEAD_BYTES
        return not (self.but_heads and is_head)

    def may_blank(self, path: str, start: int, stop: int) -> bool:
        """Whether the range may be made to look as if it was never written."""
        newest = self.newest.get(path)
        if newest is None or not self.but_newest:
            return True
        return stop <= newest - newest % SECTOR_BYTES


class Damages:
    """All faults at rest of one disk, by number from 1 on."""

    def __init__(self) -> None:
        self.all: list[Damage] = []

    # --- undoing -------------------------------------------------------------------

    def standing(self) -> list[Damage]:
        """Those that are not wholly healed or written over, oldest first."""
        return [damage for damage in self.all if damage.standing()]

    def undo(self, number: int) -> bool:
        """Put the right bytes back; whether there was anything to do."""
        places = self.all[number - 1].standing()
        for content, patch in places:
            content.heal(patch)
        return bool(places)

    def heal(self, content: Content) -> int:
        """Put the right bytes back in one file; how many places."""
        patches = content.patches[::-1]  # what was there before the newest may be another's damage
        for patch in patches:
            content.heal(patch)
        return len(patches)

    def _note(self, told: str, *places: tuple[Content, Patch]) -> str:
        self.all.append(Damage(len(self.all) + 1, told, list(places)))
        return told

    # --- rot -----------------------------------------------------------------------

    def rot(self, files: Chosen, chance: Chance, but_newest: bool, but_heads: bool) -> str:
        """Damage one place of one of the files; first a kind is drawn, then a file."""
        bounds = _Bounds(but_newest, but_heads, _newest_of(files))
        kinds = list(dict.fromkeys(kind_of(path) for path, _ in files))
        chance.shuffle(kinds)
        for kind in kinds:
            candidates = [(path, content) for path, content in files if kind_of(path) == kind]
            chance.shuffle(candidates)
            for path, content in candidates:
                content.settle()
                windows = _windows(path, content, bounds)
                if windows:
                    return self._rot_at(path, content, chance, chance.pick(windows), bounds)
        return ""

    def _rot_at(
        self, path: str, content: Content, chance: Chance, window: int, bounds: _Bounds
    ) -> str:
        start = window - window % SECTOR_BYTES
        stop = min(start + SECTOR_BYTES, len(content.durable))
        ways = {"flip": 2.0}
        if bounds.may_damage(path, start, stop) and not content.is_damaged(start, stop):
            ways["replace"] = 1.0
            if bounds.may_blank(path, start, stop):
                ways["blank"] = 1.0
        way = chance.weighted(ways)
        if way == "flip":
            start, wrong, what = _flipped(content, chance, window)
        elif way == "blank":
            wrong, what = bytes(stop - start), "a blank sector"
        else:
            wrong, what = chance.bytes(stop - start), "a sector of other bytes"
        told = f"rot in {shown(path)} at byte {start}: {what}"
        return self._note(told, (content, content.damage(start, wrong)))

    # --- misdirected writes ----------------------------------------------------------

    def misdirect(self, files: Chosen, chance: Chance, but_newest: bool, but_heads: bool) -> str:
        """Have one remembered write gone to another place of the same log."""
        bounds = _Bounds(but_newest, but_heads, _newest_of(files))
        for _, content in files:
            content.settle()
        writes = [
            (path, content, write)
            for path, content in files
            for write in content.standing_writes()
            if _may_vanish(path, content, write, bounds)
        ]
        chance.shuffle(writes)
        for path, content, write in writes:
            offset, size, first, before, image = write
            targets = _targets(path, files, write, bounds)
            if not targets:
                continue
            other, taker, place = chance.pick(targets)
            told = (
                f"a write of {size} bytes at byte {offset} of {shown(path)} "
                f"went to byte {place} of {shown(other)}"
            )
            was = before[offset - first : offset - first + size]
            patches = (content.damage(offset, was), taker.damage(place, image))
            return self._note(told, (content, patches[0]), (taker, patches[1]))
        return ""


def _newest_of(files: Chosen) -> dict[str, int]:
    """The newest segment of each log among these files, and where its last group begins.

    A group on its way counts to what lies behind that.
    """
    newest: dict[str, tuple[str, Content]] = {}
    for path, content in files:
        if kind_of(path) == "log":
            newest[path.rpartition("/")[0]] = path, content
    return {path: content.newest_start() for path, content in newest.values()}


def _windows(path: str, content: Content, bounds: _Bounds) -> list[int]:
    """The places in use that may be damaged: offsets of 64 bytes."""
    data = content.durable
    blank = bytes(_WINDOW_BYTES)
    copies = range(0, len(data), _COPY_BYTES) if kind_of(path) == "superblock" else range(0)
    hurt = [at for at in copies if content.is_damaged(at, at + _COPY_BYTES)]
    return [
        at
        for at in range(0, len(data), _WINDOW_BYTES)
        if data[at : at + _WINDOW_BYTES] != blank[: len(data) - at]
        and bounds.may_damage(path, at, at + _WINDOW_BYTES)
        and not content.is_damaged(at, at + _WINDOW_BYTES)
        and (not hurt or at - at % _COPY_BYTES in hurt)
    ]


def _flipped(content: Content, chance: Chance, window: int) -> tuple[int, bytes, str]:
    """(offset, bytes, words) of some flipped bits in a window."""
    wrong = bytearray(content.durable[window : window + _WINDOW_BYTES])
    bits = chance.sample(range(len(wrong) * 8), chance.between(1, _FLIPS_MAX))
    for bit in bits:
        wrong[bit // 8] ^= 1 << bit % 8
    low, high = min(bits) // 8, max(bits) // 8 + 1
    return window + low, bytes(wrong[low:high]), f"{len(bits)} flipped bits"


def _may_vanish(path: str, content: Content, write: Synced, bounds: _Bounds) -> bool:
    """Whether this write may have gone elsewhere."""
    offset, size, _, before, image = write
    stop = offset + size
    return (
        len(before) == len(image)
        and before != image
        and not content.is_damaged(offset, stop)
        and bounds.may_damage(path, offset, stop)
        and (not bounds.but_newest or offset < bounds.newest.get(path, stop))
    )


def _targets(
    path: str, files: Chosen, write: Synced, bounds: _Bounds
) -> list[tuple[str, Content, int]]:
    """The places where the write may have landed: sector by sector, in every segment."""
    image = write[4]
    own = range(write[2], write[2] + len(image))
    return [
        (other, content, place)
        for other, content in files
        for place in range(0, len(content.durable) - len(image) + 1, SECTOR_BYTES)
        if bounds.may_damage(other, place, place + len(image))
        and bounds.may_blank(other, place, place + len(image))
        and not content.is_damaged(place, place + len(image))
        and not (other == path and place < own.stop and own.start < place + len(image))
        and content.durable[place : place + len(image)] != image
    ]
