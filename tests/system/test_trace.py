"""A real trace, metered by kind and hour through retries and five kills, to the unit.

The trace is a table of LLM requests: time, context tokens, generated tokens.
Each row becomes three events: its context tokens and its generated tokens on
one SUM metric with a dimension `kind`, and one request on a COUNT metric. Eight
clients send them in batches, every twentieth batch twice, while the node is
killed with SIGKILL and started again five times. Afterwards the totals of each
kind and hour must be the file's own sums, and `unimeter verify` must agree.

UNIMETER_TRACE names another trace of the same form.
"""

from __future__ import annotations

import csv
import os
import queue
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path

import pytest

from unimeter import AggType, Client, DimensionFilter, Event, MetricSchema, Period, Resolution
from unimeter.bench.node import MeasuredNode
from unimeter.storage.verify import verify

CONNECTIONS = 8
KILLS = 5
ROWS_PER_BATCH = 100
SENT_TWICE = 0.05
ACCOUNTS = 7  # rows are dealt to accounts in turn, so that every batch holds all of them
KINDS = ("context", "generated")
CALL_SECONDS = 90.0  # a call may have to wait for the node to come back


@dataclass(frozen=True)
class Row:
    """One request of the trace."""

    number: int
    time: datetime
    context: int
    generated: int

    @property
    def account(self) -> int:
        return 1 + self.number % ACCOUNTS

    @property
    def hour(self) -> datetime:
        return self.time.replace(minute=0, second=0, microsecond=0)

    def events(self) -> list[Event]:
        """The three events; their ids make a second send of the batch harmless."""
        return [
            Event(
                self.account,
                "tokens",
                value,
                self.time,
                properties={"kind": kind},
                id=f"{self.number}-{kind}",
            )
            for kind, value in zip(KINDS, (self.context, self.generated), strict=True)
        ] + [Event(self.account, "requests", 1, self.time, id=f"{self.number}")]


def parse_time(text: str) -> datetime:
    """The row's time to the microsecond; traces write seven digits, and some a zone."""
    day_time, _, fraction = text.strip().partition(".")
    digits = fraction.split("+")[0].rstrip("Z")
    moment = datetime.fromisoformat(day_time.removesuffix("Z"))
    return moment.replace(microsecond=int(f"{digits:0<6}"[:6]), tzinfo=timezone.utc)


def read_trace(path: Path) -> list[Row]:
    """Every row of a file of the form TIMESTAMP,ContextTokens,GeneratedTokens."""
    with path.open(newline="") as file:
        return [
            Row(
                number,
                parse_time(line["TIMESTAMP"]),
                int(line["ContextTokens"]),
                int(line["GeneratedTokens"]),
            )
            for number, line in enumerate(csv.DictReader(file))
        ]


@pytest.fixture(scope="module")
def trace(request: pytest.FixtureRequest) -> list[Row]:
    """The rows of the trace; skipped where there is none, a failure if a named one is absent."""
    named = os.environ.get("UNIMETER_TRACE")
    if named:
        return read_trace(Path(named))
    folder: Path = request.getfixturevalue("shared_dir")
    return read_trace(folder / "data" / "azure_llm_inference_2023_conv.csv")


def make_batches(rows: list[Row]) -> list[list[Event]]:
    """Batches in the trace's order, some of them twice, the copy a little later."""
    source = iter(rows)
    batches = []
    while part := list(islice(source, ROWS_PER_BATCH)):
        batches.append([event for row in part for event in row.events()])
    chosen = random.Random(7).sample(range(len(batches)), max(1, int(len(batches) * SENT_TWICE)))
    for place in sorted(chosen, reverse=True):
        batches.insert(min(len(batches), place + 3), batches[place])
    return batches


class Senders:
    """Threads with a client each, taking batches from one queue; tells how many are done."""

    def __init__(self, address: str, batches: list[list[Event]]) -> None:
        self.stored = self.duplicates = 0
        self._left: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()
        for batch in batches:
            self._left.put(batch)
        self._done = 0
        self._connected = threading.Barrier(CONNECTIONS)
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._send, args=(address,)) for _ in range(CONNECTIONS)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, address: str) -> None:
        try:
            with Client([address]) as client:
                self._connected.wait(60.0)
                while True:
                    try:
                        batch = self._left.get_nowait()
                    except queue.Empty:
                        return
                    result = client.ingest(batch, timeout=CALL_SECONDS)
                    assert result.n_refused == 0, result.refusals
                    self._note(result.n_stored, result.n_duplicates)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _note(self, stored: int, duplicates: int) -> None:
        with self._changed:
            self.stored += stored
            self.duplicates += duplicates
            self._done += 1
            self._changed.notify_all()

    def wait_until_done(self, batches: int) -> None:
        """Return when so many batches were acknowledged; raise what a sender raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._done >= batches or self._failure, timeout=100)
            if self._failure:
                raise self._failure
            assert self._done >= batches, f"{self._done} batches of {batches} after 100 s"

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def hours_of(rows: list[Row]) -> Period:
    """From the first row's hour to the end of the last one's."""
    return Period(min(row.hour for row in rows), max(row.hour for row in rows) + timedelta(hours=1))


def sums_of_file(rows: list[Row]) -> dict[tuple[str, datetime], int]:
    """(kind, hour) to the sum, in plain Python."""
    sums: Counter[tuple[str, datetime]] = Counter()
    for row in rows:
        sums["context", row.hour] += row.context
        sums["generated", row.hour] += row.generated
        sums["requests", row.hour] += 1
    return dict(sums)


def sums_of_node(client: Client, period: Period) -> dict[tuple[str, datetime], int]:
    """The same as the node tells it, added up over accounts."""
    sums: Counter[tuple[str, datetime]] = Counter()
    for account in range(1, ACCOUNTS + 1):
        for kind in KINDS:
            series = client.series(account, "tokens", period, window="hour", filters={"kind": kind})
            sums.update({(kind, point.start): point.value.sum for point in series})
        for point in client.series(account, "requests", period, window="hour"):
            sums["requests", point.start] += point.value.count
    return {key: value for key, value in sums.items() if value}


def create_metrics(client: Client) -> None:
    client.metrics.create(
        MetricSchema(
            "tokens",
            AggType.SUM,
            filters=[DimensionFilter("kind", list(KINDS))],
            resolution=Resolution.HOUR,
        )
    )
    client.metrics.create(MetricSchema("requests", AggType.COUNT, resolution=Resolution.HOUR))


@pytest.fixture
def metering(tmp_path: Path) -> Iterator[MeasuredNode]:
    with MeasuredNode(tmp_path / "data", {"segment_bytes": "1MiB"}) as node:
        yield node


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trace_is_metered_to_the_unit_through_retries_and_kills(
    trace: list[Row], metering: MeasuredNode
) -> None:
    node, batches = metering, make_batches(trace)
    with Client([node.address]) as client:
        create_metrics(client)
    senders = Senders(node.address, batches)
    try:
        for kill in range(1, KILLS + 1):
            senders.wait_until_done(len(batches) * kill // (KILLS + 1))
            node.kill()
            node.start()
        senders.wait_until_done(len(batches))
    finally:
        senders.join()

    assert senders.stored + senders.duplicates == sum(map(len, batches))
    period = hours_of(trace)
    with Client([node.address]) as client:
        assert sums_of_node(client, period) == {
            key: value for key, value in sums_of_file(trace).items() if value
        }
        check_whole_range(client, trace, period)
    assert node.terminate() == 0
    check_directory(node.directory, trace)


def check_whole_range(client: Client, rows: list[Row], period: Period) -> None:
    """The invoice run and the breakdown agree with the file as well."""
    tokens = sum(total.value.sum for total in client.accounts("tokens", period))
    assert tokens == sum(row.context + row.generated for row in rows)
    requests = sum(total.value.count for total in client.accounts("requests", period))
    assert requests == len(rows)
    by_kind: Counter[str] = Counter()
    for account in range(1, ACCOUNTS + 1):
        groups = client.query_breakdown(account, "tokens", period, group_by=["kind"])
        for group, value in groups.items():
            by_kind[dict(group)["kind"]] += value.sum
    assert by_kind["context"] == sum(row.context for row in rows)
    assert by_kind["generated"] == sum(row.generated for row in rows)


def check_directory(directory: Path, rows: list[Row]) -> None:
    """`unimeter verify` recomputes every total from the stored events and agrees."""
    report = verify(str(directory))
    assert report.problems == []
    assert report.events == 3 * len(rows)


def test_times_of_traces_are_read_to_the_microsecond() -> None:
    expected = datetime(2023, 11, 16, 18, 15, 46, 680590, timezone.utc)
    assert parse_time("2023-11-16 18:15:46.6805900") == expected
    assert parse_time("2023-11-16 18:15:46.680590+00:00") == expected
    assert parse_time("2023-11-16 18:15:46") == expected.replace(microsecond=0)
