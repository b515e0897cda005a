"""What each view of the dashboard shows: its twins ``.json`` and ``.csv`` (`twins`).

Owns which answers of the API make a view. What one account shows, here and in the embedded
view, is in `usage`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from unimeter import limits
from unimeter.accounts import EXACT_MAX, parse_account
from unimeter.control import AUDIT_COLUMNS
from unimeter.engine.alert_log import alert_at
from unimeter.instants import format_ns
from unimeter.keys import Scope, same
from unimeter.server.web import alert_cells
from unimeter.server.web.api import accounts, keys, lists, totals
from unimeter.server.web.api import metrics as metrics_api
from unimeter.server.web.api import webhooks as webhooks_api
from unimeter.server.web.api.schemas import METRIC_COLUMNS, NUMBERS, MetricBody
from unimeter.server.web.api.status import NODE_COLUMNS, node_cells
from unimeter.server.web.api.store import WORDS
from unimeter.server.web.call import Call
from unimeter.server.web.dashboard.twins import Twin, answer_of, table, twins
from unimeter.types import Account
from unimeter.wire import messages as m

TOP: Final = "20"
PAGE: Final = "100"
ALERTS_LOOKED_AT: Final = 50_000  # for one page of one account's alerts: 50 ms, in steps
ALERTS_STEP: Final = 1000

# --- overview ----------------------------------------------------------------------


async def overview(call: Call) -> Twin:
    """The cluster as this node knows it, and what went through it in the last minutes."""
    call.principal.check_sees(None, None)
    status, position = await call.site.gateway.ask(m.ClusterStatus(), call.principal)
    assert isinstance(status, m.ClusterStatusReply)
    node, history = call.site.server.node, call.site.history
    lines = [node_cells(one) for one in status.nodes]
    counted = status.statistics
    body = {
        "node": status.node_id,
        "leader": status.leader,
        "cluster_id": status.cluster_id.hex(),
        "time": format_ns(node.clock()),
        "uptime_seconds": status.uptime_ns // 10**9,
        "position": position,
        "waiting": node.refusal,
        "events": {name: counted[name] for name in ("stored", "duplicates", "refused")},
        "metrics": counted["metrics"],
        "series": counted["series"],
        "alerts": counted["alerts"],
        "connections": call.site.server.clients.count,
        "latency": history.latency(node.statistics.sync_seconds.bounds),
        "rates": list(history.rates()),
        "nodes": [dict(zip(NODE_COLUMNS, line, strict=True)) for line in lines],
    }
    return Twin(body, NODE_COLUMNS, lines, position)


# --- metrics -----------------------------------------------------------------------


async def metrics(call: Call) -> Twin:
    """Every metric that the caller may see."""
    found = await answer_of(call, metrics_api.list_metrics, {"limit": str(limits.METRICS_MAX)})
    return Twin.of(found, METRIC_COLUMNS)


FORM_COLUMNS: Final = ("field", "default", "choices", "description")


async def new_metric(call: Call) -> Twin:
    """What the form for a new metric asks for, what may stand there, and what stands there."""
    schema = msgspec.json.schema(MetricBody)
    members = schema["$defs"]["MetricBody"]["properties"]
    lines = [
        [name, one.get("default"), one.get("enum", []), one.get("description", "")]
        for name, one in members.items()
    ]
    body = {"definition": {name: default for name, default, *_ in lines}, "schema": schema}
    return Twin(table(FORM_COLUMNS, lines).body | body, FORM_COLUMNS, lines)


async def metric(call: Call) -> Twin:
    """One metric: its definition, its largest accounts, its newest alerts."""
    code = call.path("code")
    call.principal.check_sees(None, code)
    definition = await answer_of(call, metrics_api.show, code=code)
    top = await answer_of(call, totals.top, {"metric": code, "limit": TOP})
    rows, _ = await newest_alerts(call, None, code, 0, 20)
    body = {
        "metric": definition,
        "start": top["start"],
        "end": top["end"],
        "accounts": top["accounts"],
        "top": top["rows"],
        "alerts": rows,
    }
    columns = ("account", *NUMBERS)
    return Twin(body, columns, lines_of(top["rows"], columns), top.get("position"))


def lines_of(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> list[list[Any]]:
    """The cells of rows that are objects."""
    return [[row[name] for name in columns] for row in rows]


# --- accounts, alerts --------------------------------------------------------------


async def found_accounts(call: Call) -> Twin:
    """Accounts by name."""
    given = {name: call.text(name, "") for name in ("q", "cursor")}
    found = await answer_of(call, accounts.find, {**given, "limit": call.text("limit", PAGE)})
    return Twin.of(found, ("account", "text"))


async def newest_alerts(
    call: Call, account: Account | None, metric_code: str | None, before: int, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """Alerts of an account, a metric or all below position `before` (0: from the newest on).

    Newest first; and the position before which to go on, 0 at the end. The caller has checked
    the rights.
    """
    node = call.site.server.node
    position = before - 1 if before else node.last_alert
    lowest = max(0, position - ALERTS_LOOKED_AT)
    rows: list[dict[str, Any]] = []
    while position > lowest:
        with node.lock:
            for at in range(position, max(lowest, position - ALERTS_STEP), -1):
                line = alert_at(node.machine, at)
                is_wanted = account is None or same(line.account, account)
                if is_wanted and metric_code in (None, line.metric_code):
                    rows.append(alert_cells.alert_object(line))
                    if len(rows) == limit:
                        return rows, at if at > 1 else 0
        position = max(lowest, position - ALERTS_STEP)
        await asyncio.sleep(0)
    return rows, position + 1 if position else 0


async def alerts(call: Call) -> Twin:
    """Alerts, newest first."""
    name, code = call.text("account", ""), call.text("metric", "") or None
    account = parse_account(name) if name else None
    call.principal.check_sees(account, code)
    before = call.integer("before", 0, 0, EXACT_MAX)
    limit = call.integer("limit", int(PAGE), 1, 1000)
    rows, after = await newest_alerts(call, account, code, before, limit)
    lines = lines_of(rows, alert_cells.COLUMNS)
    return table(alert_cells.COLUMNS, lines, cursor=str(after) if after else "")


# --- events ------------------------------------------------------------------------

EVENT_COLUMNS: Final = (
    "offset", "timestamp", "account", "metric", "value", "operation", "properties", "id",
    "outcome", "reason",
)  # fmt: skip
EVENT_FILTERS: Final = ("account", "metric", "cursor", "outcome")
_REFUSED: Final = ",".join(
    [*(word for word in WORDS.values() if word not in ("stored", "duplicate")), lists.NOT_COUNTED]
)


async def events(call: Call) -> Twin:
    """The newest events and what became of them."""
    given = {name: call.text(name, "") for name in EVENT_FILTERS}
    if given["outcome"] == "refused":
        given["outcome"] = _REFUSED  # without those that were sent twice
    found = await answer_of(call, lists.tail, {**given, "limit": call.text("limit", PAGE)})
    return Twin.of(found, EVENT_COLUMNS)


# --- administration ----------------------------------------------------------------


async def webhooks(call: Call) -> Twin:
    """Where alerts are sent, and how far that has come."""
    return Twin.of(await answer_of(call, webhooks_api.list_webhooks), webhooks_api.COLUMNS)


async def all_keys(call: Call) -> Twin:
    """The keys, without what opens anything; and whether none is needed yet."""
    found = await answer_of(call, keys.list_keys)
    found["is_open"] = call.site.server.auth.is_open
    return Twin.of(found, keys.KEY_COLUMNS)


async def audit(call: Call) -> Twin:
    """Who changed what, newest first."""
    given = {"limit": call.text("limit", PAGE), "before": call.text("before", "0")}
    found = await answer_of(call, keys.audit, given)
    if "before" in found:
        found["cursor"] = str(found["before"])
    return Twin.of(found, AUDIT_COLUMNS)


ENDPOINTS: Final = [
    *twins("/overview", "overview", overview),
    *twins("/ui/metrics", "metrics", metrics),
    *twins("/ui/new-metric", "new_metric", new_metric, asked=("code",)),
    *twins("/ui/metrics/{code:path}", "metric", metric),
    *twins("/ui/accounts", "accounts", found_accounts, asked=("q", "cursor", "limit")),
    *twins("/ui/alerts", "alerts", alerts, asked=("account", "metric", "before", "limit")),
    *twins("/ui/events", "events", events, asked=(*EVENT_FILTERS, "limit")),
    *twins("/ui/webhooks", "webhooks", webhooks, Scope.ADMIN),
    *twins("/ui/keys", "keys", all_keys, Scope.ADMIN),
    *twins("/ui/audit", "audit", audit, Scope.ADMIN, asked=("limit", "before")),
]
