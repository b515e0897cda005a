"""What each request means: a message in, a message out.

Owns the translation between the wire's nouns and the engine's questions, for
the server and for the embedded API alike, so both give the same answer and the
same refusal. Refuses to know bytes (`wire`) and sockets (`connection`).

    answer(node, request, done) ──> Response now      (from memory, applied state)
                                └─> None, done(...)   later: a change that must be
                                                      durable, a scan of stored events

A read sees everything acknowledged: entries are applied before their replies
are sent, and reads happen on the same thread, between entries. A read whose
range cuts a bucket takes its memory part here and now, at one position, and the
events of the edges up to that position in a worker.

Mistakes of the caller are raised as the package's own exceptions, or handed to
`done` as the ErrorReply that stands for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from unimeter import limits
from unimeter.engine import catalog, entries, query
from unimeter.errors import (
    BackpressureError,
    FatalStorageError,
    InvalidInputError,
    RottenEntryError,
)
from unimeter.server import administration
from unimeter.server.answering import Done as Done
from unimeter.server.answering import check_read, propose
from unimeter.server.node import Node
from unimeter.types import PARTITION_COUNT, Direction
from unimeter.version import VERSION
from unimeter.wire import messages as m
from unimeter.wire.failures import error_of

MEND_MS = 500  # a peer is asked within a tick, and a silent one passed over after a second

T = TypeVar("T")
_CURSOR_BYTES = 4  # of a metric list: the last metric's number


def answer(node: Node, request: m.Request, done: Done) -> m.Response | None:
    """Answer `request`: the response at once, or None and a call of `done` later.

    Raises UnimeterError for a request that can't be answered as it is.
    """
    handler = _HANDLERS.get(type(request))
    if handler is None:
        name = type(request).__name__
        raise m.ProtocolError(f"{name} is not a request of its own", m.ErrorCode.UNSUPPORTED)
    return handler(node, request, done)


def call(node: Node, request: m.Request) -> tuple[m.Response, int]:
    """Answer `request` before returning: (response, position). For an inline host only."""
    assert node.host.inline, "with an event loop, answers may come later"
    answers: list[tuple[m.Response, int]] = []
    try:
        response = answer(node, request, lambda *given: answers.append(given))
    except BackpressureError as error:
        return error_of(error), node.machine.applied
    if response is not None:
        return response, node.machine.applied
    if not answers:
        node.turn()
    assert len(answers) == 1, "an inline turn answers what was proposed"
    return answers[0]


# --- the node about itself ------------------------------------------------------


def _hello(node: Node, request: m.Hello, done: Done) -> m.Response:
    if request.version_min > 2 or request.version_max < 1:
        raise m.ProtocolError("this node speaks versions 1 and 2", m.ErrorCode.UNSUPPORTED)
    return m.HelloReply(
        version=min(2, request.version_max),
        node_id=node.node_id,
        cluster_id=node.machine.cluster_id,
        server=f"unimeter {VERSION}",
    )


def _cluster_status(node: Node, request: m.ClusterStatus, done: Done) -> m.Response:
    return cluster_status(node)


def cluster_status(node: Node) -> m.ClusterStatusReply:
    """This node about itself; in a cluster `server.standing` adds the others."""
    raft = node.replica.raft
    partition = m.PartitionStatus(
        term=raft.term & 0xFFFFFFFF,
        commit=raft.commit & 0xFFFF,
        role={0: 0, 1: 1, 2: 2, 3: 1}[int(raft.role)],
        leader=node.lead,
    )
    engine = node.machine.statistics()
    return m.ClusterStatusReply(
        node_id=node.node_id,
        node_count=1,
        log_offset=node.machine.next_offset - 1,
        segments=node.wal.statistics()["segments"],
        aggregate_keys=engine["cells"],
        uptime_ns=int((node.platform.monotonic() - node.started) * 1e9),
        partitions=[partition] * PARTITION_COUNT,
        statistics={**engine, **node.statistics.counters()},
        cluster_id=node.machine.cluster_id,
        leader=node.lead,
        nodes=[own_status(node)],
    )


def own_status(node: Node) -> m.NodeStatus:
    """One node as it knows itself, without its addresses."""
    raft = node.replica.raft
    return m.NodeStatus(
        node_id=node.node_id,
        role=_ROLES[int(raft.role)],
        membership=node.opened.superblock.current.membership,
        heard_ms=0,
        term=raft.term,
        last_index=raft.last_index,
        commit=raft.commit,
        applied=node.machine.applied,
        match=raft.last_index if node.leads else 0,
        disk_free_bytes=node.upkeep.free_bytes,
        disk_used_bytes=node.wal.statistics()["bytes"],
        version=VERSION,
    )


_ROLES = (m.NodeRole.FOLLOWER, m.NodeRole.CANDIDATE, m.NodeRole.LEADER, m.NodeRole.CANDIDATE)


# --- metrics --------------------------------------------------------------------


def _metric_put(node: Node, request: m.MetricPut, done: Done) -> None:
    body = catalog.put_body(request.schema, int(request.mode))
    propose(node, *administration.on_behalf(request.actor, entries.METRIC_PUT, body), done)


def _metric_delete(node: Node, request: m.MetricDelete, done: Done) -> None:
    # Whether there is such a metric the log decides: a leader may not have applied all of it yet.
    body = request.code.encode()
    propose(node, *administration.on_behalf(request.actor, entries.METRIC_DELETE, body), done)


def _metric_list(node: Node, request: m.MetricList, done: Done) -> m.Response:
    check_read(node, request)
    if len(request.cursor) not in (0, _CURSOR_BYTES):
        raise InvalidInputError("the cursor is none that this node gave")
    live = node.machine.catalog.live(int.from_bytes(request.cursor, "little"))
    page = live[: request.limit]
    cursor = page[-1].number.to_bytes(_CURSOR_BYTES, "little") if len(page) < len(live) else b""
    return m.MetricListReply([metric.schema for metric in page], cursor)


# --- totals ---------------------------------------------------------------------


def _finish(
    node: Node, plan: query.Plan[T], shape: Callable[[T], m.Response], done: Done
) -> m.Response | None:
    """The plan's answer: now if memory has it all, else after a scan of the edges."""
    if not plan.edges:
        return shape(plan.finish())
    node.statistics.edge_scans += 1

    def scan() -> m.Response:
        return shape(plan.finish(_edge_rows(node, plan)))

    def then(result: m.Response | Exception) -> None:
        done(_told(node, result), plan.position)

    node.host.aside(scan, then)
    return None


def _told(node: Node, result: m.Response | Exception) -> m.Response:
    """A scan's answer. Damage that it met is noted; where a peer will mend it, ask again."""
    if isinstance(result, RottenEntryError):
        try:
            node.replica.log.note_rotten(result.index)
        except FatalStorageError as error:
            node.fail(error)
        if not node.is_alone:
            text = f"entry {result.index} is damaged here and is being taken from another node"
            return m.ErrorReply(m.ErrorCode.BACKPRESSURE, text, MEND_MS)
    return error_of(result) if isinstance(result, Exception) else result


def _edge_rows(node: Node, plan: query.Plan[Any]) -> Iterator[Any]:
    """The stored events of every edge, up to the position the plan was made at."""
    for edge in plan.edges:
        yield from node.events.rows(
            edge.account,
            edge.metric_code,
            edge.start_ns,
            edge.end_ns,
            plan.from_index,
            plan.position,
        )


def _usage_query(node: Node, request: m.UsageQuery, done: Done) -> m.Response | None:
    check_read(node, request)
    start, end = request.start_ns, request.end_ns
    plan = query.plan_total(
        node.machine, request.account, request.metric_code, start, end, request.filters
    )
    return _finish(node, plan, lambda value: m.UsageReply(value, start, end), done)


def _usage_realtime(node: Node, request: m.UsageRealtime, done: Done) -> m.Response | None:
    check_read(node, request)
    plan = query.plan_realtime(node.machine, request.account, request.metric_code, node.clock())
    return _finish(node, plan, lambda value: m.UsageReply(value, plan.start_ns, plan.end_ns), done)


def _breakdown(node: Node, request: m.Breakdown, done: Done) -> m.Response | None:
    check_read(node, request)
    plan = query.plan_breakdown(
        node.machine,
        request.account,
        request.metric_code,
        request.start_ns,
        request.end_ns,
        request.keys,
        request.filters,
    )
    return _finish(
        node,
        plan,
        lambda rows: m.BreakdownReply([m.BreakdownRow(pairs, value) for pairs, value in rows]),
        done,
    )


def _series(node: Node, request: m.Series, done: Done) -> m.Response | None:
    check_read(node, request)
    plan = query.plan_series(
        node.machine,
        request.account,
        request.metric_code,
        request.start_ns,
        request.end_ns,
        int(request.window),
        request.zone,
        request.filters,
    )
    return _finish(
        node, plan, lambda rows: m.SeriesReply([m.SeriesRow(*row) for row in rows]), done
    )


def _accounts(node: Node, request: m.Accounts, done: Done) -> m.Response | None:
    check_read(node, request)
    plan = query.plan_accounts(
        node.machine,
        request.metric_code,
        request.start_ns,
        request.end_ns,
        request.cursor,
        request.limit,
    )
    return _finish(node, plan, lambda page: m.AccountsReply(*page), done)


def _members(node: Node, request: m.Members, done: Done) -> m.Response | None:
    check_read(node, request)
    plan = query.plan_members(
        node.machine,
        request.account,
        request.metric_code,
        request.at_ns,
        request.cursor,
        request.limit,
    )
    return _finish(node, plan, lambda page: m.MembersReply(*page), done)


# --- lists ----------------------------------------------------------------------


def _events_list(node: Node, request: m.EventsList, done: Done) -> None:
    check_read(node, request, 10 * limits.PAGE_ITEMS_MAX)  # v1 gets its list in one piece
    if request.until_ns <= request.since_ns:
        raise InvalidInputError("the range ends before it starts; it is [since, until)")
    position = node.machine.applied

    def scan() -> m.Response:
        page = node.events.scan(
            request.account,
            request.metric_code,
            request.since_ns,
            request.until_ns,
            node.wal.first_index,
            position,
            request.cursor.decode("ascii", "replace"),
            request.limit,
        )
        return m.EventsListReply(page.events, page.cursor.encode())

    def then(result: m.Response | Exception) -> None:
        done(_told(node, result), position)

    node.host.aside(scan, then)


def alert_rows(
    node: Node, after: int, limit: int, request: m.AlertsList | None = None
) -> tuple[list[m.AlertRow], bool]:
    """Alerts above position `after`, at most `limit`, and whether more follow."""
    lines, more = query.list_alerts(
        node.machine,
        after,
        request.account if request else None,
        request.metric_code if request else None,
        limit,
        request.since_offset if request else 0,
    )
    rows = [
        m.AlertRow(
            offset=line.offset,
            account=line.account,
            metric_code=line.metric_code,
            threshold_code=line.threshold_code,
            value=line.value,
            timestamp_ns=line.timestamp_ns,
            position=line.position,
            direction=Direction(line.direction),
            period_start_ns=line.period_start_ns,
        )
        for line in lines
    ]
    return rows, more


def _alerts_list(node: Node, request: m.AlertsList, done: Done) -> m.Response:
    check_read(node, request)
    return m.AlertsListReply(*alert_rows(node, request.after, request.limit, request))


_HANDLERS: dict[type, Callable[[Node, Any, Done], m.Response | None]] = {
    m.Hello: _hello,
    m.ClusterStatus: _cluster_status,
    m.MetricPut: _metric_put,
    m.MetricDelete: _metric_delete,
    m.MetricList: _metric_list,
    m.UsageQuery: _usage_query,
    m.UsageRealtime: _usage_realtime,
    m.EventsList: _events_list,
    m.AlertsList: _alerts_list,
    m.Breakdown: _breakdown,
    m.Series: _series,
    m.Accounts: _accounts,
    m.Members: _members,
    **administration.HANDLERS,
}
