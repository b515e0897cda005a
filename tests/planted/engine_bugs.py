"""Planted bugs of the meaning: keys, periods, members, thresholds, snapshots of the state."""

from __future__ import annotations

from tests.planted.bug import Bug, Test
from tests.planted.planting import Edit

_MODEL = "tests/engine/test_engine_model.py::test_a_thrown_log_gives_the_numbers_of_the_meter"
_CASES = "tests/engine/test_engine_cases.py"

BUGS = (
    Bug(
        "key-table-not-in-the-snapshot",
        "engine",
        "The event keys are not part of a snapshot: an event that is sent again after a restart "
        "counts twice.",
        (Edit("engine.count", "Counter.dump", "*self.keys.dump(),", "*KeyTable().dump(),"),),
        Test(
            "tests/engine/test_snapshot.py::"
            "test_what_was_counted_and_what_has_fired_is_known_after_a_restore",
            "assert",
        ),
    ),
    Bug(
        "thresholds-not-in-the-snapshot",
        "engine",
        "Which thresholds have fired in a period is not part of a snapshot: after a restart they "
        "fire again.",
        (
            Edit(
                "engine.totals",
                "Totals.dump",
                "head = [self.seed, self.series_count, self.cell_count, self.member_count]",
                """
                head = [self.seed, self.series_count, self.cell_count, self.member_count]
                cells = bytearray(self.cell_words.view[: self.cell_count * 12])
                cells = memoryview(cells).cast("Q")
                for at in range(11, len(cells), 12):
                    cells[at] &= _LOW32 << 32
                """,
            ),
            Edit(
                "engine.totals",
                "Totals.dump",
                "self.cell_words.view[: self.cell_count * 12],\nself.member_words.view",
                "cells,\nself.member_words.view",
            ),
        ),
        Test(
            "tests/engine/test_snapshot.py::"
            "test_what_was_counted_and_what_has_fired_is_known_after_a_restore",
            "assert",
        ),
    ),
    Bug(
        "members-not-in-the-snapshot",
        "engine",
        "The members of COUNT_UNIQUE are not part of a snapshot, their number is: who comes again "
        "after a restart is counted once more.",
        (
            Edit(
                "engine.totals",
                "Totals.dump",
                "head = [self.seed, self.series_count, self.cell_count, self.member_count]",
                "head = [self.seed, self.series_count, self.cell_count, 0]",
            ),
            Edit(
                "engine.totals",
                "Totals.dump",
                "self.member_words.view[: self.member_count * 4],",
                "",
            ),
            Edit(
                "engine.totals",
                "Totals.dump",
                "*self.member_index.dump(),",
                "*Index().dump(),",
            ),
        ),
        Test("tests/engine/test_snapshot.py", "after entry"),
    ),
    Bug(
        "iteration-order-in-the-snapshot",
        "engine",
        "The sessions are written in the order of a set: which one is forgotten first, and the "
        "bytes of a snapshot, depend on the process.",
        (
            Edit(
                "engine.sessions",
                "Sessions.encode",
                "for (high, low), session in self._sessions.items():",
                """
                for name in set(map(repr, self._sessions)):
                    high, low = map(int, name[1:-1].split(", "))
                    session = self._sessions[high, low]
                """,
            ),
        ),
        Test(
            "tests/engine/test_snapshot.py::test_a_snapshot_is_the_same_bytes_in_every_process",
            "another order in another process",
        ),
    ),
    Bug(
        "period-chosen-by-the-local-clock",
        "engine",
        "The billing period is that of the node's own clock when it counts, not that of the event: "
        "replicas disagree, and so does a replay.",
        (
            Edit(
                "server.node",
                "Node._count",
                "applied = self.machine.apply(entry.index, entry.kind, entry.timestamp_ns, "
                "entry.body)",
                """
                clock = self.clock if entry.kind == entries.EVENTS else lambda: 0
                now_ns = max(clock(), self.machine.timestamp_ns, entry.timestamp_ns)
                applied = self.machine.apply(entry.index, entry.kind, now_ns, entry.body)
                """,
            ),
            Edit(
                "engine.count",
                "Counter.begin",
                "self.keys.set_day(timestamp_ns)",
                "self.keys.set_day(timestamp_ns)\nself.now_ns = timestamp_ns",
            ),
            Edit(
                "engine.count",
                "Counter.add",
                "watched = self.totals.period(series, self.start_of(metric, 0, ts))",
                "watched = self.totals.period(series, self.start_of(metric, 0, self.now_ns))",
            ),
            Edit(
                "engine.count",
                "Counter.add",
                "bucket = self.totals.bucket(series, self.start_of(metric, 1, ts))",
                "bucket = self.totals.bucket(series, self.start_of(metric, 1, self.now_ns))",
            ),
        ),
        Test(_MODEL, "assert"),
    ),
    Bug(
        "late-event-dropped",
        "engine",
        "An event of an earlier bucket than the newest is acknowledged and not counted.",
        (
            Edit(
                "engine.count",
                "Counter.add",
                "bucket = self.totals.bucket(series, self.start_of(metric, 1, ts))",
                """
                bucket = cython.cast(cython.Py_ssize_t, self.totals.series[5 * series + 2] & _LOW32)
                if bucket and self.start_of(metric, 1, ts) < self.totals.cells[12 * bucket - 11]:
                    continue
                bucket = self.totals.bucket(series, self.start_of(metric, 1, ts))
                """,
            ),
        ),
        Test(_MODEL, "assert"),
    ),
    Bug(
        "filter-on-a-subset-wrong",
        "engine",
        "A filter on some of a metric's dimensions reads the values of the first ones, whichever "
        "it names.",
        (
            Edit(
                "engine.answers",
                "Chooser.__init__",
                "{key: declared.index(key) for key in [*wanted, *keys]}",
                "{key: place for place, key in enumerate(dict.fromkeys([*wanted, *keys]))}",
            ),
        ),
        Test(_MODEL, "assert"),
    ),
    Bug(
        "unique-members-summed-over-periods",
        "engine",
        "COUNT_UNIQUE over several buckets is the sum of their counts: who comes every day is "
        "many.",
        (
            Edit(
                "engine.cells",
                "_sweep",
                "value = AggValue(count=members.found, unique=members.found)",
                """
                found = members.found
                if not metric.recurring:
                    inside = [cell[4] for cell in cells if start_ns <= cell[2] < end_ns]
                    found = sum(inside) or found
                value = AggValue(count=found, unique=found)
                """,
            ),
        ),
        Test(_MODEL, "assert"),
    ),
    Bug(
        "alert-twice-after-failover",
        "engine",
        "A new leader's first entry forgets which thresholds have fired: each alert is raised once "
        "more by the next event.",
        (
            Edit(
                "engine.machine",
                "Machine._other",
                'assert not body, "NOOP says nothing"',
                """
                assert not body, "NOOP says nothing"
                for row in range(self.counter.totals.cell_count):
                    flags = self.counter.totals.cell_at(row)[12]
                    self.counter.totals.set_flags(row, flags & 0xFF0000)
                """,
            ),
        ),
    ),
    Bug(
        "alert-for-every-event",
        "engine",
        "A recurring threshold fires for each event beyond it, not for each crossing.",
        (
            Edit(
                "engine.thresholds",
                "Thresholds.cross",
                "if flags & side:",
                "if flags & side and not how & 1:",
            ),
        ),
        Test(_MODEL, "assert"),
    ),
    Bug(
        "latest-by-arrival",
        "engine",
        "LATEST is the event that came last, not the one with the latest time: a late event wins.",
        (
            Edit(
                "engine.totals",
                "Totals.add",
                "if ts >= self.cells[at + 8]:",
                "if True:",
            ),
        ),
        Test(_MODEL, "assert"),
    ),
    Bug(
        "late-removal-wins",
        "engine",
        "A removal that comes late takes out a member who has joined again since.",
        (
            Edit(
                "engine.totals",
                "Totals.join",
                "if ts < self.members[m + 1]:",
                "if False:",
            ),
        ),
        Test(f"{_CASES}::test_a_late_removal_does_not_undo_a_later_join", "assert"),
    ),
    Bug(
        "refused-event-claims-its-key",
        "engine",
        "The key of an event that is refused for its dimensions is remembered: sent again after "
        "the metric was corrected, it is a duplicate and never counted.",
        (
            Edit(
                "engine.count",
                "Counter.passes",
                "self.claim()",
                """
                refused = bytes(self.outcomes[self.begin_at : self.end_at])
                for i, outcome in enumerate(refused):
                    if outcome == 22:
                        self.outcomes[self.begin_at + i] = 0
                        self.scratch[8 * (self.begin_at + i)] = self.local[
                            self.body[self.at_records + 4 * (self.begin_at + i) + 3] & 0xFFFF
                        ]
                self.hash()
                self.claim()
                for i, outcome in enumerate(refused):
                    if outcome == 22:
                        self.outcomes[self.begin_at + i] = 22
                """,
            ),
        ),
        Test(f"{_CASES}::test_a_refused_event_claims_no_key", "assert"),
    ),
    Bug(
        "sum-carries-no-sign",
        "engine",
        "A negative value is added to the lower half of a 128-bit sum only.",
        (
            Edit(
                "engine.totals",
                "Totals.add",
                "if value >> 63:",
                "if False:",
            ),
        ),
        Test(_MODEL, "assert"),
    ),
)
