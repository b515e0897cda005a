"""``make cluster-demo``: three nodes, clients that never stop, kills and a pause; compare all.

What it does, in the order it prints it:

1. starts three nodes as processes of their own, and clients that send the four uses at
   a steady pace and ask for balances (`cluster_load`);
2. kills the leader with SIGKILL, starts it again; kills a follower, starts it again;
   stops the leader with SIGSTOP for five seconds and lets it go on;
3. says for each how long the longest call of a client took;
4. lets the clients end, waits until all nodes have applied the same entry, and compares
   every total with what plain Python dictionaries say of the acknowledged events;
5. stops the nodes, checks the three directories with ``unimeter verify``, and compares
   the hashes of the three states at the same entry.

The exit status is 0 only if no call failed, every balance held what was acknowledged to
its reader, every total is equal, the directories verify and the three states are one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from unimeter import AsyncClient, Client
from unimeter.demo.cluster_load import CALL_SECONDS_MAX, Load
from unimeter.demo.cluster_process import ClusterProcess
from unimeter.demo.cluster_view import View
from unimeter.demo.comparing import ask_all, compare, show
from unimeter.demo.workload import METRICS, SEED, Cell
from unimeter.engine import COMPILED

NODES: Final = 3
CLIENTS: Final = 4
CALM_SECONDS: Final = 4.0  # between two events of the script
STOPPED_SECONDS: Final = 5.0
LINE_COLUMNS: Final = 120  # where the output is no terminal
# Small, so that the run has several segments and snapshots, and a restart reads both.
NODE_OPTIONS: Final = ("--segment-bytes", "4MiB", "--snapshot-log-bytes", "4MiB")


class Script:
    """The order of events."""

    def __init__(self, cluster: ClusterProcess, view: View, load: Load, seed: int) -> None:
        self.cluster, self.view, self.load = cluster, view, load
        self.chance = random.Random(seed)
        self.calm_seconds, self.stopped_seconds = CALM_SECONDS, STOPPED_SECONDS

    def run(self) -> None:
        """Everything that is done to the nodes while the clients send."""
        self.view.begin("three nodes, undisturbed")
        self._calm()
        self._kill_leader()
        self._kill_follower()
        self._stop_leader()
        self.view.end()

    def _calm(self) -> None:
        time.sleep(self.calm_seconds)  # the only sleep: it is what the clients go on through

    def _kill_leader(self) -> None:
        lead = self.cluster.wait_leader()
        phase = self.view.begin(f"SIGKILL of node {lead}, the leader")
        self.cluster.kill(lead)
        other = self.cluster.wait_leader(other_than=lead)
        phase.note = f"node {other} leads after {time.monotonic() - phase.began:.2f} s"
        self._calm()
        self._start_again(lead)

    def _kill_follower(self) -> None:
        follower = self.chance.choice(self._followers())
        phase = self.view.begin(f"SIGKILL of node {follower}, a follower")
        self.cluster.kill(follower)
        phase.note = "two nodes are a majority"
        self._calm()
        self._start_again(follower)

    def _start_again(self, node: int) -> None:
        phase = self.view.begin(f"node {node} is started again")
        self.cluster.restart(node)
        phase.note = f"ready after {time.monotonic() - phase.began:.2f} s"
        self._calm()

    def _stop_leader(self) -> None:
        lead = self.cluster.wait_leader()
        words = f"SIGSTOP of node {lead}, the leader, for {self.stopped_seconds:g} s"
        phase = self.view.begin(words)
        self.cluster.stop(lead)
        try:
            other = self.cluster.wait_leader(other_than=lead)
            phase.note = f"node {other} leads after {time.monotonic() - phase.began:.2f} s"
            time.sleep(max(0.0, phase.began + self.stopped_seconds - time.monotonic()))
        finally:
            self.cluster.cont(lead)
        self.view.begin(f"node {lead} goes on, and finds that it leads no more")
        self._calm()

    def _followers(self) -> list[int]:
        lead = self.cluster.wait_leader()
        return [node for node in self.cluster.nodes if node != lead]


class Verdict:
    """What was checked, each with its outcome; `is_good` once all of it is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.is_good = True

    def check(self, what: str, is_good: bool, details: list[str] | None = None) -> None:
        """Say how one check went."""
        self.say(f"{'ok  ' if is_good else 'BAD '} {what}")
        for line in (details or [])[:10] if not is_good else []:
            self.say(f"       {line}")
        self.is_good = self.is_good and is_good


def check_clients(load: Load, verdict: Verdict) -> None:
    """What the clients saw while it happened."""
    counts = load.counts
    calls = sum(len(sender.calls) for sender in load.senders)
    verdict.check(f"{calls:,} calls, {len(counts.failures)} failed", not counts.failures,
                  counts.failures)  # fmt: skip
    verdict.check(
        f"{counts.events:,} events acknowledged, {counts.refused:,} refused",
        counts.events > 0 and counts.refused == 0,
    )
    verdict.check(
        f"{counts.resent:,} payments sent twice on purpose, {counts.duplicates:,} found",
        counts.resent == counts.duplicates,
    )
    verdict.check(
        f"{counts.checks:,} balances asked for meanwhile, {len(counts.wrong)} without something "
        "acknowledged",
        counts.checks > 0 and not counts.wrong,
        counts.wrong,
    )


def check_totals(cluster: ClusterProcess, expected: dict[Cell, int], verdict: Verdict) -> None:
    """Every total of every account."""

    async def ask() -> dict[Cell, int]:
        async with AsyncClient(cluster.addresses, timeout=CALL_SECONDS_MAX) as client:
            return await ask_all(client, expected)

    rows = compare(expected, asyncio.run(ask()))
    show(rows)
    verdict.check(
        f"{len(expected):,} totals of acknowledged events compared with plain arithmetic",
        bool(rows) and all(row.equal for row in rows),
    )


def check_directories(cluster: ClusterProcess, index: int, verdict: Verdict) -> None:
    """Each directory for itself, and the three states beside each other."""
    running = [start_verify(node.directory, index) for node in cluster.nodes.values()]
    states = []
    for node, process in zip(cluster.nodes, running, strict=True):
        output, words = process.communicate()
        found = json.loads(output) if output.strip() else {}
        states.append((found.get("index"), found.get("state_hash")))
        verdict.check(
            f"node {node}: unimeter verify, {found.get('events', 0):,} events recounted, state at "
            f"entry {found.get('index')}: {str(found.get('state_hash'))[:16]}",
            process.returncode == 0,
            words.splitlines(),
        )
    verdict.check(
        f"the three states at entry {index} are the same bytes",
        len(set(states)) == 1 and states[0][0] == index and bool(states[0][1]),
    )


def start_verify(directory: Path, index: int) -> subprocess.Popen[str]:
    """``unimeter verify`` of one directory up to an entry, under way."""
    command = [sys.executable, "-m", "unimeter", "verify", str(directory), "--json"]
    command += ["--at", str(index)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(
    folder: Path,
    seed: int = SEED,
    *,
    calm_seconds: float = CALM_SECONDS,
    stopped_seconds: float = STOPPED_SECONDS,
) -> bool:
    """Run the whole demonstration in `folder`; return whether everything is as promised."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else LINE_COLUMNS)
    cluster = ClusterProcess(folder, *NODE_OPTIONS, count=NODES)
    load = Load(cluster.addresses, seed, CLIENTS)
    view = View(cluster, console)
    verdict = Verdict(lambda words: console.print(words, markup=False, soft_wrap=True))
    kernels = "compiled" if COMPILED else "interpreted"
    console.print(f"{NODES} nodes, {CLIENTS} clients, seed {seed}; kernels {kernels}")
    with cluster:
        with Client(cluster.addresses) as client:
            for schema in METRICS:
                client.metrics.create(schema)
        with view.shown():
            view.load = load
            load.start()
            script = Script(cluster, view, load, seed)
            script.calm_seconds, script.stopped_seconds = calm_seconds, stopped_seconds
            try:
                script.run()
            finally:
                load.stop()
        if not console.is_terminal:  # there the last picture stays
            console.print(view.phase_table())
        index = cluster.wait_same_index()
        console.print(f"clients ended; all nodes have applied entry {index:,}")
        check_clients(load, verdict)
        check_totals(cluster, load.expected().totals(), verdict)
        statuses = cluster.terminate()
        verdict.check(f"the nodes ended with {list(statuses.values())}", not any(statuses.values()))
    check_directories(cluster, index, verdict)
    console.print("ALL EQUAL" if verdict.is_good else "NOT EQUAL")
    return verdict.is_good


def main() -> int:
    """Return the exit status: 0 only if everything is as promised."""
    parser = argparse.ArgumentParser(
        prog="python -m unimeter.demo.cluster",
        description="Meter through kills and a pause of three nodes; compare every total.",
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the events and the faults")
    parser.add_argument(
        "--calm", type=float, default=CALM_SECONDS, metavar="SECONDS", help="between two faults"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="leave the three directories there"
    )
    options = parser.parse_args()
    with ExitStack() as held:
        folder = options.keep
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="unimeter-cluster-demo-")
            folder = Path(held.enter_context(temporary))
        return 0 if run(folder, options.seed, calm_seconds=options.calm) else 1


if __name__ == "__main__":
    sys.exit(main())
