"""What a node does that does not lead: follow appends, heartbeats and snapshots.

Owns the receiving half of log replication (§5.3, §7). Refuses an append that does
not fit the log, with a hint where it might; and never acknowledges by itself: the
answer waits behind the write in `core.after_append`.

A message of a leader has been checked for its term in `raft`: it is of ours.
"""

from __future__ import annotations

from unimeter.raft.core import Core
from unimeter.raft.election import count_vote, hup
from unimeter.raft.messages import (
    FOLLOWER,
    MSG_APP,
    MSG_APP_RESP,
    MSG_HEARTBEAT,
    MSG_HEARTBEAT_RESP,
    MSG_PRE_VOTE_RESP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_READ_INDEX_RESP,
    MSG_SNAP,
    MSG_TIMEOUT_NOW,
    MSG_TRANSFER_LEADER,
    MSG_VOTE_RESP,
    NO_NODE,
    PRE_CANDIDATE,
    Message,
    Snapshot,
)
from unimeter.raft.read_index import ReadState


def step_follower(core: Core, message: Message) -> bool:
    """Handle a message as a follower; False when it is dropped."""
    kind = message.type
    if _step_of_leader(core, message):
        return True
    if kind is MSG_TIMEOUT_NOW:
        hup(core, transfer=True)
    elif kind is MSG_READ_INDEX_RESP:
        core.read_states.append(ReadState(message.index, message.context))
    elif kind in (MSG_PROP, MSG_READ_INDEX, MSG_TRANSFER_LEADER):
        return _forward(core, message)
    return True


def step_candidate(core: Core, message: Message) -> bool:
    """Handle a message as a candidate or pre-candidate; False when it is dropped."""
    kind = message.type
    if kind is (MSG_PRE_VOTE_RESP if core.role is PRE_CANDIDATE else MSG_VOTE_RESP):
        # A late answer to our pre-vote is of the other type, and must not count here.
        count_vote(core, message)
        return True
    if _step_of_leader(core, message):
        return True
    return kind not in (MSG_PROP, MSG_READ_INDEX)


def _step_of_leader(core: Core, message: Message) -> bool:
    """Handle what only the leader of this term sends; whoever campaigns gives up."""
    kind = message.type
    if kind is MSG_APP:
        _hear_leader(core, message.sender)
        _handle_append(core, message)
    elif kind is MSG_HEARTBEAT:
        _hear_leader(core, message.sender)
        core.log.commit_to(message.commit)
        core.send(Message(MSG_HEARTBEAT_RESP, message.sender, core.id, context=message.context))
    elif kind is MSG_SNAP:
        _hear_leader(core, message.sender)
        _handle_snapshot(core, message)
    else:
        return False
    return True


def _hear_leader(core: Core, leader: int) -> None:
    if core.role is not FOLLOWER:
        core.become_follower(core.term, leader)
        return
    core.election_elapsed = 0
    core.follow(leader)


def _forward(core: Core, message: Message) -> bool:
    """Send on to the leader what only it can do; False when none is known.

    A copy: the message may be the caller's, and in a test it may be on its way twice.
    """
    if core.lead == NO_NODE:
        return False
    if message.type is MSG_PROP and not core.config.forward_proposals:
        return False
    core.send(
        Message(
            message.type,
            core.lead,
            message.sender,
            entries=message.entries,
            context=message.context,
        )
    )
    return True


def _handle_append(core: Core, message: Message) -> None:
    """Take a leader's entries, acknowledge what is then equal, or say where we might be."""
    log = core.log
    if message.index < log.committed:
        # Old news; what is committed is equal in any case.
        log.check_committed(message.entries)
        answer = Message(MSG_APP_RESP, message.sender, core.id, index=log.committed)
    else:
        last = log.maybe_append(message.index, message.log_term, message.commit, message.entries)
        if last is None:
            answer = _refusal(core, message)
        else:
            answer = Message(MSG_APP_RESP, message.sender, core.id, index=last)
    core.send(answer)


def _refusal(core: Core, message: Message) -> Message:
    """The refusal of an append, with our best guess where the logs are equal.

    The leader's terms before its entry are at most that entry's, so entries of ours with
    a higher term can't be in its log: skip them all, not one a round.

        leader   1 3 3 3 3 3 3 3 7
        ours     1 3 3 4 4 5 5 5 6     refused at index 8 (term 3): hint index 3
    """
    log = core.log
    at = min(message.index, log.last_index)
    hint, hint_term = log.find_conflict_by_term(at, message.log_term)
    if core.trace is not None:
        theirs = f"[logterm: {message.log_term}, index: {message.index}]"
        core.trace("DEBUG", f"{core.id:x} rejected MsgApp {theirs} from {message.sender:x}")
    return Message(
        MSG_APP_RESP,
        message.sender,
        core.id,
        log_term=hint_term,
        index=message.index,
        reject=True,
        reject_hint=hint,
    )


def _handle_snapshot(core: Core, message: Message) -> None:
    """Take a snapshot that is ahead of us; acknowledge what is then equal."""
    assert message.snapshot is not None
    restored = _maybe_restore(core, message.snapshot)
    index = core.log.last_index if restored else core.log.committed
    core.send(Message(MSG_APP_RESP, message.sender, core.id, index=index))


def _maybe_restore(core: Core, snapshot: Snapshot) -> bool:
    """Replace the log by a snapshot; False when there is no need to, or it is not for us."""
    meta = snapshot.meta
    log = core.log
    if meta.index <= log.committed:
        return False
    if core.id not in meta.voters:
        return False
    if log.matches(meta.index, meta.term):
        # We have all of it; only the commit index is news.
        log.commit_to(meta.index)
        return False
    log.restore(snapshot)
    core.use_voters(meta.voters)
    if core.trace is not None:
        core.trace("INFO", f"{core.id:x} restored snapshot {meta}")
    return True
