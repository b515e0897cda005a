"""Kernel: the event keys of the last 35 days, exactly.

A key is the keyed 128-bit hash of what makes an event itself. It is kept with
the day it was counted on (of the log's clock) and 18 bits of its body, which
tell a duplicate from a conflict. One open-addressed table holds them all:

    words   lo0 hi0 lo1 hi1 ...      16 bytes a slot, both zero = empty
    meta    day << 18 | body          4 bytes a slot

A key's home is the first of four slots that share a cache line, so a table may
get fuller before a search costs a second line: it is made for 53 % and grows at
85 %, which is 23 to 38 bytes a key and moves each key 1.6 times in its life.

A key older than the window is as good as absent: its slot is taken over when
the same key comes again, and it is left behind when the table moves. Growth is
spread out exactly as in `tables.Index`. A table per day was rejected: it would
cost up to 36 probes for every new key.

The window is counted in whole days of entry timestamps: a key counted on day d
is remembered through day d + 35, so for 35 to 36 days.
"""

from __future__ import annotations

import cython

from unimeter.engine.memory import Words
from unimeter.limits import KEY_WINDOW_DAYS

_WINDOW = cython.declare(cython.ulonglong, KEY_WINDOW_DAYS)
_BODY = cython.declare(cython.uint, 0x3FFFF)
_SMALL = cython.declare(cython.Py_ssize_t, 65_536)
DAY_ZERO = 10_957  # 2000-01-01, in days since 1970: 14 bits reach to 2044, then again
_DAY_BITS = cython.declare(cython.ulonglong, 0x3FFF)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def home_of(hi: cython.ulonglong, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The slot where a key's search begins; in the order of `hi` in a table of any size."""
    return cython.cast(
        cython.Py_ssize_t,
        (((hi >> 32) * (cython.cast(cython.ulonglong, size) >> 2)) >> 32) << 2,
    )


@cython.final
@cython.cclass
class KeyTable:
    """Which keys were counted in the window; `claim` answers and remembers in one step."""

    def __init__(self) -> None:
        self.size = 64
        self.words = Words(128)
        self.slots = self.words.view
        self.meta_words = Words(32)
        self.meta = self.meta_words.view.cast("B").cast("I")
        self.old_words = None
        self.old_meta_words = None
        self.old_slots = self.slots
        self.old_meta = self.meta
        self.old_size = 0
        self.origin = 0
        self.moved = 0
        self.used = 0
        self.today = 0
        self.counted: dict[int, int] = {}

    def set_day(self, timestamp_ns: int) -> None:
        """Advance to the day of an entry; to be called before its keys are claimed."""
        day = timestamp_ns // 86_400_000_000_000 - DAY_ZERO
        self.today = (day if day > 0 else 0) & 0x3FFF

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def claim(
        self, lo: cython.ulonglong, hi: cython.ulonglong, body: cython.ulonglong
    ) -> cython.int:
        """0: new, and now remembered. 1: counted before. 2: counted with another body.

        Needs `reserve` before. `body` is any hash of the rest of the event.
        """
        n: cython.Py_ssize_t = self.size
        pos: cython.Py_ssize_t
        in_old: cython.bint = False
        meta: cython.uint
        mark: cython.uint = cython.cast(
            cython.uint, (self.today << 18) | (body & cython.cast(cython.ulonglong, _BODY))
        )
        if lo == 0 and hi == 0:
            lo = 1
        if self.old_size:
            pos = home_of(hi, self.old_size) - self.origin
            if pos < 0:
                pos += self.old_size
            in_old = pos >= self.moved
        if in_old:
            n = self.old_size
            pos = home_of(hi, n)
            while self.old_slots[2 * pos] != lo or self.old_slots[2 * pos + 1] != hi:
                if self.old_slots[2 * pos] == 0 and self.old_slots[2 * pos + 1] == 0:
                    self.old_slots[2 * pos] = lo
                    self.old_slots[2 * pos + 1] = hi
                    self.old_meta[pos] = mark
                    self.used += 1
                    return 0
                pos += 1
                if pos == n:
                    pos = 0
            meta = self.old_meta[pos]
        else:
            pos = home_of(hi, n)
            while self.slots[2 * pos] != lo or self.slots[2 * pos + 1] != hi:
                if self.slots[2 * pos] == 0 and self.slots[2 * pos + 1] == 0:
                    self.slots[2 * pos] = lo
                    self.slots[2 * pos + 1] = hi
                    self.meta[pos] = mark
                    self.used += 1
                    return 0
                pos += 1
                if pos == n:
                    pos = 0
            meta = self.meta[pos]
        if self.age(meta) > _WINDOW:
            if in_old:
                self.old_meta[pos] = mark
            else:
                self.meta[pos] = mark
            return 0
        return 1 if (meta & _BODY) == (mark & _BODY) else 2

    def remember(self, lo: int, hi: int, body: int) -> int:
        """`reserve` and `claim` one key, for Python callers."""
        self.reserve(1)
        answer = self.claim(lo, hi, body)
        self.note(answer == 0)
        return answer

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def touch(self, hi: cython.ulonglong) -> None:
        """Bring a key's first slot and its meta word into the cache. Not by reading them:
        a page that was never written would be mapped twice, and loads would wait for each other.
        """
        pos: cython.Py_ssize_t
        if cython.compiled:
            if self.old_size:
                pos = home_of(hi, self.old_size)
                unimeter_prefetch(cython.address(self.old_slots[2 * pos]))  # noqa: F821
                unimeter_prefetch(cython.address(self.old_meta[pos]))  # noqa: F821
            pos = home_of(hi, self.size)
            unimeter_prefetch(cython.address(self.slots[2 * pos]))  # noqa: F821
            unimeter_prefetch(cython.address(self.meta[pos]))  # noqa: F821

    def age(self, meta: cython.uint) -> cython.ulonglong:
        """Days since the key was counted."""
        return (self.today - (meta >> 18)) & _DAY_BITS

    def note(self, new: int) -> None:
        """Count `new` keys for today, for sizing the next table."""
        if new:
            self.counted[self.today] = self.counted.get(self.today, 0) + new

    def live(self) -> int:
        """Keys inside the window (one that was renewed may count twice)."""
        today = int(self.today)
        gone = [d for d in self.counted if ((today - d) & 0x3FFF) > KEY_WINDOW_DAYS]
        for day in gone:
            del self.counted[day]
        return sum(self.counted.values())

    def reserve(self, keys: int) -> None:
        """Make room for `keys` more; to be called before the GIL is released."""
        if self.old_size:
            self.move(32 * keys)
            if self.old_size and (self.used + keys) * 10 > self.old_size * 9:
                self.move(self.old_size)
            if self.old_size and (self.used + keys) * 5 > self.size * 4:
                self.move(self.old_size)
        if not self.old_size and (self.used + keys) * 20 > self.size * 17:
            self._begin(max(64, (min(self.live(), self.used) + keys) * 19 // 10 // 4 * 4))

    def _begin(self, size: int) -> None:
        self.old_words, self.old_slots, self.old_size = self.words, self.slots, self.size
        self.old_meta_words, self.old_meta = self.meta_words, self.meta
        self.words = Words(2 * size)
        self.slots = self.words.view
        self.meta_words = Words((size + 1) // 2)
        self.meta = self.meta_words.view.cast("B").cast("I")
        self.size = size
        self.moved = 0
        self.origin = 0
        while self.old_slots[2 * self.origin] or self.old_slots[2 * self.origin + 1]:
            self.origin += 1
        if self.old_size <= _SMALL or self.used * 10 > self.old_size * 9:
            self.move(self.old_size)

    def move(self, slots: int) -> None:
        """Move at least `slots` old slots, to the end of a cluster."""
        before: int = self.moved
        self._populate(before, min(before + slots + 256, self.old_size))
        self.move_clusters(slots)
        if self.moved >= self.old_size:
            self.old_words = None
            self.old_meta_words = None
            self.old_slots = self.slots
            self.old_meta = self.meta
            self.old_size = 0
            self.moved = 0
            return
        start: int = self.origin + before
        end: int = self.origin + self.moved
        if start < self.old_size and end <= self.old_size:
            self.old_words.give_back(2 * start, 2 * end)

    def _populate(self, begin: int, end: int) -> None:
        """Back the part of the new table that the next moves fill; homes keep their order."""
        new, old, origin = int(self.size), int(self.old_size), int(self.origin)
        for first, last in (
            (origin + begin, min(origin + end, old)),
            (origin + begin - old, origin + end - old),
        ):
            if 0 <= first < last:
                start, stop = first * new // old, min(last * new // old + 64, new)
                self.words.populate(2 * start, 2 * stop)
                self.meta_words.populate(start // 2, stop // 2 + 1)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def move_clusters(self, slots: cython.Py_ssize_t) -> None:
        """Re-insert old keys still in the window, until `slots` are done and one is empty."""
        n: cython.Py_ssize_t = self.size
        pos: cython.Py_ssize_t
        home: cython.Py_ssize_t
        lo: cython.ulonglong
        hi: cython.ulonglong
        done: cython.Py_ssize_t = 0
        while True:
            pos = self.origin + self.moved
            while pos >= self.old_size:
                pos -= self.old_size
            lo = self.old_slots[2 * pos]
            hi = self.old_slots[2 * pos + 1]
            if lo == 0 and hi == 0 and (done >= slots or self.moved >= self.old_size):
                return
            self.moved += 1
            done += 1
            if lo == 0 and hi == 0:
                continue
            # Emptied, so that the last cluster may run over into the part already moved.
            self.old_slots[2 * pos] = 0
            self.old_slots[2 * pos + 1] = 0
            if self.age(self.old_meta[pos]) > _WINDOW:
                self.used -= 1
                continue
            home = home_of(hi, n)
            while self.slots[2 * home] != 0 or self.slots[2 * home + 1] != 0:
                home += 1
                if home == n:
                    home = 0
            self.slots[2 * home] = lo
            self.slots[2 * home + 1] = hi
            self.meta[home] = self.old_meta[pos]

    def dump(self) -> list[object]:
        """The whole state as buffers, for a snapshot."""
        days = sorted(self.counted.items())
        head = [self.size, self.old_size, self.origin, self.moved, self.used, self.today, len(days)]
        for day, count in days:
            head += [day, count]
        parts: list[object] = [b"".join(int(v).to_bytes(8, "little") for v in head)]
        parts += [self.words.view, self.meta_words.view]
        if self.old_size:
            parts += [self.old_words.view, self.old_meta_words.view]
        return parts

    def load(self, source: object) -> None:
        """Take the state that `dump` gave."""
        head = source.words(7)
        self.size, self.old_size, self.origin, self.moved, self.used, self.today, days = head
        self.counted = {}
        for _ in range(days):
            day, count = source.words(2)
            self.counted[day] = count
        self.words = source.array(2 * self.size)
        self.slots = self.words.view
        self.meta_words = source.array((self.size + 1) // 2)
        self.meta = self.meta_words.view.cast("B").cast("I")
        self.old_slots, self.old_meta = self.slots, self.meta
        if self.old_size:
            self.old_words = source.array(2 * self.old_size)
            self.old_slots = self.old_words.view
            self.old_meta_words = source.array((self.old_size + 1) // 2)
            self.old_meta = self.old_meta_words.view.cast("B").cast("I")

    def nbytes(self) -> int:
        """Bytes of the slots now held."""
        return 20 * (self.size + max(0, self.old_size - self.moved))

    def check_invariants(self) -> None:
        """As many slots are full as are counted."""
        full: int = 0
        for i in range(self.size):
            full += (self.slots[2 * i] | self.slots[2 * i + 1]) != 0
        for i in range(self.old_size):
            full += (self.old_slots[2 * i] | self.old_slots[2 * i + 1]) != 0
        assert full == self.used, f"key table holds {full} keys, counts {self.used}"
