"""The engine by itself, in this process: what the socket and the disk leave out.

Two figures. The engine's part of a query (target: 5 us), measured on the same
state as the round trip: 10,000 accounts by 5 metrics, a few events each. And
the rate of the whole counting path without I/O (decode, seal, apply, render),
which is what the node's one thread could do if bytes cost nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from unimeter.bench.frames import METRICS, Tape
from unimeter.bench.load import LoadError
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import DAY_NS, Settings, make_tape, quantile
from unimeter.engine import entries
from unimeter.engine.catalog import encode_schema
from unimeter.engine.decode import FEED_FULL, FEED_MORE, EntryBuilder
from unimeter.engine.machine import Machine
from unimeter.engine.query import plan_total
from unimeter.engine.replies import render
from unimeter.periods import zone_transitions
from unimeter.types import MetricSchema

LAPS = 20
READ_FRAMES = 10  # frames per feed: what one read of a busy socket gives


def make_machine() -> Machine:
    """A machine that knows the five metrics."""
    machine = Machine()
    machine.apply(
        1, entries.GENESIS, time.time_ns(), entries.genesis_body(os.urandom(16), os.urandom(16))
    )
    for index, metric in enumerate(METRICS, 2):
        schema = MetricSchema(metric.code, metric.agg_type)
        body = bytes([0]) + encode_schema(schema, zone_transitions(schema.zone))
        applied = machine.apply(index, entries.METRIC_PUT, time.time_ns(), body)
        assert not applied.error, applied.error
    return machine


def count_laps(machine: Machine, tape: Tape, laps: int) -> float:
    """Put the tape `laps` times through the engine; seconds it took."""
    builder = EntryBuilder()
    seconds = 0.0
    for _ in range(laps):
        for data in pieces(tape):
            begin = time.perf_counter()
            count_piece(machine, builder, data)
            seconds += time.perf_counter() - begin
    if machine.stored != tape.events_taken:
        raise LoadError(f"{tape.events_taken} events counted, {machine.stored} stored")
    return seconds


def pieces(tape: Tape) -> Iterator[memoryview]:
    """One lap in reads of READ_FRAMES frames."""
    left = tape.frames
    while left:
        data, count = tape.take(min(READ_FRAMES, left))
        left -= count
        yield data


def count_piece(machine: Machine, builder: EntryBuilder, data: memoryview) -> None:
    """Feed, seal, apply and render, as a node does in one turn."""
    position = 0
    builder.now_ns = time.time_ns()
    while position < len(data):
        position = builder.feed(data, position, len(data), 1)
        assert builder.stop in (FEED_FULL, FEED_MORE), f"the tape's frames stop with {builder.stop}"
        apply_open_entry(machine, builder)


def apply_open_entry(machine: Machine, builder: EntryBuilder) -> None:
    """Seal what is open, apply it and render its replies."""
    timestamp_ns = max(time.time_ns(), machine.timestamp_ns)
    sealed = builder.seal(timestamp_ns, machine.next_offset)
    assert sealed is not None, "the piece held whole frames"
    applied = machine.apply(machine.applied + 1, entries.EVENTS, timestamp_ns, sealed.body)
    render(applied, sealed.routes)


def time_queries(machine: Machine, tape: Tape, rounds: int) -> list[float]:
    """Seconds of each of `rounds` totals over random accounts."""
    start = tape.first_ns // DAY_NS * DAY_NS
    seconds = []
    for turn in range(rounds):
        account, metric = tape.pairs[turn % len(tape.pairs)]
        code = METRICS[metric].code
        begin = time.perf_counter()
        plan_total(machine, account, code, start, start + 2 * DAY_NS).finish()
        seconds.append(time.perf_counter() - begin)
    return seconds


def engine_alone(settings: Settings) -> list[Figure]:
    """The engine's part of a query, and its rate of counting."""
    machine, tape = make_machine(), make_tape(settings, settings.batch)
    seconds = count_laps(machine, tape, LAPS)
    queries = time_queries(machine, tape, settings.query_rounds)
    note = f"{tape.events_taken:,} events into empty tables; one thread, no socket, no disk"
    return [
        Figure("query of a total: engine part, p50", quantile(queries, 0.5), "s", 5e-6, False),
        Figure("engine alone, batch 500", tape.events_taken / seconds, "events/s", note=note),
    ]
