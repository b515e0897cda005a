"""Snapshot files between nodes: who sends, who receives, and the thread that does the disk's part.

Owns one `Sending` for each peer and the one `Receiving` of this node, the worker's thread
that reads, checks and writes files for both, and the frames' way to them. Nothing of a
file is read, hashed or written on the loop: a leader goes on leading while it sends
gigabytes.

A second snapshot for the same peer ends the first; raft asks for a newer one only when the
older no longer helps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from unimeter.raft.messages import Message
from unimeter.server.hosts import run
from unimeter.server.peer_receiving import Receiving
from unimeter.server.peer_sending import Done, Sending, SnapshotReader
from unimeter.server.platform import Platform, Workers
from unimeter.storage.incoming import Incoming
from unimeter.wire.codec import Buffer
from unimeter.wire.peer import SNAPSHOT_CHUNK, SNAPSHOT_OFFER, SNAPSHOT_RESUME
from unimeter.wire.peer_snapshot import decode_chunk, decode_offer, decode_resume, decode_verdict

if TYPE_CHECKING:
    import asyncio

    from unimeter.server.peers import PeerHandler, Peers

T = TypeVar("T")


class Worker:
    """One thread that does jobs in order and brings their results back to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, platform: Platform, name: str) -> None:
        self._loop, self._platform, self._name = loop, platform, name
        self._pool: Workers | None = None
        self._is_closed = False

    def do(self, work: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        """Run `work` in the thread, then `then(result or exception)` on the loop."""
        if self._is_closed:
            return
        if self._pool is None:
            self._pool = self._platform.workers(1, self._name)

        def job() -> None:
            result = run(work)
            if not self._is_closed:
                self._loop.call_soon_threadsafe(back, result)

        def back(result: T | Exception) -> None:
            if not self._is_closed:
                then(result)

        self._pool.submit(job)

    def close(self) -> None:
        """Finish the job that runs; forget the others, and all results."""
        self._is_closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


class Snapshots:
    """All transfers of a node."""

    def __init__(self, peers: Peers, incoming: Incoming | None) -> None:
        self.worker = Worker(peers.loop, peers.platform, "unimeter-snapshot")
        self.node_id = peers.node_id
        self.bytes_sent = 0
        self._peers, self._incoming = peers, incoming
        self._sending: dict[int, Sending] = {}
        self._receiving = Receiving(self, incoming)
        self._sent = self._failed = 0

    @property
    def handler(self) -> PeerHandler:
        """The node."""
        return self._peers.handler

    # --- for the node ------------------------------------------------------------

    def send(self, message: Message, reader: SnapshotReader, done: Done) -> None:
        """Send the file that `message` (a MsgSnap) announces."""
        assert message.snapshot is not None
        self.cancel(message.to, "another snapshot takes its place")
        transfer = int.from_bytes(self._peers.entropy(8), "little")
        sending = Sending(self, transfer, message, reader, done)
        self._sending[message.to] = sending
        sending.offer()

    def cancel(self, to: int, reason: str = "cancelled") -> None:
        """End a transfer to a peer, if there is one."""
        sending = self._sending.pop(to, None)
        if sending is not None:
            sending.end(reason)

    def progress(self, to: int) -> tuple[int, int]:
        """(bytes that the peer has, bytes of the file); zeros when nothing is sent."""
        sending = self._sending.get(to)
        return (0, 0) if sending is None else (sending.acknowledged, sending.size)

    def statistics(self) -> dict[str, int]:
        """Transfers now and since the start."""
        return {
            "snapshots_sending": len(self._sending),
            "snapshots_sent": self._sent,
            "snapshots_failed": self._failed,
            "snapshot_bytes_sent": self.bytes_sent,
            "snapshots_receiving": int(self._receiving.is_busy),
            "snapshots_received": self._receiving.received,
            "snapshots_refused": self._receiving.refused,
            "snapshot_bytes_received": self._receiving.bytes_received,
            "snapshot_chunks_refused": self._receiving.chunks_refused,
        }

    def close(self) -> None:
        """Let go of thread and file. Nobody is told: the node is closing."""
        self.worker.close()
        self._sending.clear()
        if self._incoming is not None:
            self._incoming.close()

    # --- for the links -----------------------------------------------------------

    def on_frame(self, sender: int, kind: int, payload: memoryview) -> None:
        """A frame of a transfer."""
        if kind == SNAPSHOT_OFFER:
            self._receiving.offer(sender, decode_offer(payload))
        elif kind == SNAPSHOT_CHUNK:
            self._receiving.chunk(sender, decode_chunk(payload))
        elif kind == SNAPSHOT_RESUME:
            resume = decode_resume(payload)
            sending = self._sending.get(sender)
            if sending is not None and sending.transfer == resume.transfer:
                sending.resume(resume)
        else:
            verdict = decode_verdict(payload)
            sending = self._sending.get(sender)
            if sending is not None and sending.transfer == verdict.transfer:
                sending.verdict(verdict)

    def on_up(self, node_id: int) -> None:
        """That peer can be reached again."""
        sending = self._sending.get(node_id)
        if sending is not None:
            sending.offer()

    def tick(self) -> None:
        """Now and then: keep transfers moving."""
        timing = self._peers.timing
        for sending in list(self._sending.values()):
            sending.tick(timing.transfer_still_ticks, timing.transfer_give_up_ticks)
        self._receiving.tick()

    # --- for the transfers -------------------------------------------------------

    def write(self, to: int, buffers: list[Buffer]) -> bool:
        """Send a frame; False when it was dropped."""
        return self._peers.write(to, buffers)

    def is_up(self, node_id: int) -> bool:
        """Whether a frame for that peer has a way to go."""
        return self._peers.is_up(node_id)

    def fail(self, error: BaseException) -> None:
        """The disk failed."""
        self._peers.fail(error)

    def sent(self, sending: Sending, reason: str, done: Done) -> None:
        """A transfer has ended."""
        if self._sending.get(sending.to) is sending:
            del self._sending[sending.to]
        if reason:
            self._failed += 1
        else:
            self._sent += 1
        done(reason)
