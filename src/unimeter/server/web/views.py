"""The data of each view of the dashboard: its twins ``.json`` and ``.csv``.

Owns what a view shows, and nothing of how: the page's module asks for the JSON twin and draws
it, so what a page shows and what its twin says can't differ. The CSV twin is the view's main
table. Questions go through `gateway`, as for `/v1`, and values are written by the same
functions, so the numbers are those of the API.

    /ui/accounts/acme.json ─ Twin ─ body            /ui/accounts/acme.csv ─ columns and lines

A name that itself ends in ``.json`` or ``.csv`` has its page at ``?page=1``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from unimeter.instants import format_ns
from unimeter.keys import Scope
from unimeter.server.web import answers
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Param
from unimeter.server.web.pages import send_page, view_of
from unimeter.wire import messages as m


@dataclass(frozen=True)
class Twin:
    """A view's data: all of it, and its main table."""

    body: dict[str, Any]
    columns: Sequence[str]
    lines: Iterable[Sequence[Any]]
    position: int | None = None
    cursor: str = ""


def table(
    columns: Sequence[str],
    lines: Iterable[Sequence[Any]],
    position: int | None = None,
    cursor: str = "",
    **more: Any,
) -> Twin:
    """A view that is a table: its body has the rows, and `more`."""
    kept = [list(line) for line in lines]
    body = {"rows": [dict(zip(columns, line, strict=True)) for line in kept], **more}
    if cursor:
        body["cursor"] = cursor
    return Twin(body, columns, kept, position, cursor)


Make = Callable[[Call], Awaitable[Twin]]


def twins(
    path: str,
    view: str,
    make: Make,
    scope: Scope = Scope.READ,
    params: tuple[Param, ...] = (),
    *,
    takes_portal: bool = False,
) -> list[Endpoint]:
    """The two routes of a view's data."""
    page, has_name = view_of(view), path.endswith("}")

    def handler(form: str) -> Callable[[Call], Awaitable[Response]]:
        async def answer(call: Call) -> Response:
            if has_name and call.text("page", ""):
                return send_page(call, page)  # a name that ends like a twin
            twin = await make(call)
            if form == "csv":
                return answers.rows(
                    call, twin.columns, twin.lines,
                    position=twin.position, cursor=twin.cursor, form=form,
                )  # fmt: skip
            return answers.answer(twin.body, twin.position, headers={"Cache-Control": "no-store"})

        return answer

    return [
        Endpoint(
            "GET", f"{path}.{form}", handler(form), scope, f"{page.title}, as {form.upper()}",
            tag="dashboard", params=params, is_listed=False, takes_portal=takes_portal,
        )
        for form in ("json", "csv")
    ]  # fmt: skip


# --- overview ----------------------------------------------------------------------

NODE_COLUMNS: Final = (
    "node", "role", "membership", "address", "heard_ms", "term", "last_index", "commit", "applied",
    "lag", "disk_free_bytes", "disk_used_bytes", "version",
)  # fmt: skip


def _node_cells(one: m.NodeStatus) -> list[Any]:
    return [
        one.node_id,
        one.role.name.lower(),
        one.membership.name.lower(),
        one.client_address,
        None if one.heard_ms == m.HEARD_NEVER else one.heard_ms,
        one.term,
        one.last_index,
        one.commit,
        one.applied,
        one.lag,
        one.disk_free_bytes,
        one.disk_used_bytes,
        one.version,
    ]


async def overview(call: Call) -> Twin:
    """The cluster as this node knows it, and what went through it in the last minutes."""
    call.principal.check_sees(None, None)
    status, position = await call.site.gateway.ask(m.ClusterStatus(), call.principal)
    assert isinstance(status, m.ClusterStatusReply)
    node, history = call.site.server.node, call.site.history
    lines = [_node_cells(one) for one in status.nodes]
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


ENDPOINTS: Final = [
    *twins("/overview", "overview", overview),
]
