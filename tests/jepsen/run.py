"""One run: start, disturb, heal, wait until it has settled, read the totals, judge.

    |- faults and clients -------------------| heal |- converge -| last reads |- judge
    0                                     seconds

Promises and their checkers (tests/conformance/linearizability):

    linearizable reads    counter.py        with the reads after the faults
    sessions              sessions.py       every read
    exact totals          final_totals.py   the reads after the faults
    the nodes agree       here              a linearizable read by way of each node
    nodes keep running    here              none ended that was not killed
    clients keep running  here              no exception that a fault does not explain
    enough was done       here              of each kind of operation, some succeeded

Every wait has an end, and so has the run: faults take `seconds`, clients finish
in about 15 s, convergence may take CONVERGE_SECONDS_MAX and judging
JUDGE_SECONDS_MAX. Whatever happens, links are made whole, the processes that
were started are killed by their ids, and the namespaces are removed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conformance.linearizability.counter import check_counters
from tests.conformance.linearizability.final_totals import check_final_totals
from tests.conformance.linearizability.history import Event, operations
from tests.conformance.linearizability.sessions import check_sessions
from tests.conformance.linearizability.verdict import Verdict
from tests.jepsen.cluster import Cluster
from tests.jepsen.faults import Injector, draw_schedule, is_possible
from tests.jepsen.namespaces import make_network
from tests.jepsen.networks import CLIENTS, Network, call_at
from tests.jepsen.recorder import Recorder
from tests.jepsen.report import Promise, Report
from tests.jepsen.workload import Workload, create_metric, read_total

from unimeter import Client, UnimeterError

CONVERGE_SECONDS_MAX: Final = 60.0
JUDGE_SECONDS_MAX: Final = 120.0
LAST_READER: Final = "last reader"  # the session of the reads after the faults
LAST_READER_PROCESS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for."""

    seed: int
    seconds: float = 60.0
    nodes: int = 3
    clients: int = 6
    keys: int = 3
    wants_namespaces: bool = True
    keeps_data: bool = False

    def command(self) -> str:
        """Return the command that does the same again."""
        words = f"python -m tests.jepsen --seed {self.seed} --seconds {self.seconds:g}"
        words += f" --nodes {self.nodes} --clients {self.clients} --keys {self.keys}"
        return words if self.wants_namespaces else f"{words} --no-namespaces"


def run(options: Options, folder: Path) -> Report:
    """Do a run, leave its history and report in the folder, and return the report."""
    folder.mkdir(parents=True)
    network = make_network(options.nodes, wants_namespaces=options.wants_namespaces)
    try:
        report = disturb(options, folder, network)
    finally:
        network.close()
    report.write(folder / "report.json")
    if report.is_passed and not options.keeps_data:
        for directory in folder.glob("node-*"):
            shutil.rmtree(directory) if directory.is_dir() else None
    return report


def disturb(options: Options, folder: Path, network: Network) -> Report:
    """Run cluster, clients and faults, and judge what they did."""
    drawn = draw_schedule(options.seed, options.seconds, options.nodes)
    schedule = [fault for fault in drawn if is_possible(fault, network)]
    skipped = [str(fault) for fault in drawn if not is_possible(fault, network)]
    report = Report(
        options.command(), commit(), options.seed, network.notes, list(map(str, schedule)), skipped
    )
    keys = [str(account) for account in range(1, options.keys + 1)]
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(Recorder(folder / "history.jsonl"))
        cluster = Cluster(network, folder, options.nodes)
        stack.callback(cluster.close)
        cluster.start_all()
        call_at(network, CLIENTS, lambda: prepare(cluster.seeds()), CONVERGE_SECONDS_MAX)
        workload = Workload(
            network,
            recorder,
            keys,
            seed=options.seed,
            client_count=options.clients,
            make_client=lambda: Client(cluster.seeds()),
        )
        injector = Injector(cluster, network)
        start = time.monotonic()
        workload.start()
        try:
            wait = lambda moment: time.sleep(max(0.0, start + moment - time.monotonic()))  # noqa: E731
            injector.run(schedule, wait, options.seconds)
        finally:
            workload.stop()
        healed = time.monotonic()
        agreement = Promise("the nodes agree", [])
        try:
            cluster.wait_ready(CONVERGE_SECONDS_MAX)
            agreement = call_at(
                network, CLIENTS, lambda: last_reads(cluster, recorder, keys, report.totals),
                CONVERGE_SECONDS_MAX + 10,
            )  # fmt: skip
        except (RuntimeError, TimeoutError, UnimeterError) as error:
            agreement.violations.append(f"not settled after the faults: {error}")
        settled = time.monotonic()
        report.promises = [*judge(recorder.events, report.totals), agreement]
        report.promises.append(Promise("nodes keep running", cluster.ended))
        report.promises.append(Promise("clients keep running", workload.bugs))
        report.errors = dict(workload.errors)
        report.faults, report.counts = injector.log, recorder.statistics()
        report.promises.append(enough(report.counts))
        report.seconds = {
            "faults": round(healed - start, 1),
            "settling": round(settled - healed, 1),
            "judging": round(time.monotonic() - settled, 1),
        }
    return report


def prepare(seeds: Sequence[str]) -> None:
    """Make the metric, in a cluster that may still be electing."""
    with contextlib.closing(Client(seeds)) as client:
        create_metric(client, timeout=CONVERGE_SECONDS_MAX / 2)


def last_reads(
    cluster: Cluster, recorder: Recorder, keys: Sequence[str], totals: dict[str, int]
) -> Promise:
    """Read every total by way of every node, and put the reads into the history."""
    give_up = time.monotonic() + CONVERGE_SECONDS_MAX
    promise = Promise("the nodes agree", [])
    for node in range(1, cluster.count + 1):
        with contextlib.closing(Client([cluster.seed(node)])) as client:
            for key in keys:
                recorder.record(LAST_READER_PROCESS, LAST_READER, "invoke", "read", key)
                total = read_patiently(client, key, give_up)
                if total is None:
                    recorder.record(LAST_READER_PROCESS, LAST_READER, "fail", "read", key)
                    promise.violations.append(f"node {node} gave no total of key {key}")
                    continue
                recorder.record(LAST_READER_PROCESS, LAST_READER, "ok", "read", key, total)
                if totals.setdefault(key, total) != total:
                    promise.violations.append(
                        f"node {node}: key {key} is {total}, not {totals[key]}"
                    )
    promise.detail = f"{cluster.count} nodes, {len(keys)} totals each"
    return promise


def read_patiently(client: Client, key: str, give_up: float) -> int | None:
    """Return a total, or None if there was none in time."""
    while (left := give_up - time.monotonic()) > 0:
        try:
            return read_total(client, key, linearizable=True, timeout=left)
        except UnimeterError as error:
            if not error.retryable:
                raise
            time.sleep(0.1)
    return None


def judge(events: Sequence[Event], totals: dict[str, int]) -> list[Promise]:
    """Return what the checkers say about a history."""
    counters = operations(events)
    every = operations(events, default_reads=True)
    judgement = check_counters(counters, time.monotonic() + JUDGE_SECONDS_MAX)
    wrong = [] if judgement.is_right else [f"{judgement.verdict.value}: {judgement.reason}"]
    assert judgement.verdict != Verdict.UNKNOWN or wrong
    reads = sum(op.function == "read" and op.is_known for op in counters)
    all_reads = sum(op.function == "read" and op.is_known for op in every)
    adds = [op for op in counters if op.function == "add"]
    unknown = sum(not op.is_known for op in adds)
    return [
        Promise("linearizable reads", wrong, f"{reads} reads, {judgement.states} states"),
        Promise("sessions", check_sessions(every), f"{all_reads} reads"),
        Promise(
            "exact totals",
            check_final_totals(counters, totals),
            f"{len(adds)} adds, {unknown} of them unknown",
        ),
    ]


def enough(counts: dict[str, int]) -> Promise:
    """Return whether the history can prove anything."""
    kinds = "add ok", "read ok", "default read ok"
    missing = [f"no '{kind}' in the history" for kind in kinds if not counts.get(kind)]
    return Promise("enough was done", missing, f"{sum(counts.get(kind, 0) for kind in kinds)} ok")


def commit() -> str:
    """Return what is checked out, with a + if files were changed."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
