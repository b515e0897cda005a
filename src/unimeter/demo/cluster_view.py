"""What happens while the cluster's demonstration runs, for somebody who watches.

On a terminal a live picture: the nodes, the throughput of the last seconds as bars, and
the faults so far with the longest pause that a client saw. Elsewhere a line a second
would be noise: one line for every fault and one every few seconds.

Looks only: nodes through their own /metrics pages, clients through their counters.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from unimeter.demo.cluster_load import Load
from unimeter.demo.cluster_process import ClusterProcess

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

LOOK_SECONDS: Final = 0.25
LINE_SECONDS: Final = 5.0
RATE_LOOKS: Final = 4  # throughput is that of the last second
BARS: Final = " ▁▂▃▄▅▆▇█"
BARS_SHOWN: Final = 60


@dataclass
class Phase:
    """A stretch of the demonstration: a fault or its end, and what follows until the next."""

    what: str
    began: float
    ended: float = 0.0  # 0 = still on
    note: str = ""
    pause: float = 0.0  # seconds of the longest call in it


@dataclass
class NodeView:
    """What is shown of a node."""

    role: str = "starting"
    term: int = 0
    applied: int = 0


class View:
    """The nodes, the clients and the faults, looked at again and again."""

    def __init__(self, cluster: ClusterProcess, console: Console) -> None:
        self.cluster, self.console = cluster, console
        self.load: Load | None = None
        self.phases: list[Phase] = []
        self.nodes = {node: NodeView() for node in cluster.nodes}
        self.began = time.monotonic()
        self._totals: deque[int] = deque(maxlen=RATE_LOOKS + 1)
        self._rates: deque[float] = deque(maxlen=BARS_SHOWN)
        self._said = 0.0
        self._stop = threading.Event()

    # --- what the script tells -----------------------------------------------------------

    def begin(self, what: str) -> Phase:
        """A new phase; the one before ends here."""
        self.end()
        self.phases.append(Phase(what, time.monotonic()))
        if not self.console.is_terminal:
            self.console.print(f"{self._age():5.1f} s  {what}")
        return self.phases[-1]

    def end(self) -> None:
        """The current phase is over."""
        if self.phases and not self.phases[-1].ended:
            last = self.phases[-1]
            last.ended = time.monotonic()
            last.pause = self._pause(last)

    # --- looking -------------------------------------------------------------------------

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Look and show in a thread until the block ends."""
        thread = threading.Thread(target=self._run, name="view", daemon=True)
        if not self.console.is_terminal:
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()
            return
        from rich.live import Live

        with Live(
            console=self.console, get_renderable=self.picture, refresh_per_second=1 / LOOK_SECONDS
        ):
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._look()
            if not self.console.is_terminal and time.monotonic() > self._said + LINE_SECONDS:
                self._said = time.monotonic()
                self.console.print(self._line())

    def _look(self) -> None:
        for node, view in self.nodes.items():
            process = self.cluster.nodes[node]
            if process.is_stopped:
                view.role = "stopped"
                continue
            figures = process.figures()
            if not process.is_running:
                view.role = "killed"
            elif not figures:
                view.role = "starting"
            else:
                view.role = "leader" if figures["unimeter_leader"] else "follower"
                view.term = int(figures["unimeter_term"])
                view.applied = int(figures["unimeter_applied_index"])
        if self.load is not None:
            self._totals.append(self.load.counts.events)
            looks = len(self._totals) - 1
            if looks:
                rate = (self._totals[-1] - self._totals[0]) / (looks * LOOK_SECONDS)
                self._rates.append(rate)

    def _age(self) -> float:
        return time.monotonic() - self.began

    def _pause(self, phase: Phase) -> float:
        if self.load is None:
            return 0.0
        return self.load.longest_call(phase.began, phase.ended or time.monotonic())

    # --- showing -------------------------------------------------------------------------

    def _line(self) -> str:
        nodes = ", ".join(f"node {node} {one.role}" for node, one in self.nodes.items())
        rate = self._rates[-1] if self._rates else 0.0
        return f"{self._age():5.1f} s  {rate:7,.0f} events/s  {nodes}"

    def picture(self) -> Group:
        """Everything at this moment."""
        from rich.console import Group
        from rich.text import Text

        return Group(self._nodes_table(), Text(self._traffic()), self.phase_table())

    def _nodes_table(self) -> Table:
        from rich.table import Table

        table = Table("node", "clients", "role", "term", "applied", box=None, pad_edge=False)
        styles = {"leader": "bold green", "killed": "bold red", "stopped": "bold yellow"}
        for node, one in self.nodes.items():
            cells = (f"{node}", self.cluster.nodes[node].address, one.role)
            numbers = (f"{one.term}", f"{one.applied:,}")
            table.add_row(*cells, *numbers, style=styles.get(one.role, ""))
        return table

    def _traffic(self) -> str:
        rates = list(self._rates)
        top = max([1.0, *rates])
        bars = "".join(BARS[round((len(BARS) - 1) * rate / top)] for rate in rates)
        if self.load is None:
            return "waiting for the nodes to meet"
        counts = self.load.counts
        return (
            f"\n{self._age():5.1f} s  {counts.events:,} events acknowledged, "
            f"{counts.duplicates:,} duplicates found, {counts.checks:,} balances asked, "
            f"{len(counts.failures)} calls failed\n"
            f"{rates[-1] if rates else 0:9,.0f} events/s {bars}\n"
        )

    def phase_table(self) -> Table:
        """The faults so far, with the longest pause that a client saw after each."""
        from rich.table import Table

        table = Table("at", "what", "longest pause", "", box=None, pad_edge=False)
        table.columns[0].justify = table.columns[2].justify = "right"
        for phase in self.phases:
            pause = phase.pause if phase.ended else self._pause(phase)
            at = phase.began - self.began
            table.add_row(f"{at:.1f} s", phase.what, f"{pause * 1000:,.0f} ms", phase.note)
        return table
