"""The contract with the host: what it has to do, in which order, and what it reports back.

Owns `Ready`, one struct of duties, and the two messages to the host's own storage.
Refuses to do any of it. Two ways to carry it out:

**In turn.** Write `entries`, `hard_state` and `snapshot` (synced if `must_sync`), then
send `messages`, then apply `committed_entries`, then call `advance()`.

**Asynchronously.** `messages` also holds a MsgStorageAppend and a MsgStorageApply, each
with `responses`. Do the work of each kind in order, and deliver its responses after
it is done: to a peer, or to `step()` if they are to this node.

    Ready 1 ──► MsgStorageAppend 1 ──► append thread ──► synced ──► responses
    Ready 2 ──► MsgStorageAppend 2 ──►      "        ──► synced ──► responses
            ──► MsgStorageApply  2 ──► apply         ──► applied ─► response

Three duties that no field shows. Every MsgSnap ends in `report_snapshot`, however it
went: until then its receiver is sent nothing else. A MsgStorageApply may be carried
out after a snapshot that includes its entries: skip those, answer all the same. A
read that gets no answer (its leader was deposed, a message was lost) is asked again.

Why a completion names a term twice. Entries 5, 6 of term 2 are being written when a
leader of term 3 replaces them by its own 5, 6, and is itself replaced by the first
leader, which brings the old 5, 6 back. The first completion then names an index and
a term that stand in the log again, but the second write will still put term 3's
entries over them. So a completion carries the *node's* term as well (`term`), and is
ignored in any later one. In exchange every append names the *last* unstable entry,
not the last one it writes itself: the write of the new term's hard state, behind all
of them, is what proves them durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unimeter.raft.core import Core
from unimeter.raft.messages import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    MSG_STORAGE_APPEND,
    MSG_STORAGE_APPEND_RESP,
    MSG_STORAGE_APPLY,
    MSG_STORAGE_APPLY_RESP,
    Entry,
    HardState,
    Message,
    Snapshot,
    SoftState,
)
from unimeter.raft.read_index import ReadState


@dataclass(slots=True)
class Ready:
    """What the host has to do now."""

    # Who leads and what this node is, if that changed. Nothing to store.
    soft_state: SoftState | None
    # To be durable before any message is sent, if term or vote changed (`must_sync`).
    # Written after or together with `entries`: a stored commit index past the end of
    # the stored log would be taken for lost entries.
    hard_state: HardState | None
    # Reads that may be answered once `index` is applied here.
    read_states: Sequence[ReadState]
    # To be durable before any message is sent. They replace what is stored from the first
    # one's index on. A host that removes the old suffix in steps removes it back to front,
    # so that a crash in between leaves a log without a gap.
    entries: Sequence[Entry]
    # To be durable before any message is sent; replaces log and state. Never with `entries`.
    snapshot: Snapshot | None
    # To be applied after entries and snapshot are stored. In order, each once.
    committed_entries: Sequence[Entry]
    # In turn: send after all of the above are durable. Asynchronously: send at once; what
    # must wait is in the responses of MsgStorageAppend.
    messages: Sequence[Message]
    # Entries, term or vote changed: the write has to be synced. Else it holds nothing but
    # a commit index, which may be lost. The writes before it must be done all the same.
    must_sync: bool


def needs_append_response(core: Core, snapshot: Snapshot | None) -> bool:
    """Whether the core has to hear when this write is durable."""
    return snapshot is not None or bool(core.log.unstable.entries)


def storage_append(core: Core, ready: Ready) -> Message | None:
    """The order to write, or None when there is nothing to write or to wait for."""
    state = ready.hard_state
    responses = core.after_append
    if not (ready.entries or state is not None or ready.snapshot is not None or responses):
        return None
    if needs_append_response(core, ready.snapshot):
        responses = [*responses, storage_append_response(core, ready.snapshot)]
    term, vote, commit = state if state is not None else HardState()
    return Message(
        MSG_STORAGE_APPEND,
        LOCAL_APPEND_THREAD,
        core.id,
        term,
        entries=ready.entries,
        commit=commit,
        vote=vote,
        snapshot=ready.snapshot,
        responses=responses,
    )


def storage_append_response(core: Core, snapshot: Snapshot | None) -> Message:
    """The completion of a write, tagged as the head of this module explains.

    It stands behind this node's own acknowledgement, which is then handled while the
    entries are still in memory.
    """
    answer = Message(
        MSG_STORAGE_APPEND_RESP, core.id, LOCAL_APPEND_THREAD, core.term, snapshot=snapshot
    )
    log = core.log
    if log.unstable.entries:
        answer.index, answer.log_term = log.last_index, log.last_term
    return answer


def storage_apply(core: Core, entries: Sequence[Entry]) -> Message:
    """The order to apply committed entries. They are bound to no term."""
    return Message(
        MSG_STORAGE_APPLY,
        LOCAL_APPLY_THREAD,
        core.id,
        entries=entries,
        responses=(storage_apply_response(core, entries),),
    )


def storage_apply_response(core: Core, entries: Sequence[Entry]) -> Message:
    return Message(MSG_STORAGE_APPLY_RESP, core.id, LOCAL_APPLY_THREAD, entries=entries)
