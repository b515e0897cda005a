"""Kernel: the index that every table of the engine is found by, and interned strings.

`Index` maps a 32-bit tag to row numbers; the caller compares the row itself
and asks for the next candidate if it differs. One slot is one word, tag above
row + 1, zero is empty; linear probing from ``tag * size >> 32``.

A big table must not be rehashed in one go: that stalls ingest. So growth is
spread out. A second table is made and every later `reserve` moves some
clusters (runs of full slots), in circular order from an empty slot. A tag whose
home lies in the part already moved lives in the new table, any other in
the old, so each lookup still probes one table only. What has been moved is
given back to the system. All of it follows from the calls alone, never from
time, so replicas at the same index hold the same slots and a snapshot may
copy them raw.

`Interner` gives strings numbers from 1, first come first numbered, and keeps
their bytes. The alternative, hashing strings to 64-bit numbers, would let two
accounts collide.
"""

from __future__ import annotations

import cython
from cython.cimports.unimeter.engine.hashing import M64, spread

from unimeter.engine.memory import Words

SMALL = cython.declare(cython.Py_ssize_t, 65_536)  # slots rehashed at once: under a millisecond
_LOW32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)


@cython.final
@cython.cclass
class Index:
    """Tags to row numbers; rows below 2**32 - 1."""

    def __init__(self) -> None:
        self.count = 0
        self.size = 64
        self.words = Words(64)
        self.slots = self.words.view
        self.old_words = None
        self.old_slots = self.slots
        self.old_size = 0
        self.origin = 0
        self.moved = 0
        self.pos = 0
        self.in_old = False

    def first(self, tag: cython.ulonglong) -> cython.Py_ssize_t:
        """The first row whose tag is `tag`, or -1."""
        home: cython.Py_ssize_t
        self.in_old = False
        if self.old_size:
            home = cython.cast(
                cython.Py_ssize_t, (tag * cython.cast(cython.ulonglong, self.old_size)) >> 32
            )
            home -= self.origin
            if home < 0:
                home += self.old_size
            self.in_old = home >= self.moved
        return self.scan(tag, True)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def slot(self, tag: cython.ulonglong) -> cython.ulonglong:
        """The word in a tag's first slot: likely its row + 1, but only likely."""
        return self.slots[
            cython.cast(cython.Py_ssize_t, (tag * cython.cast(cython.ulonglong, self.size)) >> 32)
        ]

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def touch(self, tag: cython.ulonglong) -> None:
        """Bring a tag's first slot into the cache, without waiting for it."""
        at: cython.Py_ssize_t
        if cython.compiled:
            at = cython.cast(
                cython.Py_ssize_t, (tag * cython.cast(cython.ulonglong, self.size)) >> 32
            )
            unimeter_prefetch(cython.address(self.slots[at]))  # noqa: F821

    def following(self, tag: cython.ulonglong) -> cython.Py_ssize_t:
        """The next row after the one `first` or `following` gave, or -1."""
        return self.scan(tag, False)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def scan(self, tag: cython.ulonglong, fresh: cython.bint) -> cython.Py_ssize_t:
        # Two copies of one loop: a local view would cost an atomic count per call.
        n: cython.Py_ssize_t = self.old_size if self.in_old else self.size
        pos: cython.Py_ssize_t
        word: cython.ulonglong
        if fresh:
            pos = cython.cast(cython.Py_ssize_t, (tag * cython.cast(cython.ulonglong, n)) >> 32)
        else:
            pos = self.pos + 1
            if pos == n:
                pos = 0
        if self.in_old:
            word = self.old_slots[pos]
            while word != 0 and (word >> 32) != tag:
                pos += 1
                if pos == n:
                    pos = 0
                word = self.old_slots[pos]
        else:
            word = self.slots[pos]
            while word != 0 and (word >> 32) != tag:
                pos += 1
                if pos == n:
                    pos = 0
                word = self.slots[pos]
        self.pos = pos
        return cython.cast(cython.Py_ssize_t, word & _LOW32) - 1

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def insert(self, tag: cython.ulonglong, row: cython.Py_ssize_t) -> None:
        """Put a row in the empty slot where the last search for `tag` ended."""
        word: cython.ulonglong = (tag << 32) | cython.cast(cython.ulonglong, row + 1)
        if self.in_old:
            self.old_slots[self.pos] = word
        else:
            self.slots[self.pos] = word
        self.count += 1

    def reserve(self, rows: int) -> None:
        """Make room for `rows` more; to be called before the GIL is released."""
        need: int = self.count + rows
        if self.old_size:
            self.move(16 * rows)
            if self.old_size and (need * 4 > self.size * 3 or need * 10 > self.old_size * 9):
                self.move(self.old_size)
        if not self.old_size and need * 4 > self.size * 3:
            self._begin(max(self.size * 3 // 2, need * 3 // 2))

    def _begin(self, size: int) -> None:
        self.old_words, self.old_slots, self.old_size = self.words, self.slots, self.size
        self.words = Words(size)
        self.slots = self.words.view
        self.size = size
        self.moved = 0
        self.origin = 0
        while self.old_slots[self.origin] != 0:
            self.origin += 1
        if self.old_size <= SMALL or self.count * 10 > self.old_size * 9:
            self.move(self.old_size)

    def move(self, slots: int) -> None:
        """Move at least `slots` old slots, to the end of a cluster."""
        before: int = self.moved
        self.move_clusters(slots)
        if self.moved >= self.old_size:
            self.old_words = None
            self.old_slots = self.slots
            self.old_size = 0
            self.moved = 0
            return
        start: int = self.origin + before
        end: int = self.origin + self.moved
        if start < self.old_size and end <= self.old_size:
            self.old_words.give_back(start, end)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def move_clusters(self, slots: cython.Py_ssize_t) -> None:
        """Re-insert old slots in circular order until `slots` are done and one is empty."""
        old: cython.ulonglong[::1] = self.old_slots
        new: cython.ulonglong[::1] = self.slots
        n: cython.Py_ssize_t = self.size
        pos: cython.Py_ssize_t
        home: cython.Py_ssize_t
        word: cython.ulonglong
        done: cython.Py_ssize_t = 0
        while True:
            pos = self.origin + self.moved
            while pos >= self.old_size:
                pos -= self.old_size
            word = old[pos]
            if word == 0 and (done >= slots or self.moved >= self.old_size):
                return
            self.moved += 1
            done += 1
            if word == 0:
                continue
            # Emptied, so that the last cluster may run over into the part already moved.
            old[pos] = 0
            home = cython.cast(
                cython.Py_ssize_t, ((word >> 32) * cython.cast(cython.ulonglong, n)) >> 32
            )
            while new[home] != 0:
                home += 1
                if home == n:
                    home = 0
            new[home] = word

    def dump(self) -> list[object]:
        """The whole state as buffers, for a snapshot."""
        head = [self.count, self.size, self.old_size, self.origin, self.moved]
        parts: list[object] = [_pack(head), self.words.view]
        if self.old_size:
            parts.append(self.old_words.view)
        return parts

    def load(self, source: object) -> None:
        """Take the state that `dump` gave from a reader of words."""
        head = source.words(5)
        self.count, self.size, self.old_size, self.origin, self.moved = head
        self.words = source.array(self.size)
        self.slots = self.words.view
        self.old_slots = self.slots
        if self.old_size:
            self.old_words = source.array(self.old_size)
            self.old_slots = self.old_words.view

    def nbytes(self) -> int:
        """Bytes of the slots now held."""
        return 8 * (self.size + max(0, self.old_size - self.moved))

    def check_invariants(self) -> None:
        """Every row is in exactly one table, and the count is theirs."""
        full: int = sum(1 for w in self.words.view if w)
        if self.old_size:
            for i in range(self.old_size):
                full += self.old_slots[i] != 0
        assert full == self.count, f"index holds {full} rows, counts {self.count}"


def _pack(values: list[int]) -> bytes:
    return b"".join(int(v).to_bytes(8, "little") for v in values)


@cython.final
@cython.cclass
class Interner:
    """Byte strings numbered from 1; `find` looks up, `intern` looks up or adds."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.index = Index()
        self.count = 0
        self.used = 0
        self.rows = Words(64)
        self.places = self.rows.view
        self.heap_words = Words(64)
        self.heap = self.heap_words.view.cast("B")

    def reserve(self, strings: int, length: int) -> None:
        """Make room for `strings` of `length` bytes in all, before the GIL is released."""
        self.index.reserve(strings)
        if self.count + strings + 1 > self.places.shape[0]:
            self.places = None
            self.rows.grow(max((self.count + strings + 1) * 5 // 4, 512))
            self.places = self.rows.view
        if self.used + length > self.heap.shape[0]:
            self.heap = None
            self.heap_words.grow(max((self.used + length) * 5 // 4, 4096) // 8 + 8)
            self.heap = self.heap_words.view.cast("B")

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def tag(
        self, data: cython.uchar[::1], start: cython.Py_ssize_t, length: cython.Py_ssize_t
    ) -> cython.ulonglong:
        h: cython.ulonglong = spread(self.seed, cython.cast(cython.ulonglong, length))
        i: cython.Py_ssize_t = 0
        w: cython.ulonglong = 0
        for i in range(length):
            w = ((w << 8) & M64) | data[start + i]
            if (i & 7) == 7:
                h = spread(h, w)
                w = 0
        h = spread(h, w)
        return h >> 32

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def find(
        self, data: cython.uchar[::1], start: cython.Py_ssize_t, length: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """The number of the string, or 0."""
        return self.find_tag(data, start, length, self.tag(data, start, length))

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def find_tag(
        self,
        data: cython.uchar[::1],
        start: cython.Py_ssize_t,
        length: cython.Py_ssize_t,
        tag: cython.ulonglong,
    ) -> cython.Py_ssize_t:
        row: cython.Py_ssize_t = self.index.first(tag)
        place: cython.Py_ssize_t
        i: cython.Py_ssize_t
        while row >= 0:
            place = cython.cast(cython.Py_ssize_t, self.places[row])
            if (place & 0xFFFF) == length:
                place >>= 16
                i = 0
                while i < length and self.heap[place + i] == data[start + i]:
                    i += 1
                if i == length:
                    return row + 1
            row = self.index.following(tag)
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def intern(
        self, data: cython.uchar[::1], start: cython.Py_ssize_t, length: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """The number of the string, a new one if it is new. Needs `reserve` before."""
        tag: cython.ulonglong = self.tag(data, start, length)
        row: cython.Py_ssize_t = self.find_tag(data, start, length, tag)
        i: cython.Py_ssize_t
        if row:
            return row
        self.index.insert(tag, self.count)
        self.places[self.count] = cython.cast(cython.ulonglong, (self.used << 16) | length)
        for i in range(length):
            self.heap[self.used + i] = data[start + i]
        self.used += length
        self.count += 1
        return self.count

    def number(self, text: bytes) -> int:
        """The number of `text`, or 0; for queries."""
        view: cython.uchar[::1] = memoryview(bytearray(text or b"\0"))
        return self.find(view, 0, len(text))

    def add(self, text: bytes) -> int:
        """The number of `text`, interned; for definitions."""
        view: cython.uchar[::1] = memoryview(bytearray(text or b"\0"))
        self.reserve(1, len(text))
        return self.intern(view, 0, len(text))

    def text(self, number: int) -> bytes:
        """The bytes of string `number`."""
        assert 0 < number <= self.count, "string number out of range"
        place: int = self.places[number - 1]
        start: int = place >> 16
        return bytes(self.heap[start : start + (place & 0xFFFF)])

    def dump(self) -> list[object]:
        """The whole state as buffers, for a snapshot."""
        heap: int = (self.used + 7) // 8
        return [
            _pack([self.seed, self.count, self.used]),
            self.rows.view[: self.count],
            self.heap_words.view[:heap],
            *self.index.dump(),
        ]

    def load(self, source: object) -> None:
        """Take the state that `dump` gave."""
        self.seed, self.count, self.used = source.words(3)
        self.places = None
        self.heap = None
        self.rows = source.array(self.count, 64)
        self.places = self.rows.view
        self.heap_words = source.array((self.used + 7) // 8, 64)
        self.heap = self.heap_words.view.cast("B")
        self.index.load(source)

    def nbytes(self) -> int:
        """Bytes used by strings and their index."""
        return self.used + 8 * self.count + self.index.nbytes()
