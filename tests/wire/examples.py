"""One example of every message, told as one small story.

The pages ``docs/reference/wire-v1.md`` and ``wire-v2.md`` show these bytes, and
``test_docs_hex.py`` holds page and code together. Account 42 calls an API; a
prepaid balance belongs to the account "acme".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from unimeter.control import Actor, AuditRecord, Delivery, Webhook, WebhookRecord
from unimeter.keys import KeyRecord, Scope
from unimeter.types import (
    AccountTotal,
    AggType,
    AggValue,
    AlertThreshold,
    DimensionFilter,
    Direction,
    EventRecord,
    MetricSchema,
    OperationType,
    PeriodType,
    Resolution,
    from_ns,
)
from unimeter.wire import framer, v1, v2
from unimeter.wire import messages as m
from unimeter.wire.failures import status_of
from unimeter.wire.messages import PacketType as P

MARCH = 1_772_323_200_000_000_000  # 2026-03-01T00:00:00Z
APRIL = 1_775_001_600_000_000_000  # 2026-04-01T00:00:00Z
NOON = MARCH + 12 * 3_600_000_000_000
DAY = 86_400_000_000_000
ADDRESS = "127.0.0.1:7001"
SESSION = {"session_hi": 0x0123456789ABCDEF, "session_lo": 0xFEDCBA9876543210, "sequence": 1}


@dataclass(frozen=True)
class Example:
    """A whole frame. `fields` names its payload's bytes: "label:size" joined by commas."""

    caption: str
    version: int
    direction: str  # request, response or push
    packet_type: int
    message: Any
    position: int = 0
    request_id: int = 1
    status: int = 0
    fields: str = ""
    repeat: str = ""

    @property
    def module(self) -> Any:
        return v1 if self.version == 1 else v2

    def encode(self) -> bytes:
        """The payload."""
        if self.direction == "request":
            kind, payload = self.module.encode_request(self.message)
            assert kind == self.packet_type
        elif self.direction == "response":
            payload = self.module.encode_response(self.packet_type, self.message, self.position)
        else:
            kind, payload = self.module.encode_push(self.message, self.position)
            assert kind == self.packet_type
        return payload

    def decode(self, payload: bytes) -> Any:
        """The message that `payload` holds."""
        if self.direction == "request":
            return self.module.decode_request(self.packet_type, payload)
        if self.direction == "response":
            status = self.status or status_of(self.message)
            return self.module.decode_response(self.packet_type, status, payload)[1]
        return self.module.decode_push(self.packet_type, payload)[1]

    def frame(self) -> bytes:
        """Header and payload."""
        payload = self.encode()
        if self.direction == "request":
            return framer.request_frame(self.version, self.packet_type, self.request_id, payload)
        if self.direction == "push":
            return framer.push_frame(self.version, self.packet_type, payload)
        status = self.status or status_of(self.message)
        return framer.response_frame(self.version, status, self.request_id, payload)


def request(version: int, message: Any, caption: str, fields: str = "") -> Example:
    kind = (v1 if version == 1 else v2).encode_request(message)[0]
    return Example(caption, version, "request", kind, message, fields=fields)


def response(
    version: int, kind: int, message: Any, caption: str, fields: str = "", **rest: Any
) -> Example:
    return Example(
        caption,
        version,
        "response",
        kind,
        message,
        0 if version == 1 else 17,
        fields=fields,
        **rest,
    )


KEY = KeyRecord("aaaabbbbcccc", "portal", (Scope.READ,), b"\1" * 32, b"\2" * 32, "acme")
HOOK = WebhookRecord(
    "wh_aaaabbbbcccc", "https://example.com/hook", "whsec_" + "A" * 43 + "=", ("acme",)
)
HELD = Webhook(
    WebhookRecord(HOOK.id, HOOK.url, HOOK.secret, HOOK.accounts, start=2, created_ns=NOON),
    Delivery(through=2, updated_ns=NOON),
)
SHOWN = Webhook(
    WebhookRecord(HOOK.id, HOOK.url, "", HOOK.accounts, start=2, created_ns=NOON),
    Delivery(4, (6,), {5: (3, NOON)}, 3, "status 503", 0, NOON),
)
ROUTES = [m.PartitionRoute(ADDRESS, [ADDRESS])] * 256
CLUSTER_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
NODES = [
    m.NodeStatus(
        1,
        "10.0.0.1:7001",
        "10.0.0.1:7101",
        m.NodeRole.LEADER,
        m.Membership.VOTER,
        heard_ms=0,
        term=1,
        last_index=17,
        commit=17,
        applied=17,
        match=17,
        disk_free_bytes=10**9,
        disk_used_bytes=2**26,
        hash_index=16,
        state_hash=bytes.fromhex("5eed") * 8,
        version="0.1.0",
    ),
    m.NodeStatus(3, "10.0.0.3:7001", "10.0.0.3:7101", heard_ms=4200, match=9, lag=8),
]
PARTITIONS = [m.PartitionStatus(1, 17, 2, 1)] * 256
TOTAL = AggValue(sum=700, count=2, max=500, last_value=200, last_timestamp=NOON, min=200)
V1_TOTAL = AggValue(sum=700, count=2, max=500, last_value=200, last_timestamp=NOON)
ALERT = m.AlertRow(2, 42, "tokens", "soft", 700, NOON)
BALANCE = m.AlertRow(
    9, "acme", "credits", "low", -50, NOON, 3, Direction.FALLING, period_start_ns=MARCH
)
TOKENS = MetricSchema(
    "tokens",
    AggType.SUM,
    period_type=PeriodType.CALENDAR,
    filters=[DimensionFilter("model", ["large", "small"])],
    thresholds=[AlertThreshold("soft", 600)],
)
CREDITS = MetricSchema(
    "credits",
    AggType.SUM,
    field_name="credits",
    period_type=PeriodType.FIXED,
    period=timedelta(days=73_000),
    resolution=Resolution.HOUR,
    filters=[DimensionFilter("reason")],
    thresholds=[AlertThreshold("low", 100, True, Direction.FALLING)],
)
EVENT_FIELDS = "metric code:64,account:8,timestamp:8,value:8,operation:1,property count:1,padding:6"
VALUE_FIELDS = "sum low:8,sum high:8,count:8,max:8,last value:8,last timestamp:8,alert flags:8"
ALERT_FIELDS = (
    "offset:8,account:8,metric code:64,threshold code:32,value at the crossing:8,"
    "event timestamp:8,padding:8"
)
METRIC_FIELDS = "metric code:64,aggregation:1,recurring:1,filter count:1,padding:1,field name:64"
FILTER_FIELDS = "key:32,value count:1,padding:3,value 1:32,value 2 to 8:224"
QUERY_FIELDS = "account:8,start:8,end:8,metric code:64"

EXAMPLES = [
    request(
        1,
        m.Ingest(
            [
                m.IngestRow(42, "tokens", 500, NOON, 0, (("model", "large"),)),
                m.IngestRow(42, "tokens", 200),
            ],
            is_sync=True,
        ),
        "INGEST_SYNC request, two events and one property",
        f"event count:4,property count:4,{EVENT_FIELDS},{EVENT_FIELDS},key:32,value:64",
    ),
    response(
        1,
        P.INGEST_SYNC,
        m.IngestReply(2, 0, 2),
        "INGEST_SYNC response",
        "stored:4,duplicates:4,last offset:8",
    ),
    request(1, m.PartitionMap(), "GET_PARTITION_MAP request"),
    response(
        1,
        P.GET_PARTITION_MAP,
        m.PartitionMapReply(ROUTES),
        "GET_PARTITION_MAP response",
        "leader:24,replica:24,replica:24,padding:24",
        repeat="96 x 255",
    ),
    Example(
        "PARTITION_MAP_UPDATE push",
        1,
        "push",
        P.PARTITION_MAP_UPDATE,
        m.PartitionMapReply(ROUTES),
        fields="leader:24,replica:24,replica:24,padding:24",
        repeat="96 x 255",
    ),
    request(
        1,
        m.MetricPut(TOKENS),
        "METRIC_PUT request",
        f"{METRIC_FIELDS},key:32,value count:1,padding:3,value 1:32,value 2:32,value 3 to 8:192,"
        "threshold count:1,padding:7,threshold code:32,threshold value:8,recurring:1,padding:7,"
        "period type:1,cycle day:1,padding:6",
    ),
    response(1, P.METRIC_PUT, m.Done(), "METRIC_PUT response"),
    request(1, m.MetricDelete("tokens"), "METRIC_DELETE request", "metric code:64"),
    request(1, m.MetricList(), "METRIC_LIST request"),
    response(
        1,
        P.METRIC_LIST,
        m.MetricListReply([MetricSchema("api_calls", AggType.COUNT, field_name="calls")]),
        "METRIC_LIST response, one metric",
        METRIC_FIELDS,
    ),
    request(
        1,
        m.UsageQuery(42, "tokens", MARCH, APRIL, {"model": ["large"]}),
        "USAGE_QUERY request, one filter",
        f"{QUERY_FIELDS},filter count:1,padding:7,{FILTER_FIELDS}",
    ),
    response(1, P.USAGE_QUERY, m.UsageReply(V1_TOTAL), "USAGE_QUERY response", VALUE_FIELDS),
    request(1, m.UsageRealtime(42, "tokens"), "USAGE_REALTIME request", "account:8,metric code:64"),
    request(
        1, m.EventsList(42, None, MARCH, APRIL), "EVENTS_LIST request", "account:8,since:8,until:8"
    ),
    response(
        1,
        P.EVENTS_LIST,
        m.EventsListReply(
            [
                EventRecord(
                    42, "tokens", 500, OperationType.NONE, from_ns(NOON), 1, timestamp_ns=NOON
                )
            ]
        ),
        "EVENTS_LIST response, one event",
        "offset:8,timestamp:8,account:8,metric code:64,value:8,operation:1,padding:7",
    ),
    request(
        1, m.AlertsList(account=42), "ALERTS_LIST request", "account (0 = all):8,since offset:8"
    ),
    response(
        1,
        P.ALERTS_LIST,
        m.AlertsListReply([ALERT]),
        "ALERTS_LIST response, one alert",
        ALERT_FIELDS,
    ),
    request(1, m.AlertPushEnable(), "ALERT_PUSH_ENABLE request"),
    Example(
        "ALERT_PUSH push",
        1,
        "push",
        P.ALERT_PUSH,
        m.AlertPush(ALERT, 1),
        fields=f"{ALERT_FIELDS},node id:1,padding:7",
    ),
    request(
        1,
        m.Breakdown(42, "tokens", MARCH, APRIL, ["model"]),
        "USAGE_QUERY_BREAKDOWN request, one key",
        f"{QUERY_FIELDS},key count:1,padding:7,key:32",
    ),
    response(
        1,
        P.USAGE_QUERY_BREAKDOWN,
        m.BreakdownReply([m.BreakdownRow([("model", "large")], V1_TOTAL)]),
        "USAGE_QUERY_BREAKDOWN response, one row",
        "key count:1,padding:7,key 1:32,key 2 to 4:96,value 1:32,value 2 to 4:96," + VALUE_FIELDS,
    ),
    request(1, m.ClusterStatus(), "CLUSTER_STATUS request"),
    response(
        1,
        P.CLUSTER_STATUS,
        m.ClusterStatusReply(1, 1, 17, 1, 3, 60_000_000_000, PARTITIONS),
        "CLUSTER_STATUS response",
        "node id:1,nodes:1,padding:6,log offset:8,segments:8,aggregate keys:8,uptime in ns:8,"
        "term of partition 0:4,commit (low 16 bits):2,role:1,leader:1",
        repeat="8 x 255",
    ),
    response(
        1,
        P.USAGE_QUERY,
        m.ErrorReply(m.ErrorCode.INTERNAL, "refused without a reason"),
        "a refusal",
    ),
    response(
        1,
        P.METRIC_PUT,
        m.ErrorReply(m.ErrorCode.REDIRECT, "10.0.0.2:7001"),
        "a redirect",
        "leader:24",
    ),
    # --- version 2 ---
    request(
        2,
        m.Hello(1, 2, m.Feature.SESSIONS | m.Feature.ALERT_POSITIONS, "unimeter-python/1.0"),
        "HELLO request",
    ),
    response(
        2,
        P.HELLO,
        m.HelloReply(
            2, 1, bytes.fromhex("00112233445566778899aabbccddeeff"), server="unimeter/1.0"
        ),
        "HELLO response",
    ),
    request(
        2,
        m.Ingest(
            [
                m.IngestRow(42, "tokens", 500, NOON, 0, (("model", "large"),), "call-1"),
                m.IngestRow("acme", "credits", -200, NOON, 0, (("model", "large"),), None),
                m.IngestRow(42, "seats", 7, NOON, 2, (), "seat-7"),
            ],
            **SESSION,
        ),
        "INGEST_SYNC request, three events with every column",
    ),
    request(
        2,
        m.Ingest([m.IngestRow(42, "api_calls", 1), m.IngestRow(43, "api_calls", 1)], **SESSION),
        "INGEST_SYNC request, two events with no optional column",
    ),
    response(
        2,
        P.INGEST_SYNC,
        m.IngestReply(1, 1, 5, 1, [(0, 1), (1, 1), (20, 1)]),
        "INGEST_SYNC response: stored, duplicate, unknown metric",
    ),
    request(2, m.PartitionMap(), "GET_PARTITION_MAP request"),
    response(2, P.GET_PARTITION_MAP, m.PartitionMapReply(ROUTES), "GET_PARTITION_MAP response"),
    Example(
        "PARTITION_MAP_UPDATE push",
        2,
        "push",
        P.PARTITION_MAP_UPDATE,
        m.PartitionMapReply(ROUTES),
        17,
    ),
    request(2, m.MetricPut(CREDITS, m.PutMode.CREATE), "METRIC_PUT request"),
    response(2, P.METRIC_PUT, m.Done(), "METRIC_PUT response"),
    request(2, m.MetricDelete("credits"), "METRIC_DELETE request"),
    request(2, m.MetricList(limit=100, min_position=17), "METRIC_LIST request"),
    response(2, P.METRIC_LIST, m.MetricListReply([CREDITS]), "METRIC_LIST response, one metric"),
    request(
        2,
        m.UsageQuery(
            "acme", "tokens", MARCH, APRIL, {"model": ["large", "small"]}, min_position=17
        ),
        "USAGE_QUERY request, one filter with two values",
    ),
    response(2, P.USAGE_QUERY, m.UsageReply(TOTAL, MARCH, APRIL), "USAGE_QUERY response"),
    request(2, m.UsageRealtime(42, "tokens", linearizable=True), "USAGE_REALTIME request"),
    request(
        2,
        m.EventsList(42, "tokens", MARCH, APRIL, limit=100, cursor=b"\x01\x02"),
        "EVENTS_LIST request, a further page",
    ),
    response(
        2,
        P.EVENTS_LIST,
        m.EventsListReply(
            [
                EventRecord(
                    42,
                    "tokens",
                    500,
                    OperationType.NONE,
                    from_ns(NOON),
                    1,
                    {"model": "large"},
                    "call-1",
                    NOON,
                )
            ],
            cursor=b"\x03\x04",
        ),
        "EVENTS_LIST response, one event and a further page",
    ),
    request(2, m.AlertsList(account="acme", after=2, limit=100), "ALERTS_LIST request"),
    response(2, P.ALERTS_LIST, m.AlertsListReply([BALANCE]), "ALERTS_LIST response, one alert"),
    request(
        2, m.AlertPushEnable(2, ["acme"], ["credits"]), "ALERT_PUSH_ENABLE request, from position 2"
    ),
    response(2, P.ALERT_PUSH_ENABLE, m.AlertPushReply(2), "ALERT_PUSH_ENABLE response"),
    Example("ALERT_PUSH push", 2, "push", P.ALERT_PUSH, m.AlertPush(BALANCE, 1), 17),
    request(
        2,
        m.Watch(["acme"], ["credits"], after=2, entry=17),
        "WATCH request, going on behind 2.17",
    ),
    response(2, P.WATCH, m.WatchReply(2, 17), "WATCH response"),
    Example(
        "TOTAL_PUSH push, a total",
        2,
        "push",
        P.TOTAL_PUSH,
        m.TotalPush(
            m.TotalPushKind.TOTAL, 3, 18, "acme", "credits", AggType.SUM, MARCH, APRIL, TOTAL
        ),
        18,
    ),
    Example(
        "TOTAL_PUSH push, read again",
        2,
        "push",
        P.TOTAL_PUSH,
        m.TotalPush(m.TotalPushKind.OVERFLOW, 3, 19),
        19,
    ),
    request(
        2,
        m.Breakdown(42, "tokens", MARCH, APRIL, ["model"]),
        "USAGE_QUERY_BREAKDOWN request, one key",
    ),
    response(
        2,
        P.USAGE_QUERY_BREAKDOWN,
        m.BreakdownReply([m.BreakdownRow([("model", "large")], TOTAL)]),
        "USAGE_QUERY_BREAKDOWN response, one row",
    ),
    request(2, m.Accounts("tokens", MARCH, APRIL, limit=1), "ACCOUNTS_LIST request"),
    response(
        2,
        P.ACCOUNTS_LIST,
        m.AccountsReply([AccountTotal(42, TOTAL)], b"\x2a"),
        "ACCOUNTS_LIST response, one account and a further page",
    ),
    request(
        2,
        m.Series(42, "tokens", MARCH, APRIL, m.Window.DAY, "Europe/Berlin"),
        "USAGE_SERIES request",
    ),
    response(
        2,
        P.USAGE_SERIES,
        m.SeriesReply([m.SeriesRow(MARCH, MARCH + DAY, TOTAL)]),
        "USAGE_SERIES response, one window",
    ),
    request(2, m.Members(42, "seats", NOON), "MEMBERS_LIST request"),
    response(2, P.MEMBERS_LIST, m.MembersReply([7, 9]), "MEMBERS_LIST response, two members"),
    request(2, m.ClusterStatus(), "CLUSTER_STATUS request"),
    response(
        2,
        P.CLUSTER_STATUS,
        m.ClusterStatusReply(
            1, 3, 17, 1, 3, 60_000_000_000, PARTITIONS, {"events": 5}, CLUSTER_ID, 1, NODES
        ),
        "CLUSTER_STATUS response",
    ),
    request(2, m.TransferLeader(2), "TRANSFER_LEADER request"),
    response(2, P.TRANSFER_LEADER, m.Done(), "TRANSFER_LEADER response"),
    response(
        2,
        P.TRANSFER_LEADER,
        m.ErrorReply(m.ErrorCode.INVALID_INPUT, "no node 9 in this cluster"),
        "TRANSFER_LEADER to a node that does not exist",
    ),
    request(2, m.KeyPut(KEY), "KEY_PUT request"),
    response(2, P.KEY_PUT, m.Done(), "KEY_PUT response"),
    request(2, m.KeyRevoke(KEY.id), "KEY_REVOKE request"),
    request(2, m.KeyList(min_position=17), "KEY_LIST request"),
    response(
        2,
        P.KEY_LIST,
        m.KeyListReply(
            [KeyRecord(KEY.id, KEY.name, KEY.scopes, b"", b"", KEY.account, None, NOON)]
        ),
        "KEY_LIST response, one key",
    ),
    request(2, m.WebhookPut(HOOK), "WEBHOOK_PUT request"),
    response(2, P.WEBHOOK_PUT, m.WebhookPutReply(HELD), "WEBHOOK_PUT response"),
    request(2, m.WebhookDelete(HOOK.id), "WEBHOOK_DELETE request"),
    request(2, m.WebhookList(linearizable=True), "WEBHOOK_LIST request"),
    response(2, P.WEBHOOK_LIST, m.WebhookListReply([SHOWN]), "WEBHOOK_LIST response, one webhook"),
    request(2, m.WebhookControl(HOOK.id, m.WebhookAction.REPLAY, 2), "WEBHOOK_CONTROL request"),
    request(2, m.AuditList(limit=1), "AUDIT_LIST request"),
    response(
        2,
        P.AUDIT_LIST,
        m.AuditListReply(
            [
                AuditRecord(
                    16,
                    NOON,
                    Actor("ddddeeeeffff", "operations", "binary", "10.0.0.9"),
                    "key.put",
                    KEY.id,
                    "done",
                )
            ],
            more=True,
        ),
        "AUDIT_LIST response, one line and more before it",
    ),
    response(
        2,
        P.INGEST_SYNC,
        m.ErrorReply(m.ErrorCode.NOT_LEADER, "no leader is known", 100),
        "no leader",
    ),
    response(
        2,
        P.USAGE_QUERY,
        m.ErrorReply(m.ErrorCode.NOT_FOUND, "no metric 'tokens'"),
        "a refusal",
    ),
    response(
        2,
        P.INGEST_SYNC,
        m.ErrorReply(m.ErrorCode.BACKPRESSURE, "disk space is low", 250),
        "backpressure",
    ),
]
