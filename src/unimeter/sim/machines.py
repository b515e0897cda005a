"""One machine of the fake world: its disk, its clock, its power, and the node that runs on it.

Owns the life of a node's process: the real `Server` is started on it, fails or is ended,
and comes back, as under a supervisor that restarts what has stopped.

    down ──start──> starting ──ready──> ready ──stop──> stopping ──> down
      ^                │                  │                │
      └── kill (the process), power_cut (the machine), failure of the node ──┘

A power cut happens inside an operation of the disk, or between two: see `cut_in`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unimeter.errors import DataError, FatalStorageError, UnimeterError
from unimeter.raft.messages import Entry
from unimeter.server.config import Config
from unimeter.server.server import Server
from unimeter.sim.chance import Chance
from unimeter.sim.disk import DeadProcess, SimDisk, shown
from unimeter.sim.options import Options
from unimeter.sim.platform import DATA_DIR, SimPlatform
from unimeter.sim.process import Process
from unimeter.sim.scheduler import MICROSECOND
from unimeter.storage.layout import Identity
from unimeter.storage.recovery import make_recovering
from unimeter.storage.wal import WalLimits
from unimeter.types import Membership

if TYPE_CHECKING:
    from unimeter.sim.world import World

CLIENT_PORT, HTTP_PORT, PEER_PORT = 7001, 9090, 7101
SECRET = "a secret of the simulator, not of anybody"
_CHANGES = ("write", "sync", "rename", "sync_directory", "fill_zeros", "remove")
_TIMED = ("sync", "sync_directory", "write", "read")


class Machine:
    """One machine and the node on it."""

    def __init__(self, world: World, node_id: int, options: Options, chance: Chance) -> None:
        self.world, self.node_id, self.options, self.chance = world, node_id, options, chance
        self.network = world.network
        self.name, self.ip = f"n{node_id}", f"10.0.0.{node_id}"
        self.disk = SimDisk(chance.fork("disk"), on_operation=self._on_operation)
        self.wal_limits = WalLimits(
            segment_bytes=options.segment_bytes,
            segment_bytes_first=options.segment_bytes,
            mark_bytes=1024,  # about each third entry: a walk begins at the one that is wanted
            background=False,
        )
        self.skew_ns = 0
        self.slow_disk = 1  # times as slow as usual
        self.is_powered = True
        self.process: Process | None = None
        self.server: Server | None = None
        self.is_ready = False
        self.was_ready = False  # ever, on this disk
        self.starts = 0
        self.disk_erred = False  # an error was injected into the life of this process
        self.is_recovering = False  # made by `recover`, and no voter again yet
        self.last_words = ""
        self._stopping: asyncio.Event | None = None
        self.was_damaged = False  # since the disk was whole
        self._cut_after = -1  # operations of the disk until the power goes
        self._cut_counts: tuple[str, ...] = _CHANGES
        self._cut: Callable[[], None] = self.kill

    # --- life -------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None

    @property
    def node(self) -> Any:
        """The node of the server that is ready."""
        assert self.server is not None
        return self.server.node

    def start(self) -> None:
        """Start the server, if the machine has power and it does not run."""
        if self.is_running or not self.is_powered:
            return
        self.starts += 1
        self.disk_erred = False
        self.was_damaged = self.damage
        process = Process(
            self.name,
            self.ip,
            self.world.scheduler,
            self.chance.fork(f"process {self.starts}"),
        )
        process.loop.network = self.network
        process.on_error = self._on_error
        process.loop.after_turn = lambda: self.world.after_turn(self)
        self.process, self.is_ready = process, False
        self.world.story.tell("start", self.name)
        process.loop.call_soon(self._begin, process)

    def _begin(self, process: Process) -> None:
        process.loop.create_task(self._run(process))

    async def _run(self, process: Process) -> None:
        """What `server.process` does, without signals."""
        platform = SimPlatform(self, process)
        self.server = server = Server(config=self._config(), platform=platform)
        server.say = self._said
        self._stopping = asyncio.Event()
        try:
            await server.start()
        except (DataError, FatalStorageError, UnimeterError) as error:
            self.ended(process, error)
            return
        if not self._is_still(process):
            return
        self._fit(server)
        self.is_ready = self.was_ready = True
        self.world.story.tell("ready", self.name)
        self.world.node_ready(self)
        waits = [
            asyncio.ensure_future(server.ended.wait()),
            asyncio.ensure_future(self._stopping.wait()),
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if server.failure is None:
            self.is_ready = False
            try:
                await server.stop()
            except DataError as error:
                self.ended(process, error)
                return
            self.world.reach("a node was stopped in order")
        self.ended(process, server.failure)

    def _is_still(self, process: Process) -> bool:
        return self.process is process

    def _config(self) -> Config:
        options = self.options
        nodes = range(1, options.nodes + 1)
        peers = ",".join(f"{n}=10.0.0.{n}:{PEER_PORT}" for n in nodes) if options.nodes > 1 else ""
        return Config(
            data_dir=DATA_DIR,
            bind=self.ip,
            port=CLIENT_PORT,
            http_port=HTTP_PORT,
            node_id=self.node_id,
            peers=peers,
            cluster_id="simulated" if peers else "",
            cluster_secret=SECRET if peers else "",
            retention_bytes=options.retention_bytes,
            disk_free_bytes_min=options.disk_free_bytes_min,
            insecure=True,  # no key is made here, and nobody listens on 127.0.0.1
        )

    def _fit(self, server: Server) -> None:
        """Bounds that are too large for a short life, as configuration can't make them."""
        server.node.upkeep.snapshot_log_bytes = self.options.snapshot_log_bytes

    def _said(self, sentence: str) -> None:
        self.last_words = sentence
        self.world.said(self, sentence)

    def stop(self) -> None:
        """End the process as SIGTERM does."""
        if self._stopping is not None and self.is_ready:
            self.world.story.tell("stop", self.name)
            process = self.process
            assert process is not None
            process.loop.call_soon(self._stopping.set)

    def ended(self, process: Process, error: BaseException | None) -> None:
        """The process came to its end by itself."""
        if self.process is not process:
            return
        text = "" if error is None else f"{type(error).__name__}: {shown(str(error))}"
        self.world.story.tell("stopped" if error is None else "failed", self.name, text)
        self._forget(is_silent=False)
        self.disk.kill()
        if error is None:
            self.world.restart_later(self)
        else:
            # Not from within its own code, whose exceptions nobody hears any more.
            self.world.scheduler.after(0, self.world.node_failed, self, error)

    def _on_error(self, error: BaseException) -> None:
        """An exception that nobody took. See `server.process.on_exception`."""
        if isinstance(error, FatalStorageError) and self.is_ready:
            self.node.fail(error)
        elif not isinstance(error, DeadProcess):
            self.world.fail(error)

    # --- sudden ends -----------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL: what was written is in the page cache, what was sent is on its way."""
        if self.process is None:
            return
        self.world.story.tell("kill", self.name)
        self._forget(is_silent=False)
        self.disk.kill()

    def power_cut(self, arrival: float) -> None:
        """The machine goes dark; of what was not synced each sector is there with `arrival`."""
        if not self.is_powered:
            return
        self.world.story.tell("power", self.name, f"{arrival:.2f}")
        self.is_powered = False
        self.network.dark.add(self.ip)
        self._forget(is_silent=True)
        self.disk.power_cut(arrival)

    def power_on(self) -> None:
        """The machine has power again; nothing runs on it yet."""
        self.is_powered = True
        self.network.dark.discard(self.ip)

    def _forget(self, *, is_silent: bool) -> None:
        self.world.node_gone(self)
        process, self.process = self.process, None
        self._cut_after = -1
        self.is_ready = False
        self._stopping = None
        if process is not None:
            self.world.bury(self.server, process)
            process.die()
            self.network.process_died(process, is_silent=is_silent)
        self.server = None

    @property
    def damage(self) -> bool:
        """Whether durable bytes are wrong, by a fault and not yet made good."""
        return bool(self.disk.standing_damage())

    # --- disk --------------------------------------------------------------------------------

    def cut_in(
        self, operations: int, cut: Callable[[], None], counted: tuple[str, ...] = _CHANGES
    ) -> None:
        """Let `cut` happen before the so-manieth of these operations from now."""
        self._cut_after, self._cut, self._cut_counts = operations, cut, counted

    def _on_operation(self, operation: str, path: str, size: int) -> None:
        process = self.process
        if process is None:
            return
        if operation in self._cut_counts:
            if self._cut_after == 0:
                self._cut_after = -1
                self.world.reach(
                    "power lost in a write" if operation != "sync" else "power lost in a sync"
                )
                self._cut()
                raise DeadProcess
            self._cut_after -= self._cut_after > 0
        if operation in _TIMED:
            low, high = self.options.disk_ns[operation]
            process.spend(self.chance.between(low, high) * self.slow_disk)
        else:
            process.spend(5 * MICROSECOND)

    def lose_disk(self) -> None:
        """The disk is gone, an empty one takes its place, and the operator runs `recover`."""
        assert self.process is None
        self.disk.lose()
        self.disk.capacity = None
        self.disk.fail_sync = self.disk.fail_write = None
        self.was_ready = False
        self.is_recovering = True
        self.make_recovering()

    def make_recovering(self) -> None:
        """What `unimeter recover` does, on an empty disk."""
        members = self.world.members_of(self.node_id)
        make_recovering(
            self.disk,
            DATA_DIR,
            Identity(members.cluster_id, self.node_id),
            members.genesis_key,
            bounds=self.wal_limits,
            entropy=self.chance.bytes,
            now_ns=lambda: self.world.operator_time_ns(),
        )

    def look_at_membership(self) -> None:
        """Whether a recovering node has become a voter again."""
        if self.is_recovering:
            membership = self.node.opened.superblock.current.membership
            self.is_recovering = membership is not Membership.VOTER

    def ask_peer_for_entry(self, node_id: int, index: int) -> Entry | None:
        """What a node that can't open its log gets from another, if they can talk."""
        other = self.world.machines[node_id]
        if not other.is_ready or self.network.is_cut(self.ip, other.ip):
            return None
        if self.network.is_cut(other.ip, self.ip):
            return None
        cluster = other.server.cluster if other.server is not None else None
        return None if cluster is None else cluster.fetch(index)
