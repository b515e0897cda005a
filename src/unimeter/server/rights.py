"""What each request needs: a scope by its packet type, an account and a metric by its content.

Owns one table, `PACKET_RIGHTS`, and the rules that go with it. A packet type that is not in
the table is not a request of this protocol as far as rights go, and a test says so:

    scope      `may`      from the header alone, before anything of the payload is read
    content    `check`    from the decoded request; it may narrow it instead of refusing it
    reply      `shown`    what is left of a list that can't be narrowed beforehand

A key that is for one account or metric gets what names them, and is refused what would show
others: "all accounts" is never quietly made "yours", except for pushes, whose filter it is.

Refuses to know connections (`gate`) and HTTP routes, each of which says for itself what it needs.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

from unimeter.errors import ForbiddenError
from unimeter.keys import Principal, Scope
from unimeter.wire import messages as m
from unimeter.wire.messages import PacketType


class Right(enum.Enum):
    """What a packet type needs, where it is no scope."""

    LOGIN = "nothing: it is how one logs in"
    KEY = "any key that is good"
    PUSH = "it is no request: the server sends it"
    NODES = "to come from this process or another node"


PACKET_RIGHTS: Final[dict[PacketType, Scope | Right]] = {
    PacketType.INGEST_ASYNC: Scope.INGEST,
    PacketType.INGEST_SYNC: Scope.INGEST,
    PacketType.GET_PARTITION_MAP: Right.KEY,  # a client that only sends has to find the leader
    PacketType.PARTITION_MAP_UPDATE: Right.PUSH,
    PacketType.HELLO: Right.LOGIN,
    PacketType.METRIC_PUT: Scope.ADMIN,
    PacketType.METRIC_DELETE: Scope.ADMIN,
    PacketType.METRIC_LIST: Scope.READ,
    PacketType.USAGE_QUERY: Scope.READ,
    PacketType.USAGE_REALTIME: Scope.READ,
    PacketType.EVENTS_LIST: Scope.READ,
    PacketType.ALERTS_LIST: Scope.READ,
    PacketType.ALERT_PUSH_ENABLE: Scope.READ,
    PacketType.ALERT_PUSH: Right.PUSH,
    PacketType.USAGE_QUERY_BREAKDOWN: Scope.READ,
    PacketType.ACCOUNTS_LIST: Scope.READ,
    PacketType.USAGE_SERIES: Scope.READ,
    PacketType.MEMBERS_LIST: Scope.READ,
    PacketType.WATCH: Scope.READ,
    PacketType.TOTAL_PUSH: Right.PUSH,
    PacketType.CLUSTER_STATUS: Scope.READ,
    PacketType.TRANSFER_LEADER: Scope.ADMIN,
    PacketType.KEY_PUT: Scope.ADMIN,
    PacketType.KEY_REVOKE: Scope.ADMIN,
    PacketType.KEY_LIST: Scope.ADMIN,
    PacketType.WEBHOOK_PUT: Scope.ADMIN,
    PacketType.WEBHOOK_DELETE: Scope.ADMIN,
    PacketType.WEBHOOK_LIST: Scope.ADMIN,
    PacketType.WEBHOOK_CONTROL: Scope.ADMIN,
    PacketType.AUDIT_LIST: Scope.ADMIN,
    PacketType.ON_BEHALF: Right.NODES,
}


def may(principal: Principal, kind: int) -> None:
    """Raise ForbiddenError unless this principal's scopes cover a request of type `kind`.

    A number that is no packet type passes: it is refused for what it is.
    """
    right = _RIGHTS.get(kind)
    if isinstance(right, Scope):
        principal.check(right)


def has_every_right(principal: Principal) -> bool:
    """Whether nothing that it asks needs to be looked at."""
    return principal.has(Scope.ADMIN) and not principal.is_restricted


def may_ingest_anything(principal: Principal) -> bool:
    """Whether its batches may go to the kernel unread."""
    return principal.has(Scope.INGEST) and not principal.is_restricted


def check(principal: Principal, request: m.Request) -> None:
    """Raise ForbiddenError where a request is about what is closed to this principal."""
    if principal.is_restricted:
        _CHECKS.get(type(request), _check_all)(principal, request)


def shown(principal: Principal, response: m.Response) -> m.Response:
    """A response without what is closed to this principal."""
    if isinstance(response, m.MetricListReply) and principal.metrics is not None:
        kept = [schema for schema in response.metrics if schema.code in principal.metrics]
        return m.MetricListReply(kept, response.cursor)
    return response


def _check_pair(principal: Principal, request: Any) -> None:
    principal.check_sees(request.account, request.metric_code)


def _check_metric(principal: Principal, request: m.Accounts) -> None:
    principal.check_sees(None, request.metric_code)


def _check_batch(principal: Principal, request: m.Ingest) -> None:
    for row in request.rows:
        principal.check_sees(row.account, row.metric_code)


def _check_all(principal: Principal, request: m.Request) -> None:
    """For whatever tells of every account; and for a request that nobody has thought of."""
    principal.check_sees(None, None)


def _pass(principal: Principal, request: m.Request) -> None:
    """It tells of no account and no metric, or `shown` takes them out."""


def _narrow(principal: Principal, request: Any) -> None:
    """A stream: what it names must be open; naming nothing, it gets what is open."""
    if principal.account is not None:
        if not request.accounts:
            request.accounts = [principal.account]
        for account in request.accounts:
            if not principal.sees_account(account):
                raise ForbiddenError(f"this key is for the account {principal.account!r} only")
    if principal.metrics is not None:
        if not principal.metrics:
            raise ForbiddenError("no metric is open to this token")
        if not request.metrics:
            request.metrics = sorted(principal.metrics)
        for code in request.metrics:
            if code not in principal.metrics:
                raise ForbiddenError(f"this key is for {', '.join(sorted(principal.metrics))} only")


_CHECKS: Final[dict[type, Callable[[Principal, Any], None]]] = {
    m.Hello: _pass,
    m.PartitionMap: _pass,
    m.MetricList: _pass,
    m.Ingest: _check_batch,
    m.UsageQuery: _check_pair,
    m.UsageRealtime: _check_pair,
    m.EventsList: _check_pair,
    m.AlertsList: _check_pair,
    m.Breakdown: _check_pair,
    m.Series: _check_pair,
    m.Members: _check_pair,
    m.Accounts: _check_metric,
    m.AlertPushEnable: _narrow,
    m.Watch: _narrow,
    m.Watch: _narrow,
}
_RIGHTS: Final[dict[int, Scope | Right]] = {int(at): one for at, one in PACKET_RIGHTS.items()}
