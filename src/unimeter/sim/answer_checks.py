"""Whether an answer that a client got is right, at the position that it names.

Owns the freedom that a node has in answering, and refuses everything else:

    any request       to promise nothing: BACKPRESSURE, NOT_LEADER, REDIRECT, SHUTTING_DOWN,
                      OUTCOME_UNKNOWN; and the words of any refusal
    UsageRealtime     its clock: any period of the metric, if `now_ns` is not given
    Accounts          shorter pages than asked for, if the cursor goes on where the page ends
    EventsList        events of the oldest entries may be gone (retention, a peer's snapshot),
                      unless `stored_from` says which entries it stores: what is listed must
                      follow one another without a gap
    ranges that cut   RANGE_UNAVAILABLE, for the same reason; never where bucket edges are met

Answers are compared as a whole, order and cursors included, with those of `right_answers`.
A reply to an ingest request may be any that one of its places in the log can have got. Refuses
to know which position an answer reflects: its header says so. Does not check answers of version
1, which carry less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.sim.committed import Committed
from unimeter.sim.model_answers import Metric
from unimeter.sim.right_answers import (
    answer,
    chain_of,
    events_of,
    lines_of,
    page_of,
    windows_of,
)
from unimeter.sim.session_model import RUNS_REMEMBERED, Answered
from unimeter.wire import messages as m

PROMISES_NOTHING: Final = (
    m.ErrorCode.BACKPRESSURE,
    m.ErrorCode.NOT_LEADER,
    m.ErrorCode.REDIRECT,
    m.ErrorCode.SHUTTING_DOWN,
    m.ErrorCode.OUTCOME_UNKNOWN,
)


def difference(
    log: Committed,
    request: m.Request,
    reply: m.Response,
    at: int,
    now_ns: int | None = None,
    stored_from: int | None = None,
) -> str:
    """What is wrong with a response given at a position, in a sentence; "" if nothing is."""
    if isinstance(reply, m.ErrorReply):
        return _refusal_difference(log, request, reply, at)
    if isinstance(request, m.UsageRealtime) and isinstance(reply, m.UsageReply):
        if now_ns is None:
            now_ns = max(reply.start_ns, TIMESTAMP_NS_MIN)
    right = answer(log, request, at, now_ns or 0)
    if isinstance(right, m.ErrorReply):
        return f"{reply!r}, expected a refusal: {right.code.name}"
    if isinstance(request, m.Accounts) and isinstance(reply, m.AccountsReply):
        return _accounts_difference(log, request, reply, at)
    if isinstance(request, m.EventsList) and isinstance(reply, m.EventsListReply):
        return _events_difference(log, request, reply, at, stored_from)
    return _unequal(reply, right)


def _refusal_difference(log: Committed, request: m.Request, reply: m.ErrorReply, at: int) -> str:
    if reply.code in PROMISES_NOTHING:
        return ""
    right = answer(log, request, at)
    if isinstance(right, m.ErrorReply):
        return "" if right.code == reply.code else f"{reply!r}, expected {right.code.name}"
    if reply.code == m.ErrorCode.RANGE_UNAVAILABLE and cuts_buckets(log, request, at):
        return ""
    return f"{reply!r}, expected {right!r}"


def cuts_buckets(log: Committed, request: m.Request, at: int) -> bool:
    """Whether a read may need stored events, which may be gone."""
    match request:
        case m.EventsList():
            return True
        case m.Series():
            metric = log.model.find(request.metric_code, at)
            edges = [edge for window in windows_of(log, request, at) for edge in window]
            return _is_cut(metric, [*edges[1:-1], request.start_ns, request.end_ns])
        case m.UsageQuery() | m.Breakdown() | m.Accounts():
            metric = log.model.find(request.metric_code, at)
            return _is_cut(metric, [request.start_ns, request.end_ns])
        case m.Members():
            return _is_cut(log.model.find(request.metric_code, at), [request.at_ns + 1])
    return False


def _is_cut(metric: Metric, edges: Sequence[int]) -> bool:
    """Whether an edge lies inside a bucket, at a time at which events can be."""
    return any(
        TIMESTAMP_NS_MIN < edge < TIMESTAMP_NS_MAX and not metric.bucket.is_start(edge)
        for edge in edges
    )


def _unequal(found: object, right: object) -> str:
    return "" if found == right else f"{found!r}, expected {right!r}"


def _accounts_difference(
    log: Committed, request: m.Accounts, reply: m.AccountsReply, at: int
) -> str:
    """Whether a page has what lies between its own cursor and the next page's."""
    chain = chain_of(log, request, at)
    seen = chain
    if reply.cursor:
        number = int.from_bytes(reply.cursor, "little")
        if len(reply.cursor) != 8 or number not in [number for number, _ in chain[1:]]:
            return f"the cursor {reply.cursor!r} goes nowhere"
        seen = [one for one in chain if one[0] > number]
    if len(seen) > request.limit:
        return f"{len(seen)} accounts on a page of {request.limit}"
    return _unequal(reply.accounts, lines_of(log, request, seen, at))


def _events_difference(
    log: Committed,
    request: m.EventsList,
    reply: m.EventsListReply,
    at: int,
    stored_from: int | None,
) -> str:
    """Whether a list is right but for events of the oldest entries, which may be gone."""
    events = list(events_of(log, request, at))
    if stored_from is not None:
        return _unequal(
            reply, page_of(request, [one for one in events if one.index >= stored_from])
        )
    if not reply.events:
        return "" if not reply.cursor else "an empty page that is not the last"
    oldest = reply.events[0].offset
    stored = [one for one in events if one.offset >= oldest]
    gone = [one for one in events if one.offset < oldest]
    if stored and gone and gone[-1].index == stored[0].index:
        return f"entry {gone[-1].index} is listed in part"
    return _unequal(reply, page_of(request, stored))


# --- ingest ------------------------------------------------------------------------------------


def reply_difference(sent: Sequence[Answered], reply: m.Response) -> str:
    """Whether a reply is one that a request's places in the log can have got."""
    if isinstance(reply, m.ErrorReply):
        codes = [one.error_code for one in sent if one.error_code]
        if reply.code in PROMISES_NOTHING or reply.code in codes:
            return ""
        return f"{reply!r}, expected one of the codes {codes}"
    right = [found for one in sent for found in ingest_replies(one)]
    if reply in right:
        return ""
    return f"{reply!r}, expected one of {right!r}"


def ingest_replies(answered: Answered) -> list[m.IngestReply]:
    """What a request in the log may be answered: as new, or remembered; none if refused."""
    if answered.error_code:
        return []
    if answered.repeats is not None:
        return [_ingest_reply(answered.repeats, is_remembered=True)]
    return [_ingest_reply(answered), _ingest_reply(answered, is_remembered=True)]


def _ingest_reply(answered: Answered, is_remembered: bool = False) -> m.IngestReply:
    runs = answered.runs
    kept = runs[:RUNS_REMEMBERED] if is_remembered else runs
    return m.IngestReply(
        stored=answered.stored,
        duplicates=answered.duplicates,
        last_offset=answered.last_offset,
        refused=answered.refused,
        runs=list(kept),
        is_remembered=is_remembered,
        is_incomplete=len(kept) < len(runs),
    )
