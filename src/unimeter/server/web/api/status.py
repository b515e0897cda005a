"""GET /v1/status: the node about itself and its cluster, as `unimeter status` shows it."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from unimeter.keys import Scope
from unimeter.server.web.answers import answer, rows, wanted_form
from unimeter.server.web.api import params
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint
from unimeter.version import VERSION
from unimeter.wire.messages import HEARD_NEVER, ClusterStatus, ClusterStatusReply, NodeStatus

NODE_COLUMNS: Final = (
    "node",
    "role",
    "membership",
    "client_address",
    "peer_address",
    "heard_ms",
    "term",
    "last_index",
    "commit",
    "applied",
    "match",
    "lag",
    "disk_free_bytes",
    "disk_used_bytes",
    "hash_index",
    "state_hash",
    "version",
)


def node_cells(one: NodeStatus) -> list[Any]:
    """The cells of one node; null for what the answering node does not know."""
    return [
        one.node_id,
        one.role.name.lower(),
        one.membership.name.lower(),
        one.client_address or None,
        one.peer_address or None,
        None if one.heard_ms == HEARD_NEVER else one.heard_ms,
        one.term,
        one.last_index,
        one.commit,
        one.applied,
        one.match,
        one.lag,
        one.disk_free_bytes,
        one.disk_used_bytes,
        one.hash_index,
        one.state_hash.hex() if one.hash_index else None,
        one.version,
    ]


def status_json(reply: ClusterStatusReply, position: int) -> dict[str, Any]:
    """The members of the answer."""
    return {
        "node": reply.node_id,
        "leader": reply.leader or None,
        "cluster_id": reply.cluster_id.hex(),
        "version": VERSION,
        "uptime_seconds": reply.uptime_ns // 10**9,
        "position": position,
        "events": reply.log_offset + 1,
        "segments": reply.segments,
        "nodes": [dict(zip(NODE_COLUMNS, node_cells(one), strict=True)) for one in reply.nodes],
        "statistics": reply.statistics,
    }


async def status(call: Call) -> Response:
    """The node, its cluster, its counters."""
    reply, position = await call.site.gateway.ask(ClusterStatus(), call.principal)
    assert isinstance(reply, ClusterStatusReply)
    if wanted_form(call) != "json":
        return rows(call, NODE_COLUMNS, map(node_cells, reply.nodes), position=position)
    return answer(status_json(reply, position), position)


_INTEGER: Final = {"type": ["integer", "string", "null"]}
_STATUS: Final = {
    "type": "object",
    "required": ["node", "leader", "nodes", "statistics"],
    "properties": {
        "node": {"type": "integer"},
        "leader": _INTEGER,
        "cluster_id": {"type": "string"},
        "version": {"type": "string"},
        "nodes": {"type": "array", "items": {"type": "object"}},
        "statistics": {"type": "object", "additionalProperties": _INTEGER},
    },
}

ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/status",
        status,
        Scope.READ,
        "The node and its cluster",
        "Who leads, who lags, how much disk is left. In CSV and NDJSON: one row a node.",
        "cluster",
        (params.FORMAT,),
        answers={200: _STATUS},
    ),
]
