"""Sending one snapshot file to one peer.

Owns the window: at most SNAPSHOT_WINDOW_BYTES are on their way and not yet written by the
receiver, so a raft message on the same link waits behind that much and no more, whatever
the file's size. The file is read and packed in the worker's thread.

Refuses to decide when a snapshot is needed (raft) and which file it is (the node).

A lost link costs what was on its way: when the link is up again the file is offered
again, and the receiver says from where. So is a transfer in which nothing moves for a
while (a VERDICT that got lost, a receiver that was restarted), until it has not moved for
`give_up_ticks`.

    offered ── RESUME START ──> streaming ── VERDICT ──> ended
       ^                            │
       └── link up, nothing moves ──┘
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from unimeter import limits
from unimeter.raft.messages import Message
from unimeter.server.peer_codec import encode_message
from unimeter.wire.codec import Buffer
from unimeter.wire.peer_snapshot import Resume, Step, Verdict, chunk_frame, offer_frame

if TYPE_CHECKING:
    from unimeter.server.peer_snapshots import Snapshots

Done = Callable[[str], None]  # called once, with "" or the reason why it was not taken


class SnapshotReader(Protocol):
    """A whole snapshot file. `read` is called from another thread, never twice at once."""

    size: int

    def read(self, offset: int, length: int) -> bytes: ...


class Sending:
    """One transfer to one peer."""

    def __init__(
        self,
        snapshots: Snapshots,
        transfer: int,
        message: Message,
        reader: SnapshotReader,
        done: Done,
    ) -> None:
        self.transfer, self.to, self.size = transfer, message.to, reader.size
        self.acknowledged = 0  # bytes that the receiver has written
        self._snapshots, self._reader, self._done = snapshots, reader, done
        self._message = encode_message(message)
        self._next = 0  # where the next chunk begins
        self._round = 0  # goes up whenever `_next` is set back: an older read is dropped
        self._is_streaming = self._is_reading = False
        self._again = 0
        self._still_ticks = self._patience_ticks = 0
        self._ending: str | None = None

    def offer(self) -> None:
        """Say what there is to send; the answer says from where."""
        self._is_streaming = False
        self._still_ticks = 0
        self._snapshots.write(self.to, offer_frame(self.transfer, self.size, self._message))

    def resume(self, resume: Resume) -> None:
        """The receiver said how far it is."""
        self._patience_ticks = 0
        if resume.step == Step.BUSY:
            self._still_ticks = 0
            return
        if resume.offset > self.size:
            self.end(f"the receiver is at byte {resume.offset} of {self.size}")
        elif resume.step == Step.PROGRESS:
            if resume.offset > self.acknowledged:
                self.acknowledged, self._still_ticks = resume.offset, 0
        else:
            self._restart(resume)
        self._pump()

    def verdict(self, verdict: Verdict) -> None:
        """The receiver has decided."""
        self.end(verdict.reason)

    def tick(self, still_ticks: int, give_up_ticks: int) -> None:
        """Nothing moves: offer again, or give up."""
        self._still_ticks += 1
        self._patience_ticks += 1
        if self._patience_ticks >= give_up_ticks:
            self.end("the receiver has not answered for too long")
        elif self._still_ticks >= still_ticks and self._snapshots.is_up(self.to):
            self.offer()

    def end(self, reason: str) -> None:
        """It is over, one way or the other. The reader is not used once `done` is called."""
        if self._ending is None:
            self._ending = reason
            if not self._is_reading:
                self._snapshots.sent(self, reason, self._done)

    # --- streaming ---------------------------------------------------------------

    def _restart(self, resume: Resume) -> None:
        """Send from there on; bounded, because a damaged file never gets better."""
        if resume.step == Step.AGAIN:
            self._again += 1
            if self._again > limits.SNAPSHOT_RESENDS_MAX:
                self.end(f"refused {self._again} times, last: {resume.reason}")
                return
        self._next = self.acknowledged = resume.offset
        self._round += 1
        self._still_ticks = 0
        self._is_streaming = True

    def _pump(self) -> None:
        """Send the next chunk, if the window lets it."""
        if self._is_reading or not self._is_streaming or self._ending is not None:
            return
        room = limits.SNAPSHOT_WINDOW_BYTES - (self._next - self.acknowledged)
        length = min(limits.SNAPSHOT_CHUNK_BYTES, self.size - self._next)
        if room < length or length == 0:
            return
        self._is_reading = True
        offset, number = self._next, self._round
        self._snapshots.worker.do(
            lambda: self._read(offset, length), lambda read: self._sent(read, length, number)
        )

    def _read(self, offset: int, length: int) -> list[Buffer]:
        """In the worker's thread: a whole frame."""
        data = self._reader.read(offset, length)
        if len(data) != length:
            raise OSError(f"the snapshot ends at byte {offset + len(data)} of {self.size}")
        return chunk_frame(self.transfer, offset, data)

    def _sent(self, read: list[Buffer] | Exception, length: int, number: int) -> None:
        self._is_reading = False
        if self._ending is not None:
            self._snapshots.sent(self, self._ending, self._done)
        elif isinstance(read, Exception):
            self.end(f"the snapshot can't be read: {read}")
        elif number != self._round:
            self._pump()  # meanwhile it was set back
        elif self._snapshots.write(self.to, read):
            self._snapshots.bytes_sent += length
            self._next += length
            self._pump()
