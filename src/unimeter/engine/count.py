"""Kernel: count one entry. Who decides an event's outcome, and in which order.

Four passes over the events, each a simple loop, because the work is bound by
cache misses and independent ones overlap when nothing else stands between:

    judge    malformed, unknown metric, operation, dimensions   -> outcome
    hash     the event key of what is left
    claim    key table: duplicate, conflict, or new             -> outcome
    add      series, cells, members, thresholds                 -> totals, alerts

The passes run over blocks of BLOCK events, so that what one pass wrote is still
in the cache for the next. Before a pass that looks rows up come loops that only
touch them: their loads do not wait for each other.

Events are judged and claimed in log order, so a duplicate inside one entry is
found like any other. A refused event claims no key.

The metric table is what the kernel knows of the catalog, 48 words a metric:

    0   aggregation | flags << 8 | dimensions << 16 | thresholds << 24
        flags: 1 recurring, 2 needs a period cell, 4 deleted
    1   period: origin, length (0: boundaries), boundaries' offset, their count
    5   bucket: the same
    9   the period and the bucket last used: start, end, start, end
    13  dimensions: key offset << 16 | key length, allowed offset << 32 | allowed count
    29  thresholds: value, flags (1 recurring, 2 falling)
"""

from __future__ import annotations

import cython
from cython.cimports.unimeter.engine.hashing import Hasher, spread
from cython.cimports.unimeter.engine.keys import KeyTable
from cython.cimports.unimeter.engine.tables import Interner
from cython.cimports.unimeter.engine.thresholds import Thresholds
from cython.cimports.unimeter.engine.totals import STRING, Totals

from unimeter.engine.memory import Words
from unimeter.limits import COMBINATIONS_MAX

_REFUSED = cython.declare(cython.ulonglong, 1 << 32)
_WITH_ID = cython.declare(cython.ulonglong, 2 << 32)
_LOW32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_COMBINATIONS_MAX = cython.declare(cython.Py_ssize_t, COMBINATIONS_MAX)
_BLOCK = cython.declare(cython.Py_ssize_t, 256)  # events; their scratch is 16 KiB
_MEMO_MAX = cython.declare(cython.Py_ssize_t, 1 << 18)
METRIC_WORDS = 48

COUNT, SUM, MAX, LATEST, COUNT_UNIQUE, MIN, AVG = range(7)


@cython.final
@cython.cclass
class Counter:
    """The state that events change, and the passes that change it."""

    def __init__(self, key: bytes) -> None:
        self.hasher = Hasher(key)
        seed = int.from_bytes(key[:8], "little")
        self.keys = KeyTable()
        self.totals = Totals(seed)
        self.accounts = Interner(seed)
        self.values = Interner(seed)
        self.combinations = Interner(seed)
        self.metric_words = Words(METRIC_WORDS * 8)
        self.metrics = self.metric_words.view
        self.metric_count = 0
        self.head_words = Words(64)
        self.heads = self.head_words.view  # newest series of each metric, row + 1
        self.boundary_words = Words(64)
        self.boundaries = self.boundary_words.view
        self.boundary_count = 0
        self.known_boundaries: list[tuple[int, object]] = []
        self.known_lists: dict[tuple[bytes, ...], int] = {}
        self.allowed_words = Words(64)
        self.allowed = self.allowed_words.view
        self.allowed_count = 0
        self.names = bytearray(1024)
        self.key_names = memoryview(self.names)
        self.key_bytes = 0
        self.thresholds = Thresholds(self.totals)
        self.thresholds.see(self.metrics)
        self.body_words = Words(1 << 16)
        self.body = self.body_words.view
        self.body_bytes = self.body_words.view.cast("B")
        self.scratch_words = Words(8 << 10)
        self.scratch = self.scratch_words.view
        self.memo_words = Words(1 << 12)
        self.memo = self.memo_words.view
        self.local = Words(1 << 10).view
        self.outcome_array = bytearray(1 << 10)
        self.outcomes = memoryview(self.outcome_array)
        self.result_words = Words(1 << 10)
        self.results = self.result_words.view
        self.pack = memoryview(bytearray(64))
        self.new_keys = 0
        self.key = Words(8).view

    # --- the metric table --------------------------------------------------------------
    def set_metric(
        self,
        number: int,
        agg: int,
        flags: int,
        period: tuple[int, int, object],
        bucket: tuple[int, int, object],
        dimensions: object,
        thresholds: object,
    ) -> None:
        """Write one row of the metric table; a new number or a changed definition.

        `period` and `bucket` are (origin, length, boundaries): boundaries are
        used where length is 0. `dimensions` are (key, allowed values) as bytes,
        `thresholds` (value, recurring, falling).
        """
        need = (number + 1) * METRIC_WORDS
        if need > self.metrics.shape[0]:
            self.metrics = None
            self.thresholds.let_go()
            self.metric_words.grow(need * 2)
            self.metrics = self.metric_words.view
            self.thresholds.see(self.metrics)
        if number >= self.heads.shape[0]:
            self.heads = None
            self.head_words.grow(2 * number + 64)
            self.heads = self.head_words.view
        at = number * METRIC_WORDS
        row = [0] * METRIC_WORDS
        row[0] = agg | flags << 8 | len(dimensions) << 16 | len(thresholds) << 24
        row[1:5] = self._calendar(period)
        row[5:9] = self._calendar(bucket)
        for i, (key, allowed) in enumerate(dimensions):
            row[13 + 2 * i] = self._key_name(key) << 16 | len(key)
            row[14 + 2 * i] = self._allowed(allowed)
        for i, (value, recurring, falling) in enumerate(thresholds):
            row[29 + 2 * i] = value & 0xFFFFFFFFFFFFFFFF
            row[30 + 2 * i] = bool(recurring) | bool(falling) << 1
        view = self.metric_words.view
        for i, word in enumerate(row):
            view[at + i] = word
        self.metric_count = max(self.metric_count, number + 1)

    def _calendar(self, calendar: tuple[int, int, object]) -> list[int]:
        origin, length, boundaries = calendar
        if length:
            return [origin, length, 0, 0]
        for start, known in self.known_boundaries:
            if known is boundaries:  # equal rules share one array
                return [0, 0, start, len(boundaries)]
        count = len(boundaries)
        start = self.boundary_count
        if start + count > self.boundaries.shape[0]:
            self.boundaries = None
            self.boundary_words.grow((start + count) * 2)
            self.boundaries = self.boundary_words.view
        view = self.boundary_words.view
        for i in range(count):
            view[start + i] = boundaries[i]
        self.boundary_count += count
        self.known_boundaries.append((start, boundaries))
        return [0, 0, start, count]

    def _key_name(self, key: bytes) -> int:
        start = self.names.find(key, 0, self.key_bytes)
        if start >= 0:
            return start
        start = self.key_bytes
        if start + len(key) > len(self.names):
            self.key_names = None
            self.names = self.names + bytearray(len(self.names) + len(key))
            self.key_names = memoryview(self.names)
        self.names[start : start + len(key)] = key
        self.key_bytes += len(key)
        return start

    def _allowed(self, allowed: object) -> int:
        if allowed in self.known_lists:
            return self.known_lists[allowed] << 32 | len(allowed)
        start = self.known_lists[allowed] = self.allowed_count
        if start + len(allowed) > self.allowed.shape[0]:
            self.allowed = None
            self.allowed_words.grow((start + len(allowed)) * 2)
            self.allowed = self.allowed_words.view
        view = self.allowed_words.view
        for i, text in enumerate(allowed):
            # Looked up first: a restored machine must not make room the first one did not.
            view[start + i] = self.values.number(text) or self.values.add(text)
        self.allowed_count += len(allowed)
        return start << 32 | len(allowed)

    # --- one entry -----------------------------------------------------------------------
    def begin(self, body: object, by_code: dict[bytes, int], timestamp_ns: int) -> None:
        """Take an EVENTS body: look up its metrics and make room for all it may add."""
        size = len(body)
        if size > self.body_bytes.shape[0]:
            self.body = None
            self.body_bytes = None
            self.body_words.grow(size // 8 * 5 // 4)
            self.body = self.body_words.view
            self.body_bytes = self.body_words.view.cast("B")
        self.body_words.view.cast("B")[:size] = body
        head = self.body_words.view
        assert head[0] & 0xFFFFFFFF == 1, "unknown version of an EVENTS body"
        self.n_requests = head[0] >> 32
        self.n_events = head[1] & 0xFFFFFFFF
        self.n_metrics = head[1] >> 32
        self.n_accounts = head[2] & 0xFFFFFFFF
        self.n_tags = head[2] >> 32
        self.n_ids = head[3] & 0xFFFFFFFF
        self.offset = head[5]
        self.at_sessions = 8 + self.n_requests
        self.at_records = self.at_sessions + 3 * head[6]
        self.at_strings = self.at_records + 4 * self.n_events
        strings = self.n_metrics + self.n_accounts + self.n_tags + self.n_ids
        self.at_heap = 8 * (self.at_strings + strings)
        assert self.at_heap + 8 * (head[3] >> 32) == size, "an EVENTS body has another length"
        self._room(by_code, 8 * (head[3] >> 32))
        self.keys.set_day(timestamp_ns)

    def _room(self, by_code: dict[bytes, int], heap: int) -> None:
        n = int(self.n_events)
        if n > self.outcomes.shape[0]:
            self.outcomes = None
            self.outcome_array = bytearray(2 * n)
            self.outcomes = memoryview(self.outcome_array)
        else:
            self.outcome_array[:n] = bytes(n)
        if 8 * n > self.scratch.shape[0]:
            self.scratch = None
            self.scratch_words.grow(16 * n)
            self.scratch = self.scratch_words.view
        if 4 * self.n_requests > self.results.shape[0]:
            self.results = None
            self.result_words.grow(8 * self.n_requests)
            self.results = self.result_words.view
        need = int(self.n_metrics + self.n_accounts + 3 * self.n_tags)
        if need > self.local.shape[0]:
            self.local = Words(2 * need).view
        local = self.local
        for i in range(need):
            local[i] = 0
        view = self.body_words.view
        data = view.cast("B")
        dims = members = cells = thresholds = 0
        for i in range(self.n_metrics):
            place = view[self.at_strings + i]
            start = self.at_heap + (place >> 32)
            number = by_code.get(bytes(data[start : start + (place & 0xFFFFFFFF)]), -1)
            local[i] = number + 1
            if number >= 0:
                row = self.metrics[number * 48]
                dims = max(dims, row >> 16 & 0xFF)
                thresholds = max(thresholds, row >> 24 & 0xFF)
                unique = (row & 0xFF) == 4
                cells = max(cells, 1 + ((row >> 9) & 1) + ((row >> 8) & 1 if unique else 0))
                members = max(members, 3 if unique else 0)
        cells += 1 if dims else 0
        self.keys.reserve(n)
        self.totals.reserve(n, n * cells, n * members)
        if self.n_accounts:
            self.accounts.reserve(int(self.n_accounts), heap)
        self.memo_width = int(self.n_tags) + 1
        pairs = int(self.n_metrics) * self.memo_width
        self.memo_on = pairs <= _MEMO_MAX
        if dims:
            wide = min(pairs, n)
            self.values.reserve(8 * int(self.n_tags), 8 * heap)
            self.combinations.reserve(wide, wide * 36)
            if self.memo_on:
                if pairs > self.memo.shape[0]:
                    self.memo = None
                    self.memo_words = Words(2 * pairs)
                    self.memo = self.memo_words.view
                for i in range(pairs):
                    self.memo[i] = 0
        if thresholds:
            self.thresholds.reserve(n * thresholds)

    def skip(self, first: int, count: int) -> None:
        """Events of a request that was counted before: duplicates, without looking further."""
        self.outcome_array[first : first + count] = b"\x01" * count

    def run(self) -> None:
        """All passes."""
        if self.n_events > 64:
            with cython.nogil:
                self.passes()
        else:
            self.passes()
        self.keys.note(self.new_keys)

    def passes(self) -> None:
        """All passes, block by block."""
        self.begin_at = 0
        self.new_keys = 0
        while self.begin_at < self.n_events:
            self.end_at = self.begin_at + _BLOCK
            if self.end_at > self.n_events:
                self.end_at = self.n_events
            self.judge()
            self.hash()
            self.claim()
            self.find()
            self.add()
            self.begin_at = self.end_at
        self.tally()

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def judge(self) -> None:
        """Outcomes that need no key: and per event metric + 1 and combination in scratch."""
        i: cython.Py_ssize_t
        at: cython.Py_ssize_t = self.at_records + 4 * self.begin_at
        meta: cython.ulonglong
        metric: cython.ulonglong
        row: cython.ulonglong
        found: cython.ulonglong
        local: cython.Py_ssize_t
        for i in range(self.begin_at, self.end_at):
            meta = self.body[at + 3]
            at += 4
            if self.outcomes[i]:
                continue
            if meta >> 56:
                self.outcomes[i] = cython.cast(cython.uchar, meta >> 56)
                continue
            local = cython.cast(cython.Py_ssize_t, meta & 0xFFFF)
            metric = self.local[local]
            if metric == 0:
                self.outcomes[i] = 20
                continue
            row = self.metrics[(cython.cast(cython.Py_ssize_t, metric) - 1) * 48]
            if ((meta >> 48) & 3) and (row & 0xFF) != 4:
                self.outcomes[i] = 21
                continue
            self.scratch[8 * i] = metric
            self.scratch[8 * i + 1] = 0
            if (row >> 16) & 0xFF:
                found = self.combination(local, metric, (meta >> 16) & 0xFFFF)
                if found >> 32:
                    self.outcomes[i] = cython.cast(cython.uchar, found & 0xFF)
                    continue
                self.scratch[8 * i + 1] = found

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def combination(
        self, local: cython.Py_ssize_t, metric: cython.ulonglong, tags: cython.ulonglong
    ) -> cython.ulonglong:
        """The combination of a metric's dimensions in a tag set, or 1 << 32 | outcome."""
        slot: cython.Py_ssize_t
        found: cython.ulonglong
        if not self.memo_on:
            return self.project(metric, tags)
        slot = local * self.memo_width + cython.cast(cython.Py_ssize_t, tags)
        found = self.memo[slot]
        if found == 0:
            found = self.project(metric, tags)
            self.memo[slot] = found
        return found

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def project(self, metric: cython.ulonglong, tags: cython.ulonglong) -> cython.ulonglong:
        """Look a tag set's values up, one per dimension, and number their combination."""
        at: cython.Py_ssize_t = (cython.cast(cython.Py_ssize_t, metric) - 1) * 48
        count: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, (self.metrics[at] >> 16) & 0xFF)
        d: cython.Py_ssize_t
        i: cython.Py_ssize_t
        number: cython.Py_ssize_t
        place: cython.Py_ssize_t
        key: cython.Py_ssize_t
        size: cython.Py_ssize_t
        allowed: cython.ulonglong
        self.put32(0, cython.cast(cython.Py_ssize_t, metric))
        for d in range(count):
            key = cython.cast(cython.Py_ssize_t, self.metrics[at + 13 + 2 * d])
            place = self.tag_value(tags, key >> 16, key & 0xFFFF)
            number = 0
            if place >= 0:
                size = self.body_bytes[place]
                allowed = self.metrics[at + 14 + 2 * d]
                if allowed & _LOW32:
                    number = self.values.find(self.body_bytes, place + 1, size)
                    if not self.is_allowed(allowed, number):
                        return _REFUSED | 22
                else:
                    if self.combinations.count >= _COMBINATIONS_MAX:
                        number = self.values.find(self.body_bytes, place + 1, size)
                        if number == 0:
                            return _REFUSED | 23
                    else:
                        number = self.values.intern(self.body_bytes, place + 1, size)
            self.put32(4 * (d + 1), number)
        i = 4 * (count + 1)
        if self.combinations.count >= _COMBINATIONS_MAX:
            number = self.combinations.find(self.pack, 0, i)
            if number == 0:
                return _REFUSED | 23
        else:
            number = self.combinations.intern(self.pack, 0, i)
        return cython.cast(cython.ulonglong, number)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def put32(self, at: cython.Py_ssize_t, number: cython.Py_ssize_t) -> None:
        i: cython.Py_ssize_t
        for i in range(4):
            self.pack[at + i] = cython.cast(cython.uchar, (number >> (8 * i)) & 0xFF)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def is_allowed(self, allowed: cython.ulonglong, number: cython.Py_ssize_t) -> cython.bint:
        i: cython.Py_ssize_t
        start: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, allowed >> 32)
        if number == 0:
            return False
        for i in range(cython.cast(cython.Py_ssize_t, allowed & _LOW32)):
            if self.allowed[start + i] == cython.cast(cython.ulonglong, number):
                return True
        return False

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def tag_value(
        self, tags: cython.ulonglong, name: cython.Py_ssize_t, length: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """Where the value (its length byte) of a key is in the body, or -1."""
        p: cython.Py_ssize_t
        pairs: cython.Py_ssize_t
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        size: cython.Py_ssize_t
        if tags == 0:
            return -1
        p = self.text_at(
            self.n_metrics + self.n_accounts + cython.cast(cython.Py_ssize_t, tags) - 1
        )
        pairs = self.body_bytes[p]
        p += 1
        for i in range(pairs):
            size = self.body_bytes[p]
            if size == length:
                j = 0
                while j < size and self.body_bytes[p + 1 + j] == self.key_names[name + j]:
                    j += 1
                if j == size:
                    return p + 1 + size
            p += 1 + size
            p += 1 + self.body_bytes[p]
        return -1

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def text_at(self, number: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Where string `number` of the body begins, in bytes."""
        return self.at_heap + cython.cast(
            cython.Py_ssize_t, self.body[self.at_strings + number] >> 32
        )

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def text_length(self, number: cython.Py_ssize_t) -> cython.Py_ssize_t:
        return cython.cast(cython.Py_ssize_t, self.body[self.at_strings + number] & _LOW32)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def account_of(self, account: cython.ulonglong, meta: cython.ulonglong) -> cython.ulonglong:
        """The account's number: itself, or that of its string."""
        at: cython.Py_ssize_t
        if not (meta >> 50) & 1:
            return account
        at = self.n_metrics + cython.cast(cython.Py_ssize_t, account)
        if self.local[at] == 0:
            self.local[at] = cython.cast(
                cython.ulonglong,
                self.accounts.intern(self.body_bytes, self.text_at(at), self.text_length(at)),
            )
        return self.local[at]

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def tags_hash(self, tags: cython.ulonglong) -> cython.Py_ssize_t:
        """Where the keyed hash of a tag set is in `local`, computed once per entry."""
        number: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, tags) - 1
        at: cython.Py_ssize_t = self.n_metrics + self.n_accounts + 3 * number
        text: cython.Py_ssize_t = self.n_metrics + self.n_accounts + number
        if self.local[at] == 0:
            self.hasher.hash_bytes(self.body_bytes, self.text_at(text), self.text_length(text))
            self.local[at] = 1
            self.local[at + 1] = self.hasher.lo
            self.local[at + 2] = self.hasher.hi
        return at + 1

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def hash(self) -> None:
        """Event keys: scratch 2 and 3 the key, 4 the body, 5 whether there is one."""
        i: cython.Py_ssize_t
        at: cython.Py_ssize_t = self.at_records + 4 * self.begin_at
        text: cython.Py_ssize_t
        count: cython.Py_ssize_t
        meta: cython.ulonglong
        account: cython.ulonglong
        metric: cython.ulonglong
        ident: cython.ulonglong
        flags: cython.ulonglong
        tag_lo: cython.ulonglong
        tag_hi: cython.ulonglong
        body: cython.ulonglong
        for i in range(self.begin_at, self.end_at):
            if self.outcomes[i] == 0:
                meta = self.body[at + 3]
                account = self.account_of(self.body[at], meta)
                flags = (meta >> 50) & 0x3F
                metric = self.scratch[8 * i] | ((flags & 1) << 32)
                ident = (meta >> 32) & 0xFFFF
                self.scratch[8 * i + 6] = account
                self.scratch[8 * i + 5] = 1 if ident or flags & 4 else 0
                if ident or flags & 4:
                    tag_lo = 0
                    tag_hi = 0
                    if (meta >> 16) & 0xFFFF:
                        text = self.tags_hash((meta >> 16) & 0xFFFF)
                        tag_lo = self.local[text]
                        tag_hi = self.local[text + 1]
                    if ident:
                        text = (
                            self.n_metrics
                            + self.n_accounts
                            + self.n_tags
                            + cython.cast(cython.Py_ssize_t, ident)
                            - 1
                        )
                        self.hasher.hash_bytes(
                            self.body_bytes, self.text_at(text), self.text_length(text)
                        )
                        body = spread(self.body[at + 2], (meta >> 48) & 3)
                        body = spread(body ^ tag_lo, tag_hi)
                        if flags & 2:
                            body = spread(body, self.body[at + 1])
                        tag_lo = self.hasher.lo
                        tag_hi = self.hasher.hi
                        self.key[0] = metric | _WITH_ID
                        self.key[1] = account
                        self.key[2] = tag_lo
                        self.key[3] = tag_hi
                        count = 4
                    else:
                        body = 0
                        self.key[0] = metric | ((meta >> 48) & 3) << 40
                        self.key[1] = account
                        self.key[2] = self.body[at + 1]
                        self.key[3] = self.body[at + 2]
                        count = 4
                        if tag_lo | tag_hi:
                            self.key[4] = tag_lo
                            self.key[5] = tag_hi
                            count = 6
                    self.hasher.hash_words(
                        self.key, count, cython.cast(cython.ulonglong, 8 * count) << 56
                    )
                    self.scratch[8 * i + 2] = self.hasher.lo
                    self.scratch[8 * i + 3] = self.hasher.hi
                    self.scratch[8 * i + 4] = body
            at += 4

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def claim(self) -> None:
        """Key table: duplicates and conflicts."""
        i: cython.Py_ssize_t
        answer: cython.int
        for i in range(self.begin_at, self.end_at):
            if self.outcomes[i] == 0 and self.scratch[8 * i + 5]:
                self.keys.touch(self.scratch[8 * i + 3])
        for i in range(self.begin_at, self.end_at):
            if self.outcomes[i] == 0 and self.scratch[8 * i + 5]:
                answer = self.keys.claim(
                    self.scratch[8 * i + 2], self.scratch[8 * i + 3], self.scratch[8 * i + 4]
                )
                self.outcomes[i] = cython.cast(cython.uchar, answer)
                if answer == 0:
                    self.new_keys += 1

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def find(self) -> None:
        """Series of the events that count, in scratch 7."""
        i: cython.Py_ssize_t
        at: cython.Py_ssize_t = self.at_records + 4 * self.begin_at
        row: cython.Py_ssize_t
        count: cython.Py_ssize_t
        metric: cython.Py_ssize_t
        flags: cython.ulonglong
        for i in range(self.begin_at, self.end_at):
            if self.outcomes[i] == 0:
                flags = self.scratch[8 * i] - 1
                if (self.body[at + 3] >> 50) & 1:
                    flags |= STRING
                self.scratch[8 * i] = flags
                self.scratch[8 * i + 7] = self.totals.series_tag(self.scratch[8 * i + 6], flags)
                self.totals.series_index.touch(self.scratch[8 * i + 7])
            at += 4
        for i in range(self.begin_at, self.end_at):
            if self.outcomes[i] == 0:
                self.totals.touch_series(self.totals.series_index.slot(self.scratch[8 * i + 7]))
        for i in range(self.begin_at, self.end_at):
            if self.outcomes[i] == 0:
                metric = cython.cast(cython.Py_ssize_t, self.scratch[8 * i] & _LOW32)
                count = self.totals.series_count
                row = self.totals.find_series(self.scratch[8 * i + 6], self.scratch[8 * i], True)
                if row == count:
                    self.totals.series[5 * row + 3] = self.heads[metric]
                    self.heads[metric] = cython.cast(cython.ulonglong, row + 1)
                self.scratch[8 * i + 7] = cython.cast(cython.ulonglong, row)
        for i in range(self.begin_at, self.end_at):
            if self.outcomes[i] == 0:
                self.totals.touch_cell(cython.cast(cython.Py_ssize_t, self.scratch[8 * i + 7]))

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def start_of(
        self, row: cython.Py_ssize_t, which: cython.Py_ssize_t, ts: cython.ulonglong
    ) -> cython.ulonglong:
        """Start of the period (`which` 0) or bucket (1) of a metric row that holds `ts`."""
        cached: cython.Py_ssize_t = row + 9 + 2 * which
        at: cython.Py_ssize_t = row + 1 + 4 * which
        start: cython.ulonglong
        low: cython.Py_ssize_t
        high: cython.Py_ssize_t
        mid: cython.Py_ssize_t
        if self.metrics[cached] <= ts and ts < self.metrics[cached + 1]:
            return self.metrics[cached]
        if self.metrics[at + 1]:
            start = ts - (ts - self.metrics[at]) % self.metrics[at + 1]
            self.metrics[cached] = start
            self.metrics[cached + 1] = start + self.metrics[at + 1]
            return start
        # The last boundary at or before ts; boundaries span all valid timestamps.
        low = cython.cast(cython.Py_ssize_t, self.metrics[at + 2])
        high = low + cython.cast(cython.Py_ssize_t, self.metrics[at + 3]) - 1
        while low < high:
            mid = (low + high + 1) >> 1
            if self.boundaries[mid] <= ts:
                low = mid
            else:
                high = mid - 1
        self.metrics[cached] = self.boundaries[low]
        self.metrics[cached + 1] = self.boundaries[low + 1]
        return self.boundaries[low]

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add(self) -> None:
        """Change the totals, and cross thresholds, in log order."""
        i: cython.Py_ssize_t
        at: cython.Py_ssize_t = self.at_records + 4 * self.begin_at - 4
        metric: cython.Py_ssize_t
        series: cython.Py_ssize_t
        bucket: cython.Py_ssize_t
        watched: cython.Py_ssize_t
        row: cython.ulonglong
        value: cython.ulonglong
        ts: cython.ulonglong
        offset: cython.ulonglong
        period: cython.ulonglong
        for i in range(self.begin_at, self.end_at):
            at += 4
            if self.outcomes[i]:
                continue
            metric = cython.cast(cython.Py_ssize_t, self.scratch[8 * i] & _LOW32) * 48
            row = self.metrics[metric]
            series = cython.cast(cython.Py_ssize_t, self.scratch[8 * i + 7])
            ts = self.body[at + 1]
            value = self.body[at + 2]
            offset = self.offset + cython.cast(cython.ulonglong, i)
            bucket = self.totals.bucket(series, self.start_of(metric, 1, ts))
            if (row & 0xFF) == 4:
                self.add_member(i, metric, series, bucket, at)
                continue
            watched = bucket
            if (row >> 9) & 1:
                watched = self.totals.period(series, self.start_of(metric, 0, ts))
            if row >> 24:
                self.thresholds.learn(metric, watched, watched)
            self.totals.add(bucket, value, ts, offset)
            if watched != bucket:
                self.totals.add(watched, value, ts, offset)
            if self.scratch[8 * i + 1]:
                self.totals.add(
                    self.totals.combination(bucket, self.scratch[8 * i + 1]), value, ts, offset
                )
            if row >> 24:
                period = self.totals.cells[12 * watched + 1]
                self.thresholds.cross(metric, watched, watched, offset, ts, period)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add_member(
        self,
        i: cython.Py_ssize_t,
        metric: cython.Py_ssize_t,
        series: cython.Py_ssize_t,
        bucket: cython.Py_ssize_t,
        at: cython.Py_ssize_t,
    ) -> None:
        """COUNT_UNIQUE: the member joins or leaves bucket, period and, recurring, ALL."""
        row: cython.ulonglong = self.metrics[metric]
        ts: cython.ulonglong = self.body[at + 1]
        member: cython.ulonglong = self.body[at + 2]
        offset: cython.ulonglong = self.offset + cython.cast(cython.ulonglong, i)
        removed: cython.ulonglong = 1 if ((self.body[at + 3] >> 48) & 3) == 2 else 0
        watched: cython.Py_ssize_t = bucket
        total: cython.Py_ssize_t
        if (row >> 9) & 1:
            watched = self.totals.period(series, self.start_of(metric, 0, ts))
        total = watched
        if (row >> 8) & 1:
            total = self.totals.all_time(series)
        if row >> 24:
            self.thresholds.learn(metric, watched, total)
        if self.scratch[8 * i + 1]:
            self.totals.join(
                self.totals.combination(bucket, self.scratch[8 * i + 1]),
                member,
                ts,
                offset,
                removed,
            )
            # The bucket's own set hangs its combinations where members would be.
            if ts >= self.totals.cells[12 * bucket + 8]:
                self.totals.cells[12 * bucket + 7] = member
                self.totals.cells[12 * bucket + 8] = ts
                self.totals.cells[12 * bucket + 9] = offset
        else:
            self.totals.join(bucket, member, ts, offset, removed)
        if watched != bucket:
            self.totals.join(watched, member, ts, offset, removed)
        if total != watched:
            self.totals.join(total, member, ts, offset, removed)
        if row >> 24:
            self.thresholds.cross(
                metric, watched, total, offset, ts, self.totals.cells[12 * watched + 1]
            )

    # --- per request --------------------------------------------------------------------------
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def tally(self) -> None:
        """Counts per request: stored | duplicates << 32, refused | unknown metric << 32,
        first event | events << 32, flags of the request."""
        r: cython.Py_ssize_t
        i: cython.Py_ssize_t
        first: cython.Py_ssize_t = 0
        n: cython.Py_ssize_t
        stored: cython.ulonglong
        duplicates: cython.ulonglong
        refused: cython.ulonglong
        unknown: cython.ulonglong
        o: cython.uchar
        self.stored = 0
        self.duplicates = 0
        self.refused = 0
        for r in range(self.n_requests):
            n = cython.cast(cython.Py_ssize_t, self.body[8 + r] & _LOW32)
            stored = 0
            duplicates = 0
            refused = 0
            unknown = 0
            for i in range(first, first + n):
                o = self.outcomes[i]
                if o == 0:
                    stored += 1
                elif o == 1:
                    duplicates += 1
                else:
                    refused += 1
                    if o == 20:
                        unknown += 1
            self.results[4 * r] = stored | (duplicates << 32)
            self.results[4 * r + 1] = refused | (unknown << 32)
            self.results[4 * r + 2] = cython.cast(cython.ulonglong, first) | (
                cython.cast(cython.ulonglong, n) << 32
            )
            self.results[4 * r + 3] = self.body[8 + r] >> 32
            self.stored += stored
            self.duplicates += duplicates
            self.refused += refused
            first += n

    def tallied(self) -> tuple[int, int, int]:
        """Stored, duplicate and refused events of the entry."""
        return self.stored, self.duplicates, self.refused

    def request_results(self) -> memoryview:
        """The words that `tally` wrote."""
        return self.result_words.view[: 4 * self.n_requests]

    def event_outcomes(self) -> memoryview:
        """One byte an event."""
        return memoryview(self.outcome_array)[: self.n_events]

    def has_sessions(self) -> bool:
        """Whether any request of the entry belongs to a session."""
        return bool(self.at_records > self.at_sessions)

    def metric_flags(self, number: int) -> int:
        """The flags of a metric's row."""
        return (self.metrics[number * 48] >> 8) & 0xFF

    def session_words(self) -> memoryview:
        """high, low, sequence of the requests that have a session."""
        return self.body_words.view[self.at_sessions : self.at_records]

    def request_flags(self) -> memoryview:
        """events | flags << 32, one word a request."""
        return self.body_words.view[8 : 8 + self.n_requests]

    def alert_at(self, number: int) -> tuple[int, ...]:
        """Alert `number`, from 0; see `Thresholds.alert_at`."""
        return self.thresholds.alert_at(number)

    @property
    def alert_count(self) -> int:
        """Alerts raised so far; their positions count from 1."""
        return self.thresholds.count

    def head_of(self, metric: int) -> int:
        """Newest series of a metric, row + 1."""
        return self.heads[metric]

    def build_periods(self, metric: int, agg: int) -> None:
        """Fill the period cells of a metric that had none, from its buckets."""
        link: int = int(self.heads[metric])
        bucket: int
        while link:
            row = self.totals.series_at(link - 1)
            bucket = row[2]
            buckets = []
            while bucket:
                cell = self.totals.cell_at(bucket - 1)
                buckets.append((cell[2], bucket - 1))
                bucket = cell[13]
            for start, number in sorted(buckets):
                self.totals.reserve(0, 1, 0)
                self.totals.build_period(link - 1, number, self.start_of(metric * 48, 0, start))
            link = row[4]

    # --- snapshot --------------------------------------------------------------------------------
    def dump(self) -> list[object]:
        """The whole state as buffers; the metric table is made again from the catalog."""
        return [
            int(self.metric_count).to_bytes(8, "little"),
            self.head_words.view[: self.metric_count],
            *self.thresholds.dump(),
            *self.accounts.dump(),
            *self.values.dump(),
            *self.combinations.dump(),
            *self.totals.dump(),
            *self.keys.dump(),
        ]

    def load(self, source: object) -> None:
        """Take the state that `dump` gave. The metric table must be set afterwards."""
        (metrics,) = source.words(1)
        self.head_words = source.array(metrics, 64)
        self.heads = self.head_words.view
        self.thresholds.load(source)
        for part in (self.accounts, self.values, self.combinations, self.totals, self.keys):
            part.load(source)
