"""Kernel: thresholds and the alerts they raise.

A threshold keeps three bits in the flags of the cell it watches: fired in this
period (bit i), the total is on its firing side (8 + i), and the side is known
(16 + i). It fires when the side turns; without the recurring flag only while
"fired" is not set. So each crossing fires once, however many events follow.

A threshold that has no side yet takes it from the total before the next event:
at the start of a period, and when it was added to a metric with a history. So
nothing fires that no event crossed. COUNT, SUM and COUNT_UNIQUE begin a period
at 0; for the others the first event comes from nowhere, and fires if it lands
on the firing side.

`metric` below is where a row of the counter's metric table begins (see
`count.py`), `watched` the cell whose flags are used, `total` the cell whose
numbers are compared: the same one, but for members carried along by a recurring
metric. An alert is nine words, appended in log order and never changed:

    offset, account, metric | STRING, threshold, value (2), count, timestamp, period
"""

from __future__ import annotations

import cython
from cython.cimports.unimeter.engine.hashing import M64
from cython.cimports.unimeter.engine.totals import Totals, to_signed

from unimeter.engine.memory import Words

_LOW32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def below(high: cython.ulonglong, low: cython.ulonglong, limit: cython.ulonglong) -> cython.bint:
    """Whether the signed 128-bit (high, low) is below the signed 64-bit limit."""
    wide: cython.ulonglong = M64 if limit >> 63 else 0
    if high != wide:
        return to_signed(high) < to_signed(wide)
    return low < limit


@cython.final
@cython.cclass
class Thresholds:
    """Which thresholds a total has passed, and every alert there was."""

    def __init__(self, totals: Totals) -> None:
        self.totals = totals
        self.count = 0
        self.alert_words = Words(64)
        self.alerts = self.alert_words.view

    def see(self, metrics: cython.ulonglong[::1]) -> None:
        """Use this metric table from now on."""
        self.metrics = metrics

    def let_go(self) -> None:
        """Drop the metric table, which can't grow while anybody looks at it."""
        self.metrics = None

    def reserve(self, alerts: int) -> None:
        """Make room for `alerts` more, before the GIL is released."""
        room: int = (self.count + alerts) * 9
        if room > self.alerts.shape[0]:
            self.alerts = None
            self.alert_words.grow(room * 5 // 4)
            self.alerts = self.alert_words.view

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def beyond(
        self,
        agg: cython.int,
        cell: cython.Py_ssize_t,
        limit: cython.ulonglong,
        falling: cython.bint,
    ) -> cython.bint:
        """Whether the total of `cell` is on the firing side of a threshold."""
        at: cython.Py_ssize_t = 12 * cell
        low: cython.ulonglong
        high: cython.ulonglong
        if agg == 6:
            return self.average_beyond(at, limit, falling)
        if agg == 1:
            low = self.totals.cells[at + 2]
            high = self.totals.cells[at + 3]
        else:
            if agg == 2:
                low = self.totals.cells[at + 6]
            elif agg == 5:
                low = self.totals.cells[at + 5]
            elif agg == 3:
                low = self.totals.cells[at + 7]
            else:
                low = self.totals.cells[at + 4]
            high = M64 if low >> 63 else 0
        if falling:
            return below(high, low, limit) or (low == limit and high == (M64 if limit >> 63 else 0))
        return not below(high, low, limit)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def average_beyond(
        self, at: cython.Py_ssize_t, limit: cython.ulonglong, falling: cython.bint
    ) -> cython.bint:
        """sum against limit * count, exactly: the product in two's complement 128 bits."""
        count: cython.ulonglong = self.totals.cells[at + 4]
        a: cython.ulonglong = limit & _LOW32
        b: cython.ulonglong = limit >> 32
        c: cython.ulonglong = count & _LOW32
        d: cython.ulonglong = count >> 32
        mid: cython.ulonglong = (b * c + ((a * c) >> 32)) & M64
        mid2: cython.ulonglong = (a * d + (mid & _LOW32)) & M64
        low: cython.ulonglong = (limit * count) & M64
        high: cython.ulonglong = (b * d + (mid >> 32) + (mid2 >> 32)) & M64
        sum_low: cython.ulonglong = self.totals.cells[at + 2]
        sum_high: cython.ulonglong = self.totals.cells[at + 3]
        if limit >> 63:
            high = (high - count) & M64
        if sum_high == high and sum_low == low:
            return True
        if sum_high != high:
            return (to_signed(sum_high) < to_signed(high)) == falling
        return (sum_low < low) == falling

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def learn(
        self, metric: cython.Py_ssize_t, watched: cython.Py_ssize_t, total: cython.Py_ssize_t
    ) -> None:
        """Before an event: the side of every threshold that has none yet."""
        row: cython.ulonglong = self.metrics[metric]
        flags: cython.ulonglong = self.totals.cells[12 * watched + 11]
        count: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, row >> 24)
        agg: cython.int = cython.cast(cython.int, row & 0xFF)
        k: cython.Py_ssize_t
        bit: cython.ulonglong
        if total != watched:
            # Members carried along change through other periods too: a side kept here is stale.
            flags &= M64 ^ 0xFFFF00
        for k in range(count):
            bit = cython.cast(cython.ulonglong, 1) << (16 + k)
            if flags & bit:
                continue
            flags |= bit
            # COUNT, SUM and sets start a period at 0; the others have no side before an event.
            if (agg == 0 or agg == 1 or agg == 4) or self.totals.cells[12 * total + 8]:
                if self.beyond(
                    agg,
                    total,
                    self.metrics[metric + 29 + 2 * k],
                    ((self.metrics[metric + 30 + 2 * k] >> 1) & 1) != 0,
                ):
                    flags |= cython.cast(cython.ulonglong, 1) << (8 + k)
        self.totals.cells[12 * watched + 11] = flags

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def cross(
        self,
        metric: cython.Py_ssize_t,
        watched: cython.Py_ssize_t,
        total: cython.Py_ssize_t,
        offset: cython.ulonglong,
        ts: cython.ulonglong,
        period: cython.ulonglong,
    ) -> None:
        """After an event: fire the thresholds whose side turned."""
        row: cython.ulonglong = self.metrics[metric]
        flags: cython.ulonglong = self.totals.cells[12 * watched + 11]
        count: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, row >> 24)
        agg: cython.int = cython.cast(cython.int, row & 0xFF)
        k: cython.Py_ssize_t
        side: cython.ulonglong
        fired: cython.ulonglong
        how: cython.ulonglong
        for k in range(count):
            side = cython.cast(cython.ulonglong, 1) << (8 + k)
            fired = cython.cast(cython.ulonglong, 1) << k
            how = self.metrics[metric + 30 + 2 * k]
            if not self.beyond(
                agg, total, self.metrics[metric + 29 + 2 * k], ((how >> 1) & 1) != 0
            ):
                flags &= ~side & M64
                continue
            if flags & side:
                continue
            flags |= side
            if (flags & fired) == 0 or how & 1:
                flags |= fired
                self.fire(watched, total, k, offset, ts, period, agg)
        self.totals.cells[12 * watched + 11] = flags

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def fire(
        self,
        watched: cython.Py_ssize_t,
        total: cython.Py_ssize_t,
        threshold: cython.Py_ssize_t,
        offset: cython.ulonglong,
        ts: cython.ulonglong,
        period: cython.ulonglong,
        agg: cython.int,
    ) -> None:
        """Append one alert."""
        to: cython.Py_ssize_t = 9 * self.count
        at: cython.Py_ssize_t = 12 * total
        series: cython.Py_ssize_t = cython.cast(
            cython.Py_ssize_t, self.totals.cells[12 * watched] & _LOW32
        )
        low: cython.ulonglong = self.totals.cells[at + 4]
        high: cython.ulonglong = 0
        if agg == 1 or agg == 6:
            low = self.totals.cells[at + 2]
            high = self.totals.cells[at + 3]
        elif agg == 2:
            low = self.totals.cells[at + 6]
        elif agg == 5:
            low = self.totals.cells[at + 5]
        elif agg == 3:
            low = self.totals.cells[at + 7]
        if agg == 2 or agg == 5 or agg == 3:
            high = M64 if low >> 63 else 0
        self.alerts[to] = offset
        self.alerts[to + 1] = self.totals.series[5 * series]
        self.alerts[to + 2] = self.totals.series[5 * series + 1]
        self.alerts[to + 3] = cython.cast(cython.ulonglong, threshold)
        self.alerts[to + 4] = low
        self.alerts[to + 5] = high
        self.alerts[to + 6] = self.totals.cells[at + 4]
        self.alerts[to + 7] = ts
        self.alerts[to + 8] = period
        self.count += 1

    def alert_at(self, number: int) -> tuple[int, ...]:
        """offset, account, metric | STRING, threshold, value, count, timestamp, period."""
        at = 9 * number
        a = self.alert_words.view
        value = int(a[at + 4]) | int(a[at + 5]) << 64
        if value >> 127:
            value -= 1 << 128
        return (a[at], a[at + 1], a[at + 2], a[at + 3], value, a[at + 6], a[at + 7], a[at + 8])

    def dump(self) -> list[object]:
        """The whole state as buffers, for a snapshot."""
        return [int(self.count).to_bytes(8, "little"), self.alert_words.view[: 9 * self.count]]

    def load(self, source: object) -> None:
        """Take the state that `dump` gave."""
        (self.count,) = source.words(1)
        self.alert_words = source.array(9 * self.count, 64)
        self.alerts = self.alert_words.view
