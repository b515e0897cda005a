"""The processes of ``unimeter dev``: started together, shown line by line, ended together.

One thread a node reads what it says; everything else happens in one place, the loop
over the queue that these threads and the signals fill:

    LINE     print it behind the node's name
    END      a node's process is gone: say so, start it again if that was asked
    SIGNAL   the first: SIGTERM to every node; the second: SIGKILL

so no two lines mix and nothing needs a lock. Nodes are ended by their own process ids.
"""

from __future__ import annotations

import enum
import queue
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from rich.console import Console
from rich.text import Text

from unimeter.cli.output import TABLE_WIDTH, Sheet, table_of
from unimeter.demo.cluster_process import ClusterProcess

COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue")
LOOK_SECONDS: Final = 0.1  # between two looks whether all are ready
READY_SECONDS_MAX: Final = 60.0  # then say who is not
END_SECONDS_MAX: Final = 20.0  # for nodes to end politely
RESTART_SECONDS: Final = 1.0
RESTARTS_MAX: Final = 5  # in a row without becoming ready: it won't


class What(enum.Enum):
    """What the loop takes from its queue."""

    LINE = enum.auto()
    END = enum.auto()
    SIGNAL = enum.auto()


class DevRun:
    """One run of the verb."""

    def __init__(
        self,
        cluster: ClusterProcess,
        *,
        restarts: bool,
        again: str,
        console: Console | None = None,
    ) -> None:
        """Prepare to run `cluster`; `again` is the command that starts it once more."""
        self.cluster, self.restarts, self.again = cluster, restarts, again
        self.console = console or Console(
            stderr=True, highlight=False, soft_wrap=True, width=TABLE_WIDTH
        )
        self.queue: queue.SimpleQueue[tuple[What, int, str]] = queue.SimpleQueue()
        self.alive: set[int] = set()
        self.tries = dict.fromkeys(cluster.nodes, 0)  # starts since it was last ready
        self.due: dict[int, float] = {}  # when to start a node again
        self.is_announced = self.is_ending = False
        self.status = 0
        self.give_up = 0.0

    def run(self) -> int:
        """Run until Ctrl-C, SIGTERM, or until no node is left; return the exit code."""
        with self._signals():
            try:
                self.give_up = time.monotonic() + READY_SECONDS_MAX
                for node in self.cluster.nodes:
                    self._start(node)
                while self.alive or self.due:
                    self._turn()
            finally:
                self.cluster.close()
        if self.is_ending and self.again:
            self._say(f"all nodes have ended; the data stays: {self.again} goes on with it")
        return self.status

    # --- the loop ------------------------------------------------------------------------

    def _turn(self) -> None:
        try:
            what, number, text = self.queue.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            self._look()
            return
        if what is What.LINE:
            self._show(number, text)
        elif what is What.END:
            self._ended(number)
        else:
            self._end()

    def _look(self) -> None:
        """Between two events: is everything ready, or is it time to do something?"""
        now = time.monotonic()
        for node in [node for node, when in self.due.items() if when <= now]:
            del self.due[node]
            self._start(node)
        if self.is_ending:
            if now > self.give_up and self.alive:
                self._say("the nodes did not end in time; killed")
                self._kill()
            return
        if not self.is_announced or any(self.tries.values()):
            self._look_ready(now)

    def _look_ready(self, now: float) -> None:
        for node in self.alive:
            if self.tries[node] and self.cluster.nodes[node].is_ready():
                self.tries[node] = 0
        if self.is_announced:
            return
        missing = [node for node, tries in self.tries.items() if tries]
        if not missing:
            self.is_announced = True
            self._announce()
        elif now > self.give_up:
            self.give_up = now + READY_SECONDS_MAX
            names = ", ".join(str(node) for node in missing)
            self._say(f"still not ready: node {names}; its lines say why")

    # --- nodes ---------------------------------------------------------------------------

    def _start(self, node: int) -> None:
        self.tries[node] += 1
        stream = self.cluster.nodes[node].launch_heard()
        self.alive.add(node)
        threading.Thread(target=self._listen, args=(node, stream), daemon=True).start()

    def _listen(self, node: int, stream: IO[bytes]) -> None:
        """Hand on what a node says, and that it ended. Runs in a thread of its own."""
        with stream:
            for line in stream:
                self.queue.put((What.LINE, node, line.decode(errors="replace").rstrip()))
        self.queue.put((What.END, node, ""))

    def _ended(self, node: int) -> None:
        """A node's process is gone, as it should or not."""
        process = self.cluster.nodes[node].process
        status = process.wait() if process is not None else 0
        self.cluster.nodes[node].kill()  # forgets the process, so that it can be started again
        self.alive.discard(node)
        if self.is_ending:
            return
        if not self.is_announced and not self.restarts:
            # A refusal: its own line above says why, and the others would wait for ever.
            self._say(f"node {node} {ending(status)} before the cluster was ready; ending the rest")
            self.status = status if status > 0 else 1
            self._end()
        elif self.restarts and self.tries[node] < RESTARTS_MAX:
            self._say(f"node {node} {ending(status)}; starting it again", "bold red")
            self.due[node] = time.monotonic() + RESTART_SECONDS
        else:
            self._say(f"node {node} {ending(status)}. Start it again with:", "bold red")
            self.console.print(Text("  " + self.command(node)))
            if not self.alive:
                self.status = 1
                self._say("no node is left")

    def command(self, node: int) -> str:
        """What to type to start one node."""
        _, _, *rest = self.cluster.nodes[node].command()
        return shlex.join(rest)

    def _end(self) -> None:
        """End all politely; at once when asked a second time."""
        if self.is_ending:
            self._say("killed")
            self._kill()
            return
        self.is_ending = True
        self.due.clear()
        self.give_up = time.monotonic() + END_SECONDS_MAX
        for node in self.alive:
            process = self.cluster.nodes[node].process
            assert process is not None
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # it may have been stopped by whoever plays

    def _kill(self) -> None:
        for node in self.alive:
            process = self.cluster.nodes[node].process
            assert process is not None
            process.kill()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP become events of the loop."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [(number, signal.getsignal(number)) for number in numbers]

        def note(number: int, frame: object) -> None:
            self.queue.put((What.SIGNAL, number, ""))

        for number in numbers:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    # --- words ---------------------------------------------------------------------------

    def _say(self, words: str, style: str = "bold") -> None:
        self.console.print(Text(words, style=style))

    def _show(self, node: int, line: str) -> None:
        prefix = Text(f"node {node} │ ", style=COLOURS[(node - 1) % len(COLOURS)])
        self.console.print(prefix.append(line.removeprefix("unimeter: "), style="default"))

    def _announce(self) -> None:
        """Where everything is, and what to try."""
        count, lead = len(self.cluster.nodes), self.cluster.leader()
        words = f"a cluster of {count} nodes is ready; node {lead} leads"
        self._say(words if count > 1 else "a node is ready", "bold green")
        columns = ("node", "clients", "http", "pid", "data")
        rows = [
            (node, one.address, f"http://127.0.0.1:{one.http_port}", one.process.pid,
             str(one.directory))
            for node, one in self.cluster.nodes.items()
            if one.process is not None
        ]  # fmt: skip
        self.console.print(table_of(Sheet(columns, rows)))
        for line in suggestions(self.cluster, lead):
            self.console.print(Text(line))


def suggestions(cluster: ClusterProcess, lead: int | None) -> list[str]:
    """Commands to try on a cluster that is ready."""
    lines = [
        "try, in another terminal:",
        f"  export UNIMETER_SERVER={shlex.quote(' '.join(cluster.addresses))}",
        "  unimeter metric create api_calls count",
        """  echo '{"account": 42, "metric": "api_calls"}' | unimeter ingest -""",
        "  unimeter query 42 api_calls",
        "  unimeter status --watch",
    ]
    process = cluster.nodes[lead].process if lead is not None else None
    if len(cluster.nodes) > 1 and process is not None:
        lines += [
            "  unimeter transfer-leader",
            f"  kill -9 {process.pid}    # node {lead}, which leads: another takes over",
        ]
    return [*lines, "Ctrl-C ends all nodes."]


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with code {status}"
