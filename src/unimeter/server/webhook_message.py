"""What a webhook sends: the id, the body, the headers of one alert.

    POST /hooks HTTP/1.1
    content-type: application/json
    user-agent: unimeter/1.2.0
    webhook-id: alert_0011223344556677_17       for ever this alert's, at every attempt
    webhook-timestamp: 1795689000               when this attempt is made
    webhook-signature: v1,...                   of the three

    {"type":"alert.crossed","timestamp":"2026-11-05T10:29:59Z","data":{...as /v1/alerts has it}}

Id and body follow from the log alone, so each attempt, on whichever node, sends the same.
Half of the cluster's id stands in the id, for positions of two clusters are the same numbers.
"""

from __future__ import annotations

from typing import Any

import msgspec

from unimeter.control import WebhookRecord
from unimeter.engine.alert_log import AlertLine
from unimeter.instants import format_ns
from unimeter.server.web.alert_cells import alert_object
from unimeter.server.web.answers import exact
from unimeter.version import VERSION
from unimeter.webhooks import ALERT_TYPE, TEST_TYPE, signed_headers

CLUSTER_ID_BYTES = 8
USER_AGENT = f"unimeter/{VERSION}"

_encode = msgspec.json.Encoder().encode


def alert_id(cluster_id: bytes, position: int) -> str:
    """The id of an alert's message."""
    return f"alert_{cluster_id[:CLUSTER_ID_BYTES].hex()}_{position}"


def alert_body(line: AlertLine) -> bytes:
    """The body of an alert's message."""
    return _body(ALERT_TYPE, line.timestamp_ns, alert_object(line))


def trial_message(webhook_id: str, now_ns: int) -> tuple[str, bytes]:
    """Id and body of a message that an administrator sends to see whether it arrives."""
    body = _body(TEST_TYPE, now_ns, {"webhook": webhook_id})
    return f"test_{webhook_id}_{now_ns}", body


def _body(kind: str, timestamp_ns: int, data: dict[str, Any]) -> bytes:
    body = {"type": kind, "timestamp": format_ns(timestamp_ns), "data": exact(data)}
    return _encode(body)


def headers(record: WebhookRecord, ident: str, seconds: int, body: bytes) -> dict[str, str]:
    """All headers of one attempt, made at `seconds`."""
    return {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        **signed_headers(record.secret, ident, seconds, body),
    }
