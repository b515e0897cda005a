"""Hypothesis strategies for every message of both versions."""

from __future__ import annotations

import string
from datetime import timedelta

from hypothesis import strategies as st

from unimeter.control import Actor, AuditRecord, Delivery, Webhook, WebhookRecord
from unimeter.keys import KeyRecord, Scope
from unimeter.types import (
    PARTITION_COUNT,
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
from unimeter.wire import messages as m

_CONTROLS = "".join(map(chr, [*range(32), 127]))
U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
I128 = st.integers(-(2**127), 2**127 - 1)
POSITION = U64
TEXT = st.text(max_size=20)  # at most 80 bytes of UTF-8
NAME = st.text(min_size=1, max_size=20)
ADDRESS = st.text(string.ascii_lowercase + string.digits + ".:", min_size=1, max_size=23)
ACCOUNT = st.one_of(U64, NAME)
CURSOR = st.binary(max_size=40)
READ = {"min_position": U64, "linearizable": st.booleans()}
PAGE = {"cursor": CURSOR, "limit": U32}
RANGE = {"start_ns": I64, "end_ns": I64}
FILTERS = st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=3)
PERIOD = st.none() | st.integers(1, 2**52).map(lambda n: timedelta(microseconds=n))

# One line of Unicode, as the texts of administration are.
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=_CONTROLS), max_size=20)
PLACE = st.integers(0, 2**53 - 1)
HASH = st.binary(min_size=32, max_size=32)
ACTOR = st.builds(Actor, key=LINE, name=LINE, via=LINE, address=LINE)
SCOPES = st.lists(st.sampled_from(Scope), max_size=3).map(tuple)


def _key(hashes: st.SearchStrategy[bytes]) -> st.SearchStrategy[KeyRecord]:
    return st.builds(
        KeyRecord,
        id=LINE,
        name=LINE,
        scopes=SCOPES,
        verifier=hashes,
        portal_secret=hashes,
        account=st.none() | ACCOUNT,
        metric=st.none() | TEXT,
        created_ns=U64,
        revoked_ns=U64,
    )


def _webhook(secrets: st.SearchStrategy[str]) -> st.SearchStrategy[WebhookRecord]:
    return st.builds(
        WebhookRecord,
        id=LINE,
        url=LINE,
        secret=secrets,
        accounts=st.lists(ACCOUNT, max_size=3).map(tuple),
        metrics=st.lists(TEXT, max_size=3).map(tuple),
        start=st.none() | PLACE,
        created_ns=U64,
        state=st.sampled_from(["active", "paused"]),
        paused_reason=LINE,
    )


DELIVERY = st.builds(
    Delivery,
    through=PLACE,
    done=st.lists(PLACE, max_size=3).map(tuple),
    attempts=st.dictionaries(PLACE, st.tuples(st.integers(0, 10**6), U64), max_size=3),
    failures=st.integers(0, 10**6),
    error=LINE,
    epoch=PLACE,
    updated_ns=U64,
)
ADMINISTRATION = st.one_of(
    st.builds(m.KeyPut, record=_key(HASH)),
    st.builds(m.KeyRevoke, id=LINE),
    st.builds(m.KeyList, **READ),
    st.builds(m.WebhookPut, record=_webhook(LINE)),
    st.builds(m.WebhookDelete, id=LINE),
    st.builds(m.WebhookList, **READ),
    st.builds(
        m.WebhookControl,
        id=LINE,
        action=st.sampled_from(m.WebhookAction),
        after=PLACE,
        reason=LINE,
    ),
    st.builds(m.AuditList, before=U64, limit=U64, **READ),
)
ADMINISTRATION_RESPONSE = st.one_of(
    st.tuples(
        st.just(m.PacketType.KEY_LIST),
        st.builds(m.KeyListReply, st.lists(_key(st.just(b"")), max_size=3)),
    ),
    st.tuples(
        st.just(m.PacketType.WEBHOOK_PUT),
        st.builds(m.WebhookPutReply, st.builds(Webhook, _webhook(LINE), DELIVERY)),
    ),
    st.tuples(
        st.just(m.PacketType.WEBHOOK_LIST),
        st.builds(
            m.WebhookListReply,
            st.lists(st.builds(Webhook, _webhook(st.just("")), DELIVERY), max_size=3),
        ),
    ),
    st.tuples(
        st.just(m.PacketType.AUDIT_LIST),
        st.builds(
            m.AuditListReply,
            st.lists(st.builds(AuditRecord, U64, U64, ACTOR, LINE, LINE, LINE), max_size=3),
            st.booleans(),
        ),
    ),
    st.tuples(
        st.sampled_from(
            [
                m.PacketType.KEY_PUT,
                m.PacketType.KEY_REVOKE,
                m.PacketType.WEBHOOK_DELETE,
                m.PacketType.WEBHOOK_CONTROL,
            ]
        ),
        st.just(m.Done()),
    ),
)

SCHEMA = st.builds(
    MetricSchema,
    code=TEXT,
    agg_type=st.sampled_from(AggType),
    recurring=st.booleans(),
    field_name=TEXT,
    period_type=st.sampled_from(PeriodType),
    billing_cycle_day=st.integers(0, 255),
    filters=st.lists(
        st.builds(DimensionFilter, key=TEXT, values=st.lists(TEXT, max_size=3)), max_size=3
    ),
    thresholds=st.lists(
        st.builds(
            AlertThreshold,
            code=TEXT,
            value=I64,
            recurring=st.booleans(),
            direction=st.sampled_from(Direction),
        ),
        max_size=3,
    ),
    period=PERIOD,
    zone=TEXT,
    resolution=st.sampled_from(Resolution),
)

VALUE = st.builds(
    AggValue,
    sum=I128,
    count=U64,
    max=I64,
    min=I64,
    last_value=I64,
    last_timestamp=I64,
    alert_flags=U64,
    unique=U64,
)

PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
INGEST_ROW = st.builds(
    m.IngestRow,
    account=ACCOUNT,
    metric_code=TEXT,
    value=I64,
    timestamp_ns=I64,
    operation=st.integers(0, 255),
    properties=PAIRS,
    id=st.none() | NAME,
)
INGEST = st.builds(
    m.Ingest,
    rows=st.lists(INGEST_ROW, max_size=8),
    session_hi=U64,
    session_lo=U64,
    sequence=U64,
    is_sync=st.booleans(),
)

V2_REQUEST = st.one_of(
    INGEST,
    st.builds(
        m.Hello,
        version_min=st.integers(0, 255),
        version_max=st.integers(0, 255),
        features=st.sampled_from([m.Feature.NONE, m.Feature.SESSIONS]),
        client=TEXT,
        token=st.binary(max_size=40),
    ),
    st.builds(m.PartitionMap),
    st.builds(m.MetricPut, schema=SCHEMA, mode=st.sampled_from(m.PutMode)),
    st.builds(m.MetricDelete, code=TEXT),
    st.builds(m.MetricList, **PAGE, **READ),
    st.builds(m.UsageQuery, account=ACCOUNT, metric_code=TEXT, filters=FILTERS, **RANGE, **READ),
    st.builds(m.UsageRealtime, account=ACCOUNT, metric_code=TEXT, **READ),
    st.builds(
        m.EventsList,
        account=ACCOUNT,
        metric_code=st.none() | NAME,
        since_ns=I64,
        until_ns=I64,
        **PAGE,
        **READ,
    ),
    st.builds(
        m.AlertsList,
        account=st.none() | ACCOUNT,
        metric_code=st.none() | NAME,
        after=U64,
        limit=U32,
        since_offset=U64,
        **READ,
    ),
    st.builds(
        m.AlertPushEnable,
        after=st.none() | U64,
        accounts=st.lists(ACCOUNT, max_size=3),
        metrics=st.lists(TEXT, max_size=3),
    ),
    st.builds(
        m.Watch,
        accounts=st.lists(ACCOUNT, max_size=3),
        metrics=st.lists(TEXT, max_size=3),
        alerts=st.just(value=True),
        totals=st.booleans(),
        after=st.none(),
        entry=st.none(),
        interval_ms=U32,
    ),
    st.builds(m.Watch, alerts=st.booleans(), after=U64, entry=st.none() | U64),
    st.builds(
        m.Breakdown,
        account=ACCOUNT,
        metric_code=TEXT,
        keys=st.lists(TEXT, max_size=3),
        filters=FILTERS,
        **RANGE,
        **READ,
    ),
    st.builds(m.Accounts, metric_code=TEXT, **RANGE, **PAGE, **READ),
    st.builds(
        m.Series,
        account=ACCOUNT,
        metric_code=TEXT,
        window=st.sampled_from(m.Window),
        zone=TEXT,
        filters=FILTERS,
        **RANGE,
        **READ,
    ),
    st.builds(m.Members, account=ACCOUNT, metric_code=TEXT, at_ns=I64, **PAGE, **READ),
    st.builds(m.ClusterStatus),
    st.builds(m.TransferLeader, node_id=st.integers(0, 255)),
    ADMINISTRATION,
)


def _event(offset: int, timestamp_ns: int, **rest: object) -> EventRecord:
    return EventRecord(
        offset=offset, timestamp=from_ns(timestamp_ns), timestamp_ns=timestamp_ns, **rest
    )


EVENT = st.builds(
    _event,
    offset=U64,
    timestamp_ns=I64,
    account_id=ACCOUNT,
    metric_code=TEXT,
    value=I64,
    operation_type=st.sampled_from(OperationType),
    properties=st.dictionaries(TEXT, TEXT, max_size=3),
    id=st.none() | NAME,
)
ALERT = st.builds(
    m.AlertRow,
    offset=U64,
    account=ACCOUNT,
    metric_code=TEXT,
    threshold_code=TEXT,
    value=I128,
    timestamp_ns=I64,
    position=U64,
    direction=st.sampled_from(Direction),
    period_start_ns=I64,
)
ROUTE = st.builds(m.PartitionRoute, leader=ADDRESS, replicas=st.lists(ADDRESS, max_size=2))
ROUTES = st.lists(ROUTE, min_size=1, max_size=4).map(
    lambda some: [some[i % len(some)] for i in range(PARTITION_COUNT)]
)
NODE = st.builds(
    m.NodeStatus,
    node_id=U16,
    client_address=TEXT,
    peer_address=TEXT,
    role=st.sampled_from(m.NodeRole),
    membership=st.sampled_from(m.Membership),
    heard_ms=U32,
    term=U64,
    last_index=U64,
    commit=U64,
    applied=U64,
    match=U64,
    lag=U64,
    disk_free_bytes=U64,
    disk_used_bytes=U64,
    hash_index=U64,
    state_hash=st.binary(min_size=16, max_size=16),
    version=TEXT,
)
PARTITIONS = st.lists(
    st.builds(
        m.PartitionStatus,
        term=U32,
        commit=U16,
        role=st.integers(0, 2),
        leader=st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
).map(lambda some: [some[i * len(some) // PARTITION_COUNT] for i in range(PARTITION_COUNT)])


def _breakdown(keys: list[str], rows: list[tuple[list[str], AggValue]]) -> m.BreakdownReply:
    return m.BreakdownReply(
        [m.BreakdownRow(list(zip(keys, values, strict=True)), total) for values, total in rows]
    )


BREAKDOWN = st.integers(1, 4).flatmap(
    lambda n: st.builds(
        _breakdown,
        st.lists(NAME, min_size=n, max_size=n, unique=True),
        st.lists(st.tuples(st.lists(TEXT, min_size=n, max_size=n), VALUE), max_size=3),
    )
)

V2_RESPONSE = st.one_of(
    ADMINISTRATION_RESPONSE,
    st.tuples(
        st.just(m.PacketType.INGEST_SYNC),
        st.builds(
            m.IngestReply,
            stored=U32,
            duplicates=U32,
            last_offset=U64,
            refused=U32,
            runs=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**24 - 1)), max_size=5),
            is_remembered=st.booleans(),
            is_incomplete=st.booleans(),
        ),
    ),
    st.tuples(
        st.just(m.PacketType.HELLO),
        st.builds(
            m.HelloReply,
            version=st.integers(0, 255),
            node_id=U16,
            cluster_id=st.binary(min_size=16, max_size=16),
            features=st.just(m.Feature.SESSIONS),
            frame_bytes_max=U32,
            events_per_batch_max=U32,
            page_items_max=U32,
            session_window=U16,
            key_window_days=U16,
            session_keep_seconds=U16,
            server=TEXT,
        ),
    ),
    st.tuples(
        st.just(m.PacketType.GET_PARTITION_MAP), st.builds(m.PartitionMapReply, routes=ROUTES)
    ),
    st.tuples(
        st.sampled_from([m.PacketType.METRIC_PUT, m.PacketType.METRIC_DELETE]), st.builds(m.Done)
    ),
    st.tuples(
        st.just(m.PacketType.METRIC_LIST),
        st.builds(m.MetricListReply, metrics=st.lists(SCHEMA, max_size=3), cursor=CURSOR),
    ),
    st.tuples(
        st.sampled_from([m.PacketType.USAGE_QUERY, m.PacketType.USAGE_REALTIME]),
        st.builds(m.UsageReply, value=VALUE, **RANGE),
    ),
    st.tuples(
        st.just(m.PacketType.EVENTS_LIST),
        st.builds(m.EventsListReply, events=st.lists(EVENT, max_size=3), cursor=CURSOR),
    ),
    st.tuples(
        st.just(m.PacketType.ALERTS_LIST),
        st.builds(m.AlertsListReply, alerts=st.lists(ALERT, max_size=3), more=st.booleans()),
    ),
    st.tuples(st.just(m.PacketType.ALERT_PUSH_ENABLE), st.builds(m.AlertPushReply, after=U64)),
    st.tuples(st.just(m.PacketType.WATCH), st.builds(m.WatchReply, after=U64, entry=U64)),
    st.tuples(st.just(m.PacketType.USAGE_QUERY_BREAKDOWN), BREAKDOWN),
    st.tuples(
        st.just(m.PacketType.ACCOUNTS_LIST),
        st.builds(
            m.AccountsReply,
            accounts=st.lists(st.builds(AccountTotal, ACCOUNT, VALUE), max_size=3),
            cursor=CURSOR,
        ),
    ),
    st.tuples(
        st.just(m.PacketType.USAGE_SERIES),
        st.builds(
            m.SeriesReply, rows=st.lists(st.builds(m.SeriesRow, I64, I64, VALUE), max_size=3)
        ),
    ),
    st.tuples(
        st.just(m.PacketType.MEMBERS_LIST),
        st.builds(m.MembersReply, members=st.lists(I64, max_size=5), cursor=CURSOR),
    ),
    st.tuples(
        st.just(m.PacketType.CLUSTER_STATUS),
        st.builds(
            m.ClusterStatusReply,
            node_id=U16,
            node_count=U16,
            log_offset=U64,
            segments=U32,
            aggregate_keys=U64,
            uptime_ns=U64,
            partitions=PARTITIONS,
            statistics=st.dictionaries(TEXT, I64, max_size=3),
            cluster_id=st.binary(min_size=16, max_size=16),
            leader=U16,
            nodes=st.lists(NODE, max_size=5),
        ),
    ),
    st.tuples(st.just(m.PacketType.TRANSFER_LEADER), st.builds(m.Done)),
)
ERROR = st.builds(m.ErrorReply, code=st.sampled_from(m.ErrorCode), text=TEXT, retry_after_ms=U32)
PUSH = st.one_of(
    st.builds(m.AlertPush, alert=ALERT, node_id=U16),
    st.builds(
        m.TotalPush,
        kind=st.just(m.TotalPushKind.TOTAL),
        after=U64,
        entry=U64,
        account=ACCOUNT,
        metric_code=TEXT,
        agg_type=st.sampled_from(AggType),
        start_ns=I64,
        end_ns=I64,
        value=VALUE,
    ),
    st.builds(
        m.TotalPush,
        kind=st.sampled_from([m.TotalPushKind.OVERFLOW, m.TotalPushKind.PLACE]),
        after=U64,
        entry=U64,
    ),
    st.builds(m.PartitionMapReply, routes=ROUTES),
)

# --- what version 1 can carry --------------------------------------------------------------

V1_NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8
)  # at most 32 bytes
V1_THRESHOLD = st.builds(
    AlertThreshold, code=V1_NAME, value=st.integers(0, 2**63 - 1), recurring=st.booleans()
)
V1_SCHEMA = st.builds(
    MetricSchema,
    code=V1_NAME,
    agg_type=st.sampled_from(list(AggType)[:5]),
    recurring=st.booleans(),
    field_name=V1_NAME,
    period_type=st.sampled_from(list(PeriodType)[:4]),
    billing_cycle_day=st.integers(1, 28),
    filters=st.lists(
        st.builds(DimensionFilter, key=V1_NAME, values=st.lists(V1_NAME, max_size=8)), max_size=3
    ),
    thresholds=st.lists(V1_THRESHOLD, max_size=3),
)
V1_ROW = st.builds(
    m.IngestRow,
    account=U64,
    metric_code=V1_NAME,
    value=U64,
    timestamp_ns=I64,
    operation=st.integers(0, 255),
    properties=st.lists(st.tuples(V1_NAME, V1_NAME), max_size=3).map(tuple),
)
V1_REQUEST = st.one_of(
    st.builds(m.Ingest, rows=st.lists(V1_ROW, max_size=6), is_sync=st.booleans()),
    st.builds(m.PartitionMap),
    st.builds(m.MetricPut, schema=V1_SCHEMA),
    st.builds(m.MetricDelete, code=V1_NAME),
    st.builds(m.MetricList),
    st.builds(
        m.UsageQuery,
        account=U64,
        metric_code=V1_NAME,
        filters=st.dictionaries(V1_NAME, st.lists(V1_NAME, min_size=1, max_size=1), max_size=3),
        **RANGE,
    ),
    st.builds(m.UsageRealtime, account=U64, metric_code=V1_NAME),
    st.builds(m.EventsList, account=U64, metric_code=st.none(), since_ns=I64, until_ns=I64),
    st.builds(m.AlertsList, account=st.none() | st.integers(1, 2**64 - 1), since_offset=U64),
    st.builds(m.AlertPushEnable),
    st.builds(
        m.Breakdown,
        account=U64,
        metric_code=V1_NAME,
        keys=st.lists(V1_NAME, min_size=1, max_size=4),
        **RANGE,
    ),
    st.builds(m.ClusterStatus),
)
V1_VALUE = st.builds(
    AggValue,
    sum=I128,
    count=U64,
    max=I64,
    last_value=I64,
    last_timestamp=I64,
    alert_flags=U64,
)
V1_EVENT = st.builds(
    _event,
    offset=U64,
    timestamp_ns=I64,
    account_id=U64,
    metric_code=V1_NAME,
    value=I64,
    operation_type=st.sampled_from(OperationType),
)
V1_ALERT = st.builds(
    m.AlertRow,
    offset=U64,
    account=U64,
    metric_code=V1_NAME,
    threshold_code=V1_NAME,
    value=I64,
    timestamp_ns=I64,
)
V1_BREAKDOWN = st.builds(
    m.BreakdownReply,
    st.lists(
        st.builds(m.BreakdownRow, st.lists(st.tuples(V1_NAME, V1_NAME), max_size=4), V1_VALUE),
        max_size=3,
    ),
)
V1_RESPONSE = st.one_of(
    st.tuples(
        st.just(m.PacketType.INGEST_ASYNC),
        st.builds(m.IngestReply, stored=U32, duplicates=U32, last_offset=U64),
    ),
    st.tuples(
        st.just(m.PacketType.GET_PARTITION_MAP), st.builds(m.PartitionMapReply, routes=ROUTES)
    ),
    st.tuples(st.just(m.PacketType.METRIC_PUT), st.builds(m.Done)),
    st.tuples(st.just(m.PacketType.USAGE_QUERY), st.builds(m.UsageReply, value=V1_VALUE)),
    st.tuples(
        st.just(m.PacketType.EVENTS_LIST),
        st.builds(m.EventsListReply, events=st.lists(V1_EVENT, max_size=3)),
    ),
    st.tuples(
        st.just(m.PacketType.ALERTS_LIST),
        st.builds(m.AlertsListReply, alerts=st.lists(V1_ALERT, max_size=3)),
    ),
    st.tuples(st.just(m.PacketType.USAGE_QUERY_BREAKDOWN), V1_BREAKDOWN),
    st.tuples(
        st.just(m.PacketType.CLUSTER_STATUS),
        st.builds(
            m.ClusterStatusReply,
            node_id=st.integers(0, 255),
            node_count=st.integers(0, 255),
            log_offset=U64,
            segments=U64,
            aggregate_keys=U64,
            uptime_ns=st.integers(0, 2**63 - 1),
            partitions=PARTITIONS,
        ),
    ),
)
V1_PUSH = st.one_of(
    st.builds(m.AlertPush, alert=V1_ALERT, node_id=st.integers(0, 255)),
    st.builds(m.PartitionMapReply, routes=ROUTES),
)
