"""One step of the protocol: terms first, then whatever the role makes of a message.

Owns the rule that terms order everything (§5.1): a higher term makes a follower, a
lower one is refused before any other rule can look at it. Refuses nothing else;
the modules of each role do.

The step function of each role is looked up here rather than stored in the state, so
that the state stays data.
"""

from __future__ import annotations

from unimeter.raft.core import Core
from unimeter.raft.election import (
    TRANSFER_CONTEXT,
    handle_vote_request,
    hup,
    is_leader_alive,
    reject_pre_vote,
)
from unimeter.raft.follower import step_candidate, step_follower
from unimeter.raft.leader import step_leader
from unimeter.raft.messages import (
    FOLLOWER,
    LEADER,
    MSG_APP,
    MSG_APP_RESP,
    MSG_BEAT,
    MSG_CHECK_QUORUM,
    MSG_HEARTBEAT,
    MSG_HUP,
    MSG_PRE_VOTE,
    MSG_PRE_VOTE_RESP,
    MSG_SNAP,
    MSG_STORAGE_APPEND_RESP,
    MSG_STORAGE_APPLY_RESP,
    MSG_VOTE,
    NO_NODE,
    Message,
)


def step(core: Core, message: Message) -> bool:
    """Handle one message; False when it was dropped."""
    term = message.term
    if term and term != core.term:
        if term < core.term:
            return _step_older_term(core, message)
        if not _step_newer_term(core, message):
            return False
    kind = message.type
    if kind is MSG_STORAGE_APPEND_RESP:
        _handle_stored(core, message)
    elif kind is MSG_STORAGE_APPLY_RESP:
        if message.entries:
            core.applied_to(message.entries)
    elif kind is MSG_VOTE or kind is MSG_PRE_VOTE:
        handle_vote_request(core, message)
    elif kind is MSG_HUP:
        hup(core)
    elif core.role is LEADER:
        return step_leader(core, message)
    elif core.role is FOLLOWER:
        return step_follower(core, message)
    else:
        return step_candidate(core, message)
    return True


def _step_newer_term(core: Core, message: Message) -> bool:
    """Follow into the newer term; False when the message is not to be looked at further."""
    kind = message.type
    if kind is MSG_VOTE or kind is MSG_PRE_VOTE:
        if message.context != TRANSFER_CONTEXT and is_leader_alive(core):
            return False
    if kind is MSG_PRE_VOTE or (kind is MSG_PRE_VOTE_RESP and not message.reject):
        # Of a term that may come about: nobody is in it yet.
        return True
    if core.trace is not None:
        text = f"received a {kind} message with higher term from {message.sender:x}"
        core.trace("INFO", f"{core.id:x} [term: {core.term}] {text} [term: {message.term}]")
    leads = kind is MSG_APP or kind is MSG_HEARTBEAT or kind is MSG_SNAP
    core.become_follower(message.term, message.sender if leads else NO_NODE)
    return True


def _step_older_term(core: Core, message: Message) -> bool:
    """Refuse a message of an older term; answer it where its sender would hang otherwise."""
    kind = message.type
    config = core.config
    if kind is MSG_STORAGE_APPEND_RESP:
        # The entries it names may have been overwritten since, and be under way to the disk
        # again with other contents. A snapshot is committed, whatever the term.
        if message.snapshot is not None:
            _stored_snapshot(core, message.snapshot.meta.index)
        return True
    if kind is MSG_PRE_VOTE:
        reject_pre_vote(core, message)
    elif (config.check_quorum or config.pre_vote) and (kind is MSG_HEARTBEAT or kind is MSG_APP):
        # A leader that our term has left behind. Our requests for votes are ignored while it
        # is heard, so this answer is what makes it step down and ends the deadlock.
        core.send(Message(MSG_APP_RESP, message.sender, core.id))
    if core.trace is not None:
        text = f"ignored a {kind} message with lower term from {message.sender:x}"
        core.trace("INFO", f"{core.id:x} [term: {core.term}] {text} [term: {message.term}]")
    return False


def _handle_stored(core: Core, message: Message) -> None:
    """The host has written entries or a snapshot; see `ready` for why both are tagged."""
    if message.index:
        core.log.unstable.stable_to(message.index, message.log_term)
    if message.snapshot is not None:
        _stored_snapshot(core, message.snapshot.meta.index)


def _stored_snapshot(core: Core, index: int) -> None:
    core.log.unstable.stable_snapshot_to(index)
    core.log.applied_to(max(index, core.log.applied), 0)


def tick(core: Core) -> None:
    """Let one tick of time pass."""
    core.election_elapsed += 1
    if core.role is LEADER:
        _tick_leader(core)
    elif core.election_elapsed >= core.timeout_ticks and core.is_promotable():
        core.election_elapsed = 0
        step(core, Message(MSG_HUP, sender=core.id))


def _tick_leader(core: Core) -> None:
    config = core.config
    core.heartbeat_elapsed += 1
    if core.election_elapsed >= config.election_ticks:
        core.election_elapsed = 0
        if config.check_quorum:
            step(core, Message(MSG_CHECK_QUORUM, sender=core.id))
        # A target that did not take over in this time won't: accept proposals again.
        core.transferee = NO_NODE
    if core.role is LEADER and core.heartbeat_elapsed >= config.heartbeat_ticks:
        core.heartbeat_elapsed = 0
        step(core, Message(MSG_BEAT, sender=core.id))
