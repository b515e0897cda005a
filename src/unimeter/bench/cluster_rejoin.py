"""How long a node that lost its disk needs to be a voter again.

The cluster holds N events. A follower is killed, its directory removed, made anew by
``unimeter recover`` and served, while the leader goes on taking a steady load. The time is
that from the start of ``recover`` until the node says itself that it votes, which is after
it has applied everything that was committed when it asked. Then the load ends and the
totals of all nodes must agree with what was acknowledged, meanwhile and before.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from typing import Final

from unimeter import Client
from unimeter.bench.cluster_nodes import Group, running_group
from unimeter.bench.frames import INGEST_REPLY_BYTES, Tape
from unimeter.bench.load import IngestSource, LoadError, connect, run_load
from unimeter.bench.node import MeasuredNode, receive_exactly
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import LimitedSource, Settings, make_tape
from unimeter.errors import UnimeterError
from unimeter.types import Membership

EVENTS: Final = 10_000_000
BATCHES_PER_SECOND: Final = 100  # of the load that goes on: 50,000 events/s
REJOIN_SECONDS_MAX: Final = 600.0
LOOK_SECONDS: Final = 0.05
CONNECTIONS: Final = 8


class SteadyLoad:
    """One client in a thread that sends a batch, waits for its reply, and keeps the pace."""

    def __init__(self, node: MeasuredNode, source: IngestSource) -> None:
        self._source, self._sock = source, node.connect()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: Exception | None = None
        self.batches = 0

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._sock.close()

    def check(self) -> None:
        """LoadError if it has ended by itself."""
        if self._error is not None:
            raise LoadError(f"the load meanwhile ended: {self._error}") from self._error

    def _run(self) -> None:
        begin = time.monotonic()
        try:
            while not self._stopping.is_set():
                data, _ = self._source.take(1)
                self._sock.sendall(data)
                reply = receive_exactly(self._sock, INGEST_REPLY_BYTES)
                self._source.count(memoryview(reply))
                self.batches += 1
                due = begin + self.batches / BATCHES_PER_SECOND
                self._stopping.wait(max(0.0, due - time.monotonic()))
        except Exception as error:  # told to the thread that measures
            self._error = error


def recover(node: MeasuredNode) -> None:
    """``unimeter recover`` on the node's directory, with the options it is served with."""
    wanted = ("--node-id", "--peers", "--cluster-id", "--cluster-secret-file")
    options = [option for option in node.options if option.partition("=")[0] in wanted]
    words = [sys.executable, "-m", "unimeter", "recover", "--yes"]
    words += ["--data-dir", str(node.directory), *options]
    done = subprocess.run(
        words, capture_output=True, text=True, env=node.env, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise LoadError(f"unimeter recover ended with {done.returncode}: {done.stderr.strip()}")


def wait_voter(node: MeasuredNode, load: SteadyLoad) -> None:
    """Return once the node says of itself that it votes."""
    number = next(
        int(option.partition("=")[2]) for option in node.options if option.startswith("--node-id=")
    )
    give_up = time.monotonic() + REJOIN_SECONDS_MAX
    with Client([node.address]) as client:
        while time.monotonic() < give_up:
            load.check()
            if node.process is None or node.process.poll() is not None:
                raise LoadError(f"the node ended:\n{node.output.read_text()[-2000:]}")
            if _membership(client, number) is Membership.VOTER:
                return
            time.sleep(LOOK_SECONDS)
    raise LoadError("the node did not become a voter in time")


def _membership(client: Client, number: int) -> Membership | None:
    try:
        nodes = client.status(timeout=5.0).nodes
    except UnimeterError:
        return None
    return next((one.membership for one in nodes if one.node_id == number), None)


def fill(group: Group, source: IngestSource, requests: int) -> None:
    """Send so many batches to the leader."""
    limited = LimitedSource(source, requests)
    run_load(limited, connect(group.leader.place, CONNECTIONS), 2, 600.0)
    _check_all_stored(source, source.tape)
    group.wait_level()


def _check_all_stored(source: IngestSource, tape: Tape) -> None:
    if source.stored != tape.events_taken or source.duplicates:
        raise LoadError(
            f"{tape.events_taken} events sent, {source.stored} stored and "
            f"{source.duplicates} called duplicates"
        )


def rejoin(settings: Settings, events: int = EVENTS) -> list[Figure]:
    """Wipe a follower of a cluster that holds `events`, and wait until it votes again."""
    with running_group(settings, 3) as group:
        tape = make_tape(settings, settings.batch)
        source = IngestSource(tape)
        fill(group, source, events // settings.batch)
        node = group.followers[0]
        node.kill()
        shutil.rmtree(node.directory)
        with SteadyLoad(group.leader, source) as load:
            begin = time.perf_counter()
            recover(node)
            node.start()
            wait_voter(node, load)
            seconds = time.perf_counter() - begin
        load.check()
        _check_all_stored(source, tape)
        group.check_totals(tape)
    rate = load.batches * settings.batch / seconds
    name = f"a wiped follower rejoins {events:,} events"
    note = f"{events / seconds:,.0f} events/s; meanwhile {rate:,.0f} events/s were taken"
    return [Figure(name, seconds, "s", 60, False, note)]
