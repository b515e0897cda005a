"""What a leader does: proposals, the answers of its followers, reads, a transfer.

Owns the reactions; `replication` owns what is sent. Refuses to count itself early:
its own acknowledgement arrives here as a message too, after its own write is durable.
"""

from __future__ import annotations

from unimeter.raft.core import Core
from unimeter.raft.messages import (
    MSG_APP_RESP,
    MSG_BEAT,
    MSG_CHECK_QUORUM,
    MSG_HEARTBEAT_RESP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_READ_INDEX_RESP,
    MSG_SNAP_STATUS,
    MSG_TRANSFER_LEADER,
    MSG_UNREACHABLE,
    NO_NODE,
    Message,
)
from unimeter.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from unimeter.raft.quorum import majority
from unimeter.raft.read_index import ReadState, WaitingRead
from unimeter.raft.replication import (
    broadcast_append,
    broadcast_heartbeat,
    maybe_commit,
    maybe_send_append,
    send_timeout_now,
)


def step_leader(core: Core, message: Message) -> bool:
    """Handle a message as the leader; False when it is dropped."""
    kind = message.type
    progress = core.progress.get(message.sender)
    if kind is MSG_APP_RESP:
        if progress is not None:
            _handle_append_response(core, message, progress)
    elif kind is MSG_PROP:
        return _propose(core, message)
    elif kind is MSG_BEAT:
        broadcast_heartbeat(core)
    elif kind is MSG_READ_INDEX:
        _read_index(core, WaitingRead(message.sender, message.context))
    elif kind is MSG_CHECK_QUORUM:
        _check_quorum(core)
    elif progress is not None:
        _step_of_peer(core, message, progress)
    return True


def _step_of_peer(core: Core, message: Message, progress: Progress) -> None:
    kind = message.type
    if kind is MSG_HEARTBEAT_RESP:
        _handle_heartbeat_response(core, message, progress)
    elif kind is MSG_SNAP_STATUS:
        _handle_snapshot_status(message, progress)
    elif kind is MSG_UNREACHABLE:
        # An append that was on its way is probably lost.
        if progress.state is REPLICATE:
            progress.become_probe()
    elif kind is MSG_TRANSFER_LEADER:
        _transfer(core, message.sender, progress)
    else:
        # Appends and snapshots come from leaders: then this term would have two.
        assert message.type.name not in ("MSG_APP", "MSG_HEARTBEAT", "MSG_SNAP"), (
            f"two leaders of term {core.term}: {core.id:x} and {message.sender:x}"
        )


def _propose(core: Core, message: Message) -> bool:
    assert message.entries, "a proposal without entries"
    if core.id not in core.progress or core.transferee != NO_NODE:
        # During a transfer, new entries would keep the target from catching up.
        return False
    if not core.append_entries(message.entries):
        return False
    broadcast_append(core)
    return True


def _check_quorum(core: Core) -> None:
    """Step down if no majority was heard from since the last time, §6.2 of the dissertation."""
    active = sum(progress.recent_active for progress in core.progress.values())
    if active < majority(len(core.voters)):
        if core.trace is not None:
            core.trace("WARN", f"{core.id:x} stepped down: quorum is not active")
        core.become_follower(core.term, NO_NODE)
    for _, progress in core.peers:
        progress.recent_active = False


def _handle_append_response(core: Core, message: Message, progress: Progress) -> None:
    progress.recent_active = True
    if message.reject:
        _handle_rejection(core, message, progress)
        return
    index = message.index
    assert index <= core.log.last_index, (
        f"{message.sender:x} acknowledged {index} of {core.log.last_index}"
    )
    # A probing node may have all there is: its answer then moves nothing but its state.
    if not progress.maybe_update(index) and not (
        progress.match == index and progress.state is PROBE
    ):
        return
    if progress.state is REPLICATE:
        progress.inflights.free_to(index)
    elif progress.state is PROBE:
        progress.become_replicate()
    elif progress.match + 1 >= core.log.first_index():
        # At whatever index a snapshot was applied: the log reaches on from there.
        assert progress.state is SNAPSHOT
        progress.become_probe()
        progress.become_replicate()
    _after_progress(core, message.sender, progress)


def _after_progress(core: Core, sender: int, progress: Progress) -> None:
    """Commit, send on, finish a transfer: whatever one more acknowledged entry allows."""
    if maybe_commit(core):
        _release_postponed_reads(core)
        broadcast_append(core)
    elif sender != core.id and progress.can_bump_commit(core.log.committed):
        maybe_send_append(core, sender, progress)
    if sender == core.id:
        return
    # The window has room again, perhaps for several messages.
    last = core.log.last_index
    while progress.next <= last and maybe_send_append(core, sender, progress, False):
        pass
    if sender == core.transferee and progress.match == last:
        send_timeout_now(core, sender)


def _handle_rejection(core: Core, message: Message, progress: Progress) -> None:
    """Step back to where the logs may be equal, at most one round for each of our terms.

    A follower whose entry at the hint has term t can't match an entry of ours with a
    higher term: skip those too.

        ours       1 3 3 3 5 5 5 5 5
        follower   1 1 1 1 2 2           hint index 6 (term 2): probe at index 1
    """
    hint = message.reject_hint
    if message.log_term > 0:
        hint, _ = core.log.find_conflict_by_term(hint, message.log_term)
    if not progress.maybe_decrease(message.index, hint):
        return
    if progress.state is REPLICATE:
        progress.become_probe()
    maybe_send_append(core, message.sender, progress)


def _handle_heartbeat_response(core: Core, message: Message, progress: Progress) -> None:
    progress.recent_active = True
    progress.flow_paused = False
    # Also with a full window, or when a probing node has it all: an empty append finds out.
    if progress.match < core.log.last_index or progress.state is PROBE:
        maybe_send_append(core, message.sender, progress)
    if message.context:
        core.reads.acknowledge(message.sender, message.context)
        for read in core.reads.release(core.voters, core.id):
            _answer_read(core, read)


def _handle_snapshot_status(message: Message, progress: Progress) -> None:
    """The host says how the sending of a snapshot ended."""
    if progress.state is not SNAPSHOT:
        return
    if message.reject:
        progress.pending_snapshot = 0
    progress.become_probe()
    # Wait for the node's own answer, or after a failure for the next heartbeat.
    progress.flow_paused = True


# Reads


def _read_index(core: Core, read: WaitingRead) -> None:
    """Begin a linearizable read: see `read_index`."""
    if not core.committed_in_term():
        core.reads.postponed.append(read)
    elif core.is_alone():
        _answer_read(core, WaitingRead(read.sender, read.context, core.log.committed))
    else:
        core.reads.add(read.sender, read.context, core.log.committed)
        broadcast_heartbeat(core)


def _release_postponed_reads(core: Core) -> None:
    postponed = core.reads.postponed
    if postponed and core.committed_in_term():
        core.reads.postponed = []
        for read in postponed:
            _read_index(core, read)


def _answer_read(core: Core, read: WaitingRead) -> None:
    if read.sender in (NO_NODE, core.id):
        core.read_states.append(ReadState(read.index, read.context))
    else:
        core.send(
            Message(
                MSG_READ_INDEX_RESP, read.sender, core.id, index=read.index, context=read.context
            )
        )


# Transfer of leadership, dissertation §3.10


def _transfer(core: Core, target: int, progress: Progress) -> None:
    """Begin to hand over; given up after an election timeout."""
    if target == core.id or core.transferee == target:
        return
    core.election_elapsed = 0
    core.transferee = target
    if progress.match == core.log.last_index:
        send_timeout_now(core, target)
    else:
        maybe_send_append(core, target, progress)
