"""Receiving a snapshot file from a peer, one at a time.

Owns which offer is followed and what is said back; `storage.incoming` owns the file, and is
called in the worker's thread only, job after job:

    OFFER ──> begin ──> START      (a part file from before is checked first)
    CHUNK ──> write ──> PROGRESS   or AGAIN, with the reason, from the last good byte
    last  ──> finish ─> the node's on_snapshot ──> VERDICT

A newer offer takes the place of an older one; an offer of an older term does not. After an
AGAIN, chunks that were already on their way do not follow on what is here and are ignored.
An offer that comes a second time is answered with how far it is, a finished one
with its verdict: answers can get lost with their connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unimeter import limits
from unimeter.errors import CorruptionError, DiskFullError
from unimeter.raft.messages import MSG_SNAP, Message
from unimeter.server.peer_codec import decode_message
from unimeter.storage.incoming import Incoming
from unimeter.wire.peer import Fault, PeerProtocolError
from unimeter.wire.peer_snapshot import (
    Chunk,
    Offer,
    Resume,
    Step,
    Verdict,
    resume_frame,
    verdict_frame,
)

if TYPE_CHECKING:
    from unimeter.server.peer_snapshots import Snapshots

QUEUED_BYTES_MAX = 2 * limits.SNAPSHOT_WINDOW_BYTES


class Transfer:
    """One offer that is followed."""

    __slots__ = (
        "is_finishing",
        "message",
        "offset",
        "queued",
        "sender",
        "size",
        "transfer",
        "work",
    )

    def __init__(self, sender: int, offer: Offer, message: Message) -> None:
        self.sender, self.transfer, self.size = sender, offer.transfer, offer.size
        self.message = message
        self.offset = -1  # how far the file is here; -1 until the part file was looked at
        self.queued = 0  # bytes of chunks that the worker has not written yet
        self.work = 0  # jobs in the worker
        self.is_finishing = False

    @property
    def key(self) -> tuple[int, int]:
        """Which attempt of which peer this is."""
        return self.sender, self.transfer


class Receiving:
    """The receiving side of a node."""

    def __init__(self, snapshots: Snapshots, incoming: Incoming | None) -> None:
        self.received = self.refused = 0  # snapshots
        self.bytes_received = self.chunks_refused = 0
        self._snapshots, self._incoming = snapshots, incoming
        self._current: Transfer | None = None
        self._last: tuple[tuple[int, int], str] | None = None  # the last verdict given

    @property
    def is_busy(self) -> bool:
        """Whether a transfer is under way."""
        return self._current is not None

    def offer(self, sender: int, offer: Offer) -> None:
        """A peer has a snapshot for this node."""
        message = decode_message(offer.message)
        current, key = self._current, (sender, offer.transfer)
        if message.type != MSG_SNAP or message.snapshot is None:
            raise PeerProtocolError(Fault.MALFORMED, f"an offer with a {message.type!s}")
        if self._last is not None and self._last[0] == key:
            self._give_verdict(*key, self._last[1])
        elif self._incoming is None:
            self._refuse(key, "this node takes no snapshots")
        elif current is not None and current.key == key:
            self._do(current, lambda: "", lambda wrong: self._say(current, Step.START))
        elif current is not None and message.term < current.message.term:
            self._refuse(key, f"one of term {current.message.term} is being received")
        else:
            begun = self._current = Transfer(sender, offer, message)
            self._do(begun, lambda: self._open(begun), lambda wrong: self._say(begun, Step.START))

    def chunk(self, sender: int, chunk: Chunk) -> None:
        """Bytes of the file."""
        current = self._current
        if current is None or current.key != (sender, chunk.transfer):
            return
        size = len(chunk.data)
        if current.queued + size > QUEUED_BYTES_MAX:
            raise PeerProtocolError(Fault.MALFORMED, "a snapshot that ignores its window")
        kept = chunk._replace(data=memoryview(bytes(chunk.data)))
        current.queued += size
        self._do(
            current, lambda: self._write(kept), lambda wrong: self._written(current, size, wrong)
        )

    def tick(self) -> None:
        """Ask for patience while the worker is busy."""
        if self._current is not None and self._current.work:
            self._say(self._current, Step.BUSY)

    # --- in the worker's thread --------------------------------------------------

    def _open(self, transfer: Transfer) -> str:
        """Look at what is here already."""
        assert self._incoming is not None and transfer.message.snapshot is not None
        meta = transfer.message.snapshot.meta
        self._incoming.begin(meta.index, meta.term, transfer.size)
        return ""

    def _write(self, chunk: Chunk) -> str:
        """Write a chunk, unless it does not follow; return what is wrong with it."""
        incoming = self._incoming
        assert incoming is not None
        if chunk.offset != incoming.received:
            return ""
        if not chunk.is_intact:
            return f"the chunk at byte {chunk.offset} does not match its checksum"
        try:
            incoming.write(chunk.offset, chunk.data)
        except CorruptionError as error:
            return str(error)
        return ""

    # --- on the loop -------------------------------------------------------------

    def _do(self, transfer: Transfer, work: Callable[[], str], then: Callable[[str], None]) -> None:
        """Run a job on the file; look where the file stands; go on."""
        incoming = self._incoming
        assert incoming is not None

        def job() -> tuple[str, int, bool]:
            if transfer is not self._current:
                return "", 0, False  # replaced: the file is another one's by now
            return work(), incoming.received, incoming.is_whole

        def back(found: tuple[str, int, bool] | Exception) -> None:
            transfer.work -= 1
            if transfer is not self._current or transfer.is_finishing:
                return
            if isinstance(found, Exception):
                self._broke(transfer, found)
                return
            wrong, offset, is_whole = found
            if transfer.offset >= 0:
                self.bytes_received += max(0, offset - transfer.offset)
            transfer.offset = offset
            if is_whole:
                self._finish(transfer)
            else:
                then(wrong)

        transfer.work += 1
        self._snapshots.worker.do(job, back)

    def _written(self, transfer: Transfer, size: int, wrong: str) -> None:
        transfer.queued -= size
        self.chunks_refused += bool(wrong)
        self._say(transfer, Step.AGAIN if wrong else Step.PROGRESS, wrong)

    def _finish(self, transfer: Transfer) -> None:
        """All is here and checked: make it durable."""
        assert self._incoming is not None
        transfer.is_finishing = True
        transfer.work += 1
        self._snapshots.worker.do(
            self._incoming.finish, lambda path: self._finished(transfer, path)
        )

    def _finished(self, transfer: Transfer, path: str | Exception) -> None:
        transfer.work -= 1
        if transfer is not self._current:
            return
        if isinstance(path, Exception):
            self._broke(transfer, path)
            return
        self._current = None
        reason = self._snapshots.handler.on_snapshot(transfer.message, path)
        if reason:
            self._refuse(transfer.key, reason)
        else:
            self.received += 1
            self._give_verdict(*transfer.key, "")

    def _broke(self, transfer: Transfer, error: Exception) -> None:
        """No space is an answer; anything else stops the node."""
        if not isinstance(error, DiskFullError):
            self._snapshots.fail(error)
            return
        self._current = None
        self._refuse(transfer.key, str(error))

    # --- answers -----------------------------------------------------------------

    def _say(self, transfer: Transfer, step: Step, reason: str = "") -> None:
        resume = Resume(transfer.transfer, max(0, transfer.offset), step, reason)
        self._snapshots.write(transfer.sender, resume_frame(resume))

    def _refuse(self, key: tuple[int, int], reason: str) -> None:
        self.refused += 1
        self._give_verdict(*key, reason)

    def _give_verdict(self, sender: int, transfer: int, reason: str) -> None:
        self._last = ((sender, transfer), reason)
        self._snapshots.write(sender, verdict_frame(Verdict(transfer, reason)))
