"""Elections: to campaign, to vote, to count votes (§5.2, §5.4.1; §3.10 and §9.6).

Owns who may become leader. Refuses to vote for a log that lacks what may be
committed, and to vote twice in a term; the vote is durable before it is sent,
because `core` queues it behind the write.
"""

from __future__ import annotations

from unimeter.raft.core import Core
from unimeter.raft.messages import (
    LEADER,
    MSG_PRE_VOTE,
    MSG_PRE_VOTE_RESP,
    MSG_VOTE,
    MSG_VOTE_RESP,
    NO_NODE,
    PRE_CANDIDATE,
    Message,
)
from unimeter.raft.quorum import VoteResult, vote_result
from unimeter.raft.replication import broadcast_append

# In a request for votes: the leader itself asked for this election, so that its being
# alive is no reason to refuse.
TRANSFER_CONTEXT = b"CampaignTransfer"


def hup(core: Core, transfer: bool = False) -> None:
    """Begin an election, unless this node leads or may not. A transfer skips the pre-vote."""
    if core.role is LEADER or not core.is_promotable():
        return
    if core.trace is not None:
        core.trace("INFO", f"{core.id:x} is starting a new election at term {core.term}")
    if core.config.pre_vote and not transfer:
        core.become_pre_candidate()
        _ask_for_votes(core, core.term + 1, b"")
    else:
        core.become_candidate()
        _ask_for_votes(core, core.term, TRANSFER_CONTEXT if transfer else b"")


def _ask_for_votes(core: Core, term: int, context: bytes) -> None:
    """Send the requests. Our own vote comes back to us like any other, once it is durable."""
    pre = core.role is PRE_CANDIDATE
    request, response = (MSG_PRE_VOTE, MSG_PRE_VOTE_RESP) if pre else (MSG_VOTE, MSG_VOTE_RESP)
    log = core.log
    for node in core.voters:
        if node == core.id:
            core.send(Message(response, node, core.id, term))
        else:
            core.send(
                Message(
                    request, node, core.id, term, log.last_term, log.last_index, context=context
                )
            )


def count_vote(core: Core, message: Message) -> None:
    """Take one answer to our requests, and win or lose if it decides."""
    core.votes.setdefault(message.sender, not message.reject)
    result = vote_result(core.voters, core.votes)
    if core.trace is not None:
        word = "rejection" if message.reject else "grant"
        text = f"{core.id:x} received {message.type} {word} from {message.sender:x}: {result.name}"
        core.trace("INFO", f"{text} at term {core.term}")
    if result is VoteResult.LOST:
        # The term of a refused pre-vote is the one we would have had: ours stays.
        core.become_follower(core.term, NO_NODE)
    elif result is VoteResult.WON:
        if core.role is PRE_CANDIDATE:
            core.become_candidate()
            _ask_for_votes(core, core.term, b"")
        else:
            core.become_leader()
            broadcast_append(core)


def handle_vote_request(core: Core, message: Message) -> None:
    """Answer a request for a vote or a pre-vote of our term or a later one."""
    pre = message.type is MSG_PRE_VOTE
    free = (
        core.vote == message.sender
        or (core.vote == NO_NODE and core.lead == NO_NODE)
        or (pre and message.term > core.term)
    )
    granted = free and core.log.is_up_to_date(message.index, message.log_term)
    _trace_vote(core, message, granted)
    response = MSG_PRE_VOTE_RESP if pre else MSG_VOTE_RESP
    # A grant is of the term asked for, which for a pre-vote is not ours yet.
    term = message.term if granted else core.term
    if term == 0:
        # Started from a snapshot and never in any term: there is none to refuse in.
        return
    core.send(Message(response, message.sender, core.id, term, reject=not granted))
    if granted and not pre:
        core.election_elapsed = 0
        core.vote = message.sender


def is_leader_alive(core: Core) -> bool:
    """Whether a leader was heard of so recently that an election would only disturb it, §6.

    Asked only with `check_quorum`: without it a leader may not notice that it lost its
    majority, and this would refuse the ones who could replace it.
    """
    return (
        core.config.check_quorum
        and core.lead != NO_NODE
        and core.election_elapsed < core.config.election_ticks
    )


def reject_pre_vote(core: Core, message: Message) -> None:
    """Refuse a pre-vote of an older term by name, so that its sender learns of ours."""
    _trace_vote(core, message, False)
    core.send(Message(MSG_PRE_VOTE_RESP, message.sender, core.id, core.term, reject=True))


def _trace_vote(core: Core, message: Message, granted: bool) -> None:
    if core.trace is not None:
        verb = "cast" if granted else "rejected"
        theirs = f"{message.sender:x} [logterm: {message.log_term}, index: {message.index}]"
        ours = f"[logterm: {core.log.last_term}, index: {core.log.last_index}, vote: {core.vote:x}]"
        core.trace("INFO", f"{core.id:x} {ours} {verb} {message.type} for {theirs}")
