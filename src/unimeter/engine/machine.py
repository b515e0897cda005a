"""The state machine: apply one entry; the order of outcomes, and nothing else.

    entry -> apply -> state' and what became of it (`Applied`)

The machine owns all replicated state: catalog, sessions, what administrators make, and
in the kernel's `Counter` the totals, event keys and alerts. It is a function: no clock, disk,
socket, thread or randomness, so replicas that applied the same entries hold
the same bytes. Time is the entry's timestamp.

For a batch the order is: requests that were counted before are skipped
(sessions), then each event gets the first outcome that applies (`count.py`),
then totals change and thresholds cross in log order. A bad event gets an
outcome; a bad entry is our own fault and fails an assertion.
"""

from __future__ import annotations

import hashlib
from typing import Final, cast

from unimeter.control import UNKNOWN, Actor
from unimeter.engine import entries
from unimeter.engine.administration import Administration
from unimeter.engine.applied import Applied, reply_of
from unimeter.engine.catalog import (
    ALREADY_EXISTS,
    INVALID_INPUT,
    NOT_FOUND,
    OK,
    Catalog,
    Metric,
    decode_schema,
)
from unimeter.engine.changes import INVALID, NO_KEY, UNAUTHENTICATED
from unimeter.engine.count import Counter
from unimeter.engine.sessions import Session, Sessions, remembered
from unimeter.engine.snapshot import MAGIC, Source, padded, words
from unimeter.errors import InvalidInputError
from unimeter.types import AggType, MetricSchema

_REFUSALS: Final = {
    OK: "",
    INVALID_INPUT: "the definition breaks a rule",
    NOT_FOUND: "there is no metric of that code",
    ALREADY_EXISTS: "there is a metric of that code, and it can't be changed so",
    UNAUTHENTICATED: NO_KEY,
}
"""What the trail says of a refused change of the catalog, whose own sentence quotes."""


class Machine:
    """All replicated state of one shard."""

    def __init__(self) -> None:
        self.applied = 0
        self.timestamp_ns = 0
        self.next_offset = 1
        self.cluster_id = b""
        self.hash_key = b""
        self.catalog = Catalog()
        self.sessions = Sessions()
        self.counter = Counter(bytes(16))
        self.administration = Administration()
        self.events = 0
        self.stored = 0
        self.duplicates = 0
        self.refused = 0

    # --- applying ---------------------------------------------------------------
    def apply(self, index: int, kind: int, timestamp_ns: int, body: bytes | memoryview) -> Applied:
        """Apply the committed entry `index`, the one after `applied`.

        Periods are chosen from the events' own timestamps and missing ones
        were set by the leader, never from this host's clock. A key that was
        already counted is DUPLICATE and changes nothing, so a client unsure
        of a reply may resend.
        """
        assert index == self.applied + 1, f"entry {index} after {self.applied}"
        assert (kind == entries.GENESIS) == (index == 1), "GENESIS is the first entry"
        if kind != entries.NOOP:  # which has the time of the entry before, whatever it says
            assert timestamp_ns >= self.timestamp_ns, "the log's clock went backwards"
            self.timestamp_ns = timestamp_ns
        if kind == entries.EVENTS:
            applied = self._events(index, timestamp_ns, body)
        else:
            applied = self._other(index, kind, bytes(body))
        self.applied = index
        return applied

    def _other(self, index: int, kind: int, body: bytes) -> Applied:
        applied = Applied(index, kind)
        applied.alerts_from = applied.alerts_to = self.counter.alert_count + 1
        if kind == entries.NOOP:
            assert not body, "NOOP says nothing"
        elif kind == entries.GENESIS:
            assert len(body) == 32, "GENESIS holds a cluster id and a hash key"
            self.cluster_id, self.hash_key = body[:16], body[16:]
            self.counter = Counter(self.hash_key)
        elif kind == entries.METRIC_PUT:
            self._put_metric(applied, UNKNOWN, body)
        elif kind == entries.METRIC_DELETE:
            self._delete_metric(applied, UNKNOWN, body)
        elif kind == entries.ADMIN:
            applied.error_code, applied.error, applied.webhook = self.administration.apply(
                index, self.timestamp_ns, body, self.counter.alert_count
            )
        elif kind == entries.ON_BEHALF:
            self._on_behalf(applied, body)
        else:
            raise AssertionError(f"entry {index} is of unknown kind {kind}")
        return applied

    def _on_behalf(self, applied: Applied, body: bytes) -> None:
        """A change of the catalog, and whose it is."""
        try:
            actor, kind, inner = entries.parse_on_behalf(body)
        except InvalidInputError as error:
            applied.error_code, applied.error = INVALID_INPUT, str(error)
            self._tell(applied, UNKNOWN, INVALID, "")
            return
        is_put = kind == entries.METRIC_PUT
        if self.administration.is_closed_to(actor):
            applied.error_code, applied.error = UNAUTHENTICATED, NO_KEY
            action = "metric.put" if is_put else "metric.delete"
            target = entries.code_of_put(inner) if is_put else inner.decode("utf-8", "replace")
            self._tell(applied, actor, action, target)
        elif is_put:
            self._put_metric(applied, actor, inner)
        else:
            self._delete_metric(applied, actor, inner)

    def _put_metric(self, applied: Applied, actor: Actor, body: bytes) -> None:
        code = entries.code_of_put(body)
        before = self._schema(code)
        applied.error_code, applied.error = self.catalog.put(
            applied.index, body[0] if body else 0, body[1:]
        )
        if not applied.error_code:
            self._changed_metric(body[1:])
        if applied.error_code or self._schema(code) != before:
            self._tell(applied, actor, "metric.put", code)

    def _delete_metric(self, applied: Applied, actor: Actor, code: bytes) -> None:
        applied.error_code, applied.error = self.catalog.delete(applied.index, code)
        self._tell(applied, actor, "metric.delete", code.decode("utf-8", "replace"))

    def _schema(self, code: str) -> MetricSchema | None:
        number = self.catalog.by_code.get(code.encode())
        return None if number is None else self.catalog.metrics[number - 1].schema

    def _tell(self, applied: Applied, actor: Actor, action: str, target: str) -> None:
        """A line of the trail. Quotes in the catalog's sentences depend on Python's release."""
        refusal = _REFUSALS[applied.error_code]
        self.administration.tell(applied.index, self.timestamp_ns, actor, action, target, refusal)

    def _changed_metric(self, schema: bytes) -> None:
        """Tell the kernel of a created or changed metric."""
        metric = self.catalog.find(decode_schema(schema)[0].code)
        had_periods = self._has_period_cells(metric.number)
        self._set_metric(metric)
        if self._has_period_cells(metric.number) and not had_periods:
            self.counter.build_periods(metric.number, metric.agg)

    def _has_period_cells(self, number: int) -> bool:
        return number < self.counter.metric_count and bool(self.counter.metric_flags(number) & 2)

    def _set_metric(self, metric: Metric) -> None:
        unique = metric.agg == AggType.COUNT_UNIQUE
        watched = unique or bool(metric.thresholds)
        needs_period = watched and not (
            metric.buckets_are_periods and not (unique and metric.dimensions)
        )
        flags = metric.recurring | needs_period << 1 | metric.deleted << 2
        calendars = []
        for calendar in (metric.period, metric.bucket):
            origin, length = calendar.arithmetic or (0, 0)
            calendars.append((origin, length, calendar.boundaries))
        self.counter.set_metric(
            metric.number,
            metric.agg,
            flags,
            calendars[0],
            calendars[1],
            metric.dimensions,
            [(value, recurring, falling) for _, value, recurring, falling in metric.thresholds],
        )

    def _events(self, index: int, timestamp_ns: int, body: bytes | memoryview) -> Applied:
        counter = self.counter
        counter.begin(body, self.catalog.by_code, timestamp_ns)
        assert counter.offset == self.next_offset, "an entry's offsets do not follow the last"
        applied = Applied(index, entries.EVENTS, first_offset=self.next_offset)
        applied.alerts_from = counter.alert_count + 1
        counted: list[tuple[int, Session, int]] = []
        again: list[tuple[int, int]] = []
        if counter.has_sessions():
            counted, again = self._begin_sessions(applied)
        counter.run()
        applied.stored, applied.duplicates, applied.refused = counter.tallied()
        applied.outcomes = counter.event_outcomes()
        applied.results = counter.request_results()
        applied.alerts_to = counter.alert_count + 1
        for request, session, sequence in counted:
            if sequence in session.replies:  # else a later request of this very entry pushed it out
                self.sessions.finish(session, sequence, reply_of(applied, request))
        for request, first in again:
            applied.repeated[request] = remembered(reply_of(applied, first))
        self.next_offset += counter.n_events
        self.events += counter.n_events
        self.stored += applied.stored
        self.duplicates += applied.duplicates
        self.refused += applied.refused
        return applied

    def _begin_sessions(
        self, applied: Applied
    ) -> tuple[list[tuple[int, Session, int]], list[tuple[int, int]]]:
        """Skip the requests that are not to be counted.

        Returns the others, to remember their replies, and the resends of a request that stands
        earlier in this entry, as (request, the earlier one): it has no reply yet. A known
        reply is taken at once, as a later request of this entry may push it out of the window.
        """
        counted: list[tuple[int, Session, int]] = []
        again: list[tuple[int, int]] = []
        firsts: dict[tuple[int, int, int], int] = {}
        triples = iter(self.counter.session_words())
        first = 0
        for request, word in enumerate(self.counter.request_flags()):
            events = word & 0xFFFFFFFF
            if word >> 32:
                high, low, sequence = next(triples), next(triples), next(triples)
                session = self.sessions.begin((high, low), sequence, self.timestamp_ns)
                if isinstance(session, int):
                    applied.repeated[request] = session
                    self.counter.skip(first, events)
                elif sequence in session.replies:
                    reply = session.replies[sequence]
                    if reply is None:
                        again.append((request, firsts[high, low, sequence]))
                    else:
                        applied.repeated[request] = reply
                    self.counter.skip(first, events)
                else:
                    session.replies[sequence] = None
                    firsts[high, low, sequence] = request
                    counted.append((request, session, sequence))
            first += events
        return counted, again

    # --- snapshots --------------------------------------------------------------
    def snapshot(self) -> list[bytes | memoryview]:
        """The state at `applied` as buffers of whole words; valid until the next apply."""
        head = words(MAGIC, self.applied, self.timestamp_ns, self.next_offset)
        head += words(self.events, self.stored, self.duplicates, self.refused)
        head += (self.cluster_id or bytes(16)) + (self.hash_key or bytes(16))
        tables = cast("list[bytes | memoryview]", self.counter.dump())
        return [
            head,
            padded(self.catalog.encode()),
            padded(self.sessions.encode()),
            padded(self.administration.encode()),
            *tables,
        ]

    @classmethod
    def restore(cls, data: memoryview | bytes) -> Machine:
        """The machine whose `snapshot` gave these bytes; ValueError if they are none."""
        source = Source(data)
        magic, applied, timestamp_ns, next_offset = source.words(4)
        if magic != MAGIC:
            raise ValueError("this is not a snapshot of the engine's state")
        machine = cls()
        machine.applied, machine.timestamp_ns = applied, timestamp_ns
        machine.next_offset = next_offset
        machine.events, machine.stored, machine.duplicates, machine.refused = source.words(4)
        machine.cluster_id = words(*source.words(2))
        machine.hash_key = words(*source.words(2))
        machine.catalog = Catalog.decode(source.data())
        machine.sessions = Sessions.decode(source.data())
        machine.administration = Administration.decode(source.data())
        machine.counter = Counter(machine.hash_key)
        machine.counter.load(source)
        source.check_end()
        for metric in machine.catalog.metrics:
            machine._set_metric(metric)
        return machine

    def state_hash(self) -> str:
        """BLAKE2b-128 of the snapshot: equal on replicas that applied the same entries."""
        digest = hashlib.blake2b(digest_size=16)
        for buffer in self.snapshot():
            digest.update(buffer)
        return digest.hexdigest()

    # --- looking ----------------------------------------------------------------
    def statistics(self) -> dict[str, int]:
        """Counts and sizes, for metrics, the command line and tests."""
        counter = self.counter
        cell_bytes, member_bytes = counter.totals.nbytes()
        return {
            "applied": self.applied,
            "events": self.events,
            "stored": self.stored,
            "duplicates": self.duplicates,
            "refused": self.refused,
            "metrics": len(self.catalog.by_code),
            "series": counter.totals.series_count,
            "cells": counter.totals.cell_count,
            "cell_bytes": cell_bytes,
            "members": counter.totals.member_count,
            "member_bytes": member_bytes,
            "keys": counter.keys.used,
            "key_bytes": counter.keys.nbytes(),
            "combinations": counter.combinations.count,
            "string_accounts": counter.accounts.count,
            "sessions": len(self.sessions),
            "alerts": counter.alert_count,
            **self.administration.statistics(),
        }

    def check_invariants(self) -> None:
        """Slow; for tests and the simulator."""
        assert self.events == self.stored + self.duplicates + self.refused
        assert self.next_offset == self.events + 1
        self.administration.check_invariants()
        self.counter.totals.check_invariants()
        self.counter.keys.check_invariants()
