"""``make demo``: meter 200,000 events through a kill -9 and compare every total.

What it does, in the order it prints it:

1. starts ``unimeter serve`` as a process of its own on a temporary directory
   and runs the README's five lines against it;
2. makes the same 200,000 events every time, from one seed, for the four uses:
   API calls and tokens by model and kind, compute seconds by provider and
   region, seats that people join and leave, credits granted and spent;
3. sends them with the SDK over the real socket, from several tasks at once;
4. kills the node with SIGKILL when half is acknowledged and starts it again;
   the SDK resends what was not acknowledged, under the sequence numbers it had;
5. asks the node for every total of every account and compares each with what
   plain Python dictionaries say (`workload.Expected`).

The exit status is 0 only if every single total is equal. It refuses to be a
benchmark: one Python process makes, sends and times the events, so what it
prints is what this client did, not what the node can do (``make bench``).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from unimeter import (
    AggType,
    AsyncClient,
    Client,
    Event,
    IngestResult,
    MetricSchema,
    current_month,
)
from unimeter.demo.comparing import ask_all, compare, show
from unimeter.demo.process import NodeProcess
from unimeter.demo.workload import METRICS, SEED, Expected, make_events
from unimeter.engine import COMPILED

BATCH_EVENTS: Final = 500
SENDERS: Final = 8
CALL_SECONDS_MAX: Final = 60.0  # longer than a restart, so that the SDK itself outlasts it


def five_lines(address: str) -> int:
    """The README's example, line for line, on a node that has no such metric yet."""
    with Client([address]) as client:
        client.metrics.create(MetricSchema("api_calls", AggType.COUNT))
        client.ingest([Event(42, "api_calls")])
        return client.query(42, "api_calls", current_month()).value.count


@dataclass
class Sent:
    """What happened on the way in."""

    acknowledged: int = 0
    stored: int = 0
    duplicates: int = 0
    interrupted: int = 0  # batches in flight when the node was killed: the SDK resent them
    latencies: list[float] = field(default_factory=list)  # seconds, of calls without the kill
    seconds: float = 0.0

    def add(self, result: IngestResult) -> None:
        """Take one acknowledgement."""
        self.acknowledged += 1
        self.stored += result.n_stored
        self.duplicates += result.n_duplicates
        assert result.n_refused == 0, result.refusals[:3]


async def send_all(client: AsyncClient, node: NodeProcess, events: list[Event]) -> Sent:
    """Send every event; kill the node half way and start it again meanwhile."""
    batches = [events[i : i + BATCH_EVENTS] for i in range(0, len(events), BATCH_EVENTS)]
    waiting, sent, half = iter(batches), Sent(), asyncio.Event()
    restarts = 0

    async def sender() -> None:
        for batch in waiting:
            started, life = time.perf_counter(), restarts
            sent.add(await client.ingest(batch))
            if life == restarts:
                sent.latencies.append(time.perf_counter() - started)
            else:
                sent.interrupted += 1
            if sent.acknowledged == len(batches) // 2:
                half.set()

    async def killer() -> None:
        nonlocal restarts
        await half.wait()
        restarts += 1
        node.kill()
        print(f"SIGKILL after {sent.acknowledged} of {len(batches)} batches were acknowledged")
        started = time.perf_counter()
        await asyncio.to_thread(node.start)
        print(f"started again, recovered in {time.perf_counter() - started:.2f} s")

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(killer())
        for _ in range(SENDERS):
            tasks.create_task(sender())
    sent.seconds = time.perf_counter() - started
    return sent


def percentile(sorted_values: list[float], share: float) -> float:
    """Return the value below which `share` of them lie."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def report(sent: Sent, count: int) -> None:
    """Print how the sending went."""
    latencies = sorted(sent.latencies)
    p50, p99 = (percentile(latencies, share) * 1e3 for share in (0.50, 0.99))
    print(
        f"{count:,} events in {sent.seconds:.1f} s, restart included: "
        f"{count / sent.seconds:,.0f} events/s from one Python client"
    )
    print(
        f"latency of a batch of {BATCH_EVENTS}, {SENDERS} in flight: "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )
    print(
        f"{sent.interrupted} batches were interrupted by the kill and resent; "
        f"{sent.stored:,} events acknowledged as stored, {sent.duplicates:,} as duplicates"
    )


async def meter_and_compare(node: NodeProcess) -> bool:
    """Send everything through a kill, ask for everything; return whether all is equal."""
    events = make_events()
    expectation = Expected()
    for event in events:
        expectation.add(event)
    expected = expectation.totals()
    print(f"{len(events):,} events made from seed {SEED}; sending them over {SENDERS} tasks")
    async with AsyncClient([node.address], timeout=CALL_SECONDS_MAX) as client:
        for schema in METRICS:
            await client.metrics.create(schema)
        sent = await send_all(client, node, events)
        found = await ask_all(client, expected)
    rows = compare(expected, found)
    show(rows)
    report(sent, len(events))
    equal = all(row.equal for row in rows)
    print(f"{len(expected):,} totals compared: {'ALL EQUAL' if equal else 'NOT EQUAL'}")
    return equal


def run(folder: Path) -> bool:
    """Run the whole demonstration in `folder`; return whether every total is equal."""
    node = NodeProcess(folder / "node")
    node.start()
    print(f"a node listens on {node.address} (kernels {'compiled' if COMPILED else 'interpreted'})")
    try:
        count = five_lines(node.address)
        print(f"the README's five lines print {count}")
        return asyncio.run(meter_and_compare(node)) and count == 1
    finally:
        node.kill()


def main() -> int:
    """Return the exit status: 0 only if every total is equal."""
    with tempfile.TemporaryDirectory(prefix="unimeter-demo-") as folder:
        return 0 if run(Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
