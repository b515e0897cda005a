"""What a fake machine gives the real server: clocks, chance, disk, ports and threads.

The counterpart of `server.platform`: the same methods, all of them the world's. It is the
only place where the simulator stands between the server and its host; no line of the server
is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from unimeter.engine.applied import Applied
from unimeter.raft.messages import Entry
from unimeter.server.node import Node
from unimeter.server.platform import ListenError, Platform
from unimeter.server.webhook_lanes import Pace
from unimeter.sim.process import Process, Workers
from unimeter.sim.receivers import SimOutbound
from unimeter.sim.scheduler import SECOND
from unimeter.sim.transport import FakeSocket
from unimeter.storage.disk import DiskFullError, FatalStorageError
from unimeter.storage.wal import Wal, WalLimits

if TYPE_CHECKING:
    from unimeter.sim.machines import Machine

START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z, when the world begins
DATA_DIR = "data"


class SimPlatform(Platform):
    """The platform of one process on one machine."""

    lingers = False
    watches = True
    serves_http = False

    def __init__(self, machine: Machine, process: Process) -> None:
        self.machine, self.process = machine, process
        self._chance = process.chance.fork("platform")

    # --- clocks and chance -----------------------------------------------------------

    def monotonic(self) -> float:
        return self.process.now_ns / SECOND

    def time_ns(self) -> int:
        return START_NS + self.process.now_ns + self.machine.skew_ns

    def entropy(self, count: int) -> bytes:
        return self._chance.bytes(count)

    def chance(self) -> float:
        return self._chance.real()

    def random_ticks(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert stop is None and step == 1
        return self._chance.below(start)

    # --- disk and ports ----------------------------------------------------------------

    def open_disk(self, data_dir: str) -> tuple[Any, str, int]:
        return self.machine.disk.process(), data_dir, 0

    def wal_limits(self, segment_bytes: int, inline: bool) -> WalLimits:
        return self.machine.wal_limits

    def take_port(self, bind: str, port: int, option: str) -> Any:
        name = (bind, port)
        if self.machine.network.is_bound(name):
            raise ListenError(f"can't listen on {bind}:{port}: address already in use")
        return FakeSocket(name)

    def fetch_entry(
        self,
        addresses: Mapping[int, tuple[str, int]],
        secret: bytes,
        hello: Any,
        index: int,
        say: Callable[[str], None],
        tls: object = None,
    ) -> Entry | None:
        """Ask the others while nothing else moves: the real one blocks its process as well."""
        for node_id in sorted(addresses):
            if node_id == self.machine.node_id:
                continue
            self.process.spend(SECOND // 1000)
            entry = self.machine.ask_peer_for_entry(node_id, index)
            if entry is not None:
                return entry
            say(f"node {node_id} has no entry {index} to give, or can't be asked")
        return None

    webhook_pace = Pace(
        retry_seconds=(0.05, 0.1, 0.2, *(0.4,) * 30), inflight_max=3, open_max=24, done_max=12,
        attempts_max=6, answer_seconds=1.0, retry_after_seconds_max=1.0, record_seconds=0.05,
    )  # fmt: skip

    def outbound(self) -> SimOutbound:
        return SimOutbound(self.machine, self.process)

    def connections_max(self) -> int:
        return 4096

    async def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: Any,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> asyncio.AbstractServer:
        return await loop.create_server(protocol, sock=bound)

    def notice(self, sentence: str) -> None:
        self.machine.world.said(self.machine, sentence)

    def counted(self, node: Node, entry: Entry, applied: Applied) -> None:
        self.machine.world.counted(self.machine, node, entry, applied)

    # --- threads ---------------------------------------------------------------------------

    def sync_thread(
        self,
        wal: Wal,
        on_synced: Callable[[int], None],
        on_error: Callable[[BaseException], None],
    ) -> Any:
        return SimWriter(self.process, wal, on_synced, on_error)

    def apply_thread(
        self,
        count: Callable[[Any], Any],
        on_counted: Callable[[Any, Any], None],
        on_error: Callable[[BaseException], None],
    ) -> Any:
        return SimApplier(self.process, self.machine.options.apply_ns, count, on_counted, on_error)

    def workers(self, threads: int, name: str) -> Any:
        return Workers(self.process, name)


class SimWriter:
    """Stands in for `storage.writer.Writer`: the same duties in the same order."""

    def __init__(
        self,
        process: Process,
        wal: Wal,
        on_synced: Callable[[int], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._thread, self._wal = process.thread("sync"), wal
        self._on_synced, self._on_error = on_synced, on_error
        self.busy = False

    def start(self) -> None:
        return

    def submit(self) -> None:
        if not self.busy:
            self.busy = True
            self._thread.put(self._work)

    def _work(self) -> None:
        self.busy = False
        try:
            synced = self._wal.sync(witness=False)
        except DiskFullError as error:
            self._on_error(error)
        except Exception as error:
            self._on_error(error)
            return
        else:
            self._on_synced(synced)
        try:
            self._wal.write_witness()
        except FatalStorageError as error:
            self._on_error(error)

    def close(self) -> None:
        self._thread.drain()


class SimApplier:
    """Stands in for `server.applier.Applier`."""

    def __init__(
        self,
        process: Process,
        apply_ns: int,
        count: Callable[[Any], Any],
        on_counted: Callable[[Any, Any], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._process, self._apply_ns = process, apply_ns
        self._thread = process.thread("apply")
        self._count, self._on_counted, self._on_error = count, on_counted, on_error
        self._is_broken = False

    def put(self, entries: Any) -> None:
        for entry in entries:
            self._thread.put(partial(self._apply, entry))

    def _apply(self, entry: Any) -> None:
        if self._is_broken:
            return
        if self._apply_ns:
            self._process.spend(self._process.chance.below(self._apply_ns))
        try:
            result = self._count(entry)
        except Exception as error:
            self._is_broken = True
            self._on_error(error)
            return
        self._on_counted(entry, result)

    def wait(self) -> None:
        self._thread.drain()

    def close(self) -> None:
        self._thread.drain()
