"""One file of the fake disk: its bytes as read now, as durable, and what lies in between.

Owns the model of the page cache and of what a power cut leaves of it.

    data      what a read returns: the page cache
    durable   what is on the platter
    pending   the writes since the last sync, each with the image of the sectors it touched

A disk writes a sector of 512 bytes whole or not at all, and what it writes is the sector
as the page cache had it at some moment. So each pending write carries the image of its
sectors as it left them, and a power cut draws for every sector of every image whether it
arrived. Sectors arrive in any order, a later write without an earlier one; but inside one
sector a later image holds the earlier one too, because no disk can do otherwise.

A failed sync is the kernel's: the pages are clean from then on. What had not arrived is
lost at the next power cut, or is dropped from the cache at once, and the next sync has
nothing to write and succeeds.

Refuses to copy a file for a sync: a sync costs what was written, not what the file holds.
Rejected: a list of (offset, bytes) only, applied in a drawn order; it makes mixtures
inside one sector that no disk leaves.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from unimeter.sim.chance import Chance
from unimeter.storage.disk import SECTOR_BYTES

HISTORY_WRITES: Final = 64  # synced writes remembered per file: what a misdirected one may be
HISTORY_BYTES_MAX: Final = 16_384  # a larger write is not remembered: no single request to a disk
PENDING_MAX: Final = 64  # of writes to one place that is never synced (the witness), the newest

_SECTOR_MASK: Final = ~(SECTOR_BYTES - 1)

# (offset, bytes written, offset of the first sector, image of all touched sectors)
Pending = tuple[int, int, int, bytes]
# (offset, bytes written, offset of the first sector, that place before, image as written)
Synced = tuple[int, int, int, bytes, bytes]


@dataclass(slots=True)
class Patch:
    """Bytes that a fault at rest changed; what a later write replaced is no longer marked."""

    offset: int
    before: bytes
    marks: bytearray  # 1 where the damage stands

    def trim(self, start: int, stop: int) -> None:
        """A write landed there: those bytes are no damage any more."""
        low = max(start - self.offset, 0)
        high = min(stop - self.offset, len(self.marks))
        if low < high:
            self.marks[low:high] = bytes(high - low)


class Content:
    """The bytes of one file."""

    __slots__ = ("data", "durable", "history", "patches", "pending")

    def __init__(self, data: bytes = b"") -> None:
        """A file that holds `data` durably."""
        self.data = bytearray(data)
        self.durable = bytearray(data)
        self.pending: deque[Pending] = deque()
        self.history: deque[Synced] = deque(maxlen=HISTORY_WRITES)
        self.patches: list[Patch] = []

    # --- writing and syncing -------------------------------------------------------

    def store(self, offset: int, piece: bytes) -> None:
        """Write: readable at once, durable after `settle`."""
        data, end = self.data, offset + len(piece)
        if offset > len(data):
            data.extend(bytes(offset - len(data)))
        data[offset:end] = piece
        first = offset & _SECTOR_MASK
        image = bytes(data[first : (end + SECTOR_BYTES - 1) & _SECTOR_MASK])
        self.pending.append((offset, len(piece), first, image))
        if len(self.pending) > PENDING_MAX:
            self._forget_superseded()

    def _forget_superseded(self) -> None:
        """The oldest write, where the newest is to the same place: as if it never arrived."""
        if self.pending[0][:2] == self.pending[-1][:2]:
            self.pending.popleft()

    def pending_bytes(self) -> int:
        """Bytes that a sync would write now."""
        pending = self.pending
        return pending[0][1] if len(pending) == 1 else sum(write[1] for write in pending)

    def settle(self) -> None:
        """Sync: every pending write is durable."""
        durable = self.durable
        for offset, size, first, image in self.pending:
            stop = first + len(image)
            if size <= HISTORY_BYTES_MAX:
                self.history.append((offset, size, first, bytes(durable[first:stop]), image))
            if first > len(durable):
                durable.extend(bytes(first - len(durable)))
            durable[first:stop] = image
            if self.patches:
                self._trim(offset, offset + size)
        self.pending.clear()

    def fail_sync(self, chance: Chance) -> int:
        """A sync that fails; the number of sectors that will never be durable.

        Each differing sector has arrived, or stays readable until the next power cut, or
        is dropped from the cache now. At least one of them is lost.
        """
        touched = {
            start: 0
            for _, _, first, image in self.pending
            for start in range(first, first + len(image), SECTOR_BYTES)
        }
        changed = [start for start in touched if self._differs(start)]
        fates = {start: chance.below(3) for start in changed}
        if changed:
            fates[chance.pick(changed)] = chance.between(1, 2)
        for write in self.pending:
            self._land_some(write, {start for start, fate in fates.items() if fate == 0})
        for start, fate in fates.items():
            if fate == 2:
                self._drop_from_cache(start)
        self.pending.clear()
        return sum(fate > 0 for fate in fates.values())

    def _differs(self, start: int) -> bool:
        stop = start + SECTOR_BYTES
        return self.data[start:stop] != self.durable[start:stop]

    def _drop_from_cache(self, start: int) -> None:
        stop = min(start + SECTOR_BYTES, len(self.data))
        self.data[start:stop] = self.durable[start:stop].ljust(stop - start, b"\0")

    # --- power -------------------------------------------------------------------------

    def survive(self, chance: Chance, arrival: float) -> None:
        """What a power cut leaves: each sector of each unsynced write arrived that often."""
        for write in self.pending:
            _, _, first, image = write
            sectors = range(first, first + len(image), SECTOR_BYTES)
            self._land_some(write, {start for start in sectors if chance.hit(arrival)})
        self.pending.clear()
        self.data[:] = self.durable

    def _land_some(self, write: Pending, sectors: set[int]) -> None:
        """These sectors of the image reach the platter."""
        offset, size, first, image = write
        durable = self.durable
        for start in range(first, first + len(image), SECTOR_BYTES):
            if start not in sectors:
                continue
            piece = image[start - first : start - first + SECTOR_BYTES]
            if start > len(durable):
                durable.extend(bytes(start - len(durable)))
            durable[start : start + len(piece)] = piece
            if self.patches:
                stop = min(offset + size, start + SECTOR_BYTES)
                self._trim(max(offset, start), stop)

    # --- damage at rest ------------------------------------------------------------------

    def is_damaged(self, start: int, stop: int) -> bool:
        """Whether damage stands in that range."""
        return any(
            any(patch.marks[max(start - patch.offset, 0) : max(stop - patch.offset, 0)])
            for patch in self.patches
        )

    def damage(self, offset: int, wrong: bytes) -> Patch:
        """Have `wrong` there, on the platter and for readers; nothing may be pending."""
        assert not self.pending
        stop = offset + len(wrong)
        before = bytes(self.durable[offset:stop])
        assert len(before) == len(wrong), "damage does not make a file longer"
        self.durable[offset:stop] = wrong
        self.data[offset:stop] = wrong
        changed = zip(before, wrong, strict=True)
        patch = Patch(offset, before, bytearray(old != new for old, new in changed))
        self.patches.append(patch)
        return patch

    def heal(self, patch: Patch) -> None:
        """Put the right bytes back wherever the damage still stands."""
        self.settle()
        for at, mark in enumerate(patch.marks):
            if mark:
                place = patch.offset + at
                self.durable[place] = self.data[place] = patch.before[at]
        patch.marks[:] = bytes(len(patch.marks))
        self.patches = [one for one in self.patches if one is not patch]

    def _trim(self, start: int, stop: int) -> None:
        for patch in self.patches:
            patch.trim(start, stop)
        self.patches = [patch for patch in self.patches if any(patch.marks)]

    # --- what the disk did -----------------------------------------------------------------

    def standing_writes(self) -> list[Synced]:
        """The remembered synced writes whose bytes still stand whole, oldest first."""
        return [write for write in self.history if self._stands(write)]

    def _stands(self, write: Synced) -> bool:
        offset, size, first, _, image = write
        piece = image[offset - first : offset - first + size]
        return any(piece) and self.durable[offset : offset + size] == piece

    def newest_start(self) -> int:
        """No later than the first byte of the last group that was made durable here.

        What arrived without a sync, in a power cut, lies behind it.
        """
        standing = self.standing_writes()
        return standing[-1][0] if standing else 0
