"""What can be said on the wire: requests, responses, error codes.

Owns the nouns between transport and node, for both protocol versions and for
the embedded engine, which builds the same requests and gets the same
responses without any bytes in between. Refuses to know how a message is
written (``v1``, ``v2``) and what it means (the handlers).

    client call ──> Request ──encode──> frame ──decode──> Request ──> handler
    SDK object  <── Response <─decode── frame <─encode── Response <──┘

Rules that hold for every message:

- Time is integer nanoseconds since 1970 UTC; ranges are half-open.
- An account is an int (unsigned 64-bit) or a str.
- A `cursor` is opaque bytes: ``b""`` asks for the first page, and ``b""`` in a
  response says that nothing follows.
- Alert positions number the alerts from 1 without gaps; `after` names the last
  one already seen, so 0 means "from the first".
- A change of what administrators make has an `actor`, which the server sets from who is
  logged in; it is never taken from a client.
- Reads carry `min_position`, the highest log position the caller has seen: the
  node answers only once it has applied that far. `linearizable` asks for a
  confirmation by the quorum before the answer.

Rejected: one class per message and version. What v1 can't carry has a default
here, so a handler never asks which version a request came in.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from unimeter import limits
from unimeter.control import Actor, AuditRecord, Webhook, WebhookRecord
from unimeter.errors import InvalidInputError
from unimeter.keys import KeyRecord
from unimeter.types import (
    Account,
    AccountTotal,
    AggType,
    AggValue,
    AlertRecord,
    Direction,
    EventRecord,
    IngestResult,
    Membership,
    MetricSchema,
    Outcome,
    Refusal,
    from_ns,
)


class PacketType(enum.IntEnum):
    """The second header field. From HELLO on and above 0x36: v2 only, but CLUSTER_STATUS."""

    INGEST_ASYNC = 0x00
    INGEST_SYNC = 0x01
    GET_PARTITION_MAP = 0x10
    PARTITION_MAP_UPDATE = 0x11  # pushed by the server
    HELLO = 0x12  # v2
    METRIC_PUT = 0x20
    METRIC_DELETE = 0x21
    METRIC_LIST = 0x22
    USAGE_QUERY = 0x30
    USAGE_REALTIME = 0x31
    EVENTS_LIST = 0x32
    ALERTS_LIST = 0x33
    ALERT_PUSH_ENABLE = 0x34
    ALERT_PUSH = 0x35  # pushed by the server
    USAGE_QUERY_BREAKDOWN = 0x36
    ACCOUNTS_LIST = 0x37  # v2
    USAGE_SERIES = 0x38  # v2
    MEMBERS_LIST = 0x39  # v2
    CLUSTER_STATUS = 0x40
    TRANSFER_LEADER = 0x41  # v2
    WATCH = 0x3A  # v2
    TOTAL_PUSH = 0x3B  # v2, pushed by the server
    KEY_PUT = 0x50  # this and what follows: v2
    KEY_REVOKE = 0x51
    KEY_LIST = 0x52
    WEBHOOK_PUT = 0x53
    WEBHOOK_DELETE = 0x54
    WEBHOOK_LIST = 0x55
    WEBHOOK_CONTROL = 0x56
    AUDIT_LIST = 0x57
    ON_BEHALF = 0x5F  # between nodes: a request, and whose it is


class Status(enum.IntEnum):
    """The first byte of a response."""

    OK = 0
    DUPLICATE = 1  # v1 ingest: all events were duplicates
    ERROR = 2
    UNKNOWN_METRIC = 3  # v1 ingest: some events were refused for it
    REDIRECT = 4
    NOT_LEADER = 5
    BACKPRESSURE = 6


class ErrorCode(enum.IntEnum):
    """Why a request was refused (u16). v2 sends it with a text; v1 only a status."""

    NONE = 0
    MALFORMED = 1  # the payload contradicts itself
    TOO_LARGE = 2  # over FRAME_BYTES_MAX or EVENTS_PER_BATCH_MAX; drained, go on
    UNSUPPORTED = 3  # a packet type or version this node does not know
    INVALID_INPUT = 4  # a value breaks a rule; the text says which
    NOT_FOUND = 5  # no such metric
    ALREADY_EXISTS = 6  # a metric of that code exists and may not change this way
    RANGE_UNAVAILABLE = 7  # an exact answer needs events that retention removed
    SESSION_EXPIRED = 8  # this session is not known any more
    SEQUENCE_TOO_OLD = 9  # further back than the remembered replies
    BACKPRESSURE = 10  # disk or memory short: wait `retry_after_ms`
    NOT_LEADER = 11  # ask again soon: no leader known
    REDIRECT = 12  # the text is the leader's host:port
    UNAUTHENTICATED = 13  # no key, or one that is not known or was revoked
    SHUTTING_DOWN = 14  # nothing of the request was done
    INTERNAL = 15  # the node failed; see its log
    OUTCOME_UNKNOWN = 16  # forwarded, and the leader was lost before it replied
    FORBIDDEN = 17  # the key's scope, account or metric does not cover this


class ProtocolError(InvalidInputError):
    """The peer's bytes break the protocol. `code` is what to answer."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.MALFORMED) -> None:
        super().__init__(message)
        self.code = code


class PutMode(enum.IntEnum):
    """What METRIC_PUT may do with a code that is, or is not, in the catalog."""

    PUT = 0  # create, or change compatibly
    CREATE = 1  # fail if there is one already
    UPDATE = 2  # fail if there is none


class Window(enum.IntEnum):
    """The step of a time series."""

    HOUR = 0
    DAY = 1
    WEEK = 2
    MONTH = 3


class Feature(enum.IntFlag):
    """What a node can do beyond the plain protocol (u32 in HELLO)."""

    NONE = 0
    SESSIONS = 1
    ALERT_POSITIONS = 2


class WebhookAction(enum.IntEnum):
    """What WEBHOOK_CONTROL does."""

    PAUSE = 0
    RESUME = 1
    REPLAY = 2  # go on after the position given, whatever was delivered before


class NodeRole(enum.IntEnum):
    """What a node does in its group, as the answering node knows it."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    UNREACHABLE = 3  # nothing was heard from it for too long to say


# --- requests ----------------------------------------------------------------


@dataclass(slots=True)
class IngestRow:
    """One event as it travels: time in ns (0 = not given), repeated keys still visible."""

    account: Account
    metric_code: str
    value: int
    timestamp_ns: int = 0
    operation: int = 0
    properties: tuple[tuple[str, str], ...] = ()
    id: str | None = None


@dataclass(slots=True)
class Ingest:
    """A batch. A session of (0, 0) means none: then a retry may be counted twice.

    `default_timestamp_ns` is what events without a timestamp get; 0 leaves it to the node.
    """

    rows: list[IngestRow]
    session_hi: int = 0
    session_lo: int = 0
    sequence: int = 0
    is_sync: bool = True
    default_timestamp_ns: int = 0


@dataclass(slots=True)
class Hello:
    """The first message of a v2 connection: which versions and features I speak."""

    version_min: int = 1
    version_max: int = 2
    features: Feature = Feature.NONE
    client: str = ""  # name and release, for the node's log
    token: bytes = field(default=b"", repr=False)  # the API key; empty = none


@dataclass(slots=True)
class PartitionMap:
    """Ask who leads which partition."""


@dataclass(slots=True)
class MetricPut:
    """Create a metric or change it compatibly."""

    schema: MetricSchema
    mode: PutMode = PutMode.PUT
    actor: Actor | None = None


@dataclass(slots=True)
class MetricDelete:
    """Delete a metric and free its code."""

    code: str
    actor: Actor | None = None


@dataclass(slots=True)
class MetricList:
    """List metrics in full, in the order of creation."""

    cursor: bytes = b""
    limit: int = limits.PAGE_ITEMS_MAX
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class UsageQuery:
    """A total over ``[start_ns, end_ns)``. A filter lets any of its values in."""

    account: Account
    metric_code: str
    start_ns: int
    end_ns: int
    filters: dict[str, list[str]] = field(default_factory=dict)
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class UsageRealtime:
    """The total of the current billing period."""

    account: Account
    metric_code: str
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class EventsList:
    """Stored events of an account, by offset; `metric_code` None = of every metric."""

    account: Account
    metric_code: str | None
    since_ns: int
    until_ns: int
    cursor: bytes = b""
    limit: int = limits.PAGE_ITEMS_MAX
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class AlertsList:
    """Alerts after a position. v1 resumes by event offset instead (`since_offset`)."""

    account: Account | None = None
    metric_code: str | None = None
    after: int = 0
    limit: int = limits.PAGE_ITEMS_MAX
    since_offset: int = 0  # only alerts whose event has this offset or a higher one
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class AlertPushEnable:
    """Push alerts after a position (None = from now on), missed ones first.

    Empty `accounts` or `metrics` = of every account, of every metric.
    """

    after: int | None = None
    accounts: list[Account] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Watch:
    """Push alerts and changed totals; empty `accounts` or `metrics` = all.

    `after` and `entry` are the place to go on from (see `WatchReply`); `after` alone is an
    alert's position, and totals begin anew.
    """

    accounts: list[Account] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    alerts: bool = True
    totals: bool = True
    after: int | None = None
    entry: int | None = None
    interval_ms: int = 0


@dataclass(slots=True)
class Breakdown:
    """Totals per combination of the values of `keys`."""

    account: Account
    metric_code: str
    start_ns: int
    end_ns: int
    keys: list[str]
    filters: dict[str, list[str]] = field(default_factory=dict)
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class Accounts:
    """Every account of a metric with its total: the invoice run."""

    metric_code: str
    start_ns: int
    end_ns: int
    cursor: bytes = b""
    limit: int = limits.PAGE_ITEMS_MAX
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class Series:
    """Totals per window of a range; an empty `zone` means UTC."""

    account: Account
    metric_code: str
    start_ns: int
    end_ns: int
    window: Window = Window.DAY
    zone: str = ""
    filters: dict[str, list[str]] = field(default_factory=dict)
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class Members:
    """The members of a COUNT_UNIQUE metric that are active at `at_ns`."""

    account: Account
    metric_code: str
    at_ns: int
    cursor: bytes = b""
    limit: int = limits.PAGE_ITEMS_MAX
    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class ClusterStatus:
    """Ask a node about itself and the others."""


@dataclass(slots=True)
class TransferLeader:
    """Hand leadership to a node; 0 = to any that is up to date."""

    node_id: int = 0
    actor: Actor | None = None


@dataclass(slots=True)
class KeyPut:
    """Keep a key: its record, made by whoever made the key. An equal one is no change."""

    record: KeyRecord
    actor: Actor | None = None


@dataclass(slots=True)
class KeyRevoke:
    """Let a key open nothing any more."""

    id: str
    actor: Actor | None = None


@dataclass(slots=True)
class KeyList:
    """List the keys, in the order of creation, without their hashes."""

    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class WebhookPut:
    """Create a webhook. An equal one is no change."""

    record: WebhookRecord
    actor: Actor | None = None


@dataclass(slots=True)
class WebhookDelete:
    """Delete a webhook, and how far it had come."""

    id: str
    actor: Actor | None = None


@dataclass(slots=True)
class WebhookList:
    """List the webhooks, in the order of creation, without their secrets."""

    min_position: int = 0
    linearizable: bool = False


@dataclass(slots=True)
class WebhookControl:
    """Pause, resume or replay. `after` is for REPLAY, `reason` for PAUSE."""

    id: str
    action: WebhookAction
    after: int = 0
    reason: str = ""
    actor: Actor | None = None


@dataclass(slots=True)
class AuditList:
    """The trail, newest first: records of entries before `before` (0 = from the newest on)."""

    before: int = 0
    limit: int = 100
    min_position: int = 0
    linearizable: bool = False


Request = (
    Ingest
    | Hello
    | PartitionMap
    | MetricPut
    | MetricDelete
    | MetricList
    | UsageQuery
    | UsageRealtime
    | EventsList
    | AlertsList
    | AlertPushEnable
    | Watch
    | Breakdown
    | Accounts
    | Series
    | Members
    | ClusterStatus
    | TransferLeader
    | KeyPut
    | KeyRevoke
    | KeyList
    | WebhookPut
    | WebhookDelete
    | WebhookList
    | WebhookControl
    | AuditList
)

Administration = KeyPut | KeyRevoke | WebhookPut | WebhookDelete | WebhookControl
"""Requests that change what administrators make: an ADMIN entry of the log."""

WithActor = Administration | MetricPut | MetricDelete | TransferLeader
"""Requests of which the trail says who made them."""

Read = (
    UsageQuery
    | UsageRealtime
    | EventsList
    | AlertsList
    | MetricList
    | Breakdown
    | Accounts
    | Series
    | Members
    | KeyList
    | WebhookList
    | AuditList
)
"""Requests that change nothing; each has `min_position` and `linearizable`."""

# --- responses ---------------------------------------------------------------


@dataclass(slots=True)
class ErrorReply:
    """The request was refused; nothing of it was done. For REDIRECT, `text` is the address."""

    code: ErrorCode
    text: str = ""
    retry_after_ms: int = 0


@dataclass(slots=True)
class Done:
    """METRIC_PUT, METRIC_DELETE, TRANSFER_LEADER: done, at the position in the reply."""


@dataclass(slots=True)
class IngestReply:
    """What became of a batch, as runs of (outcome, how many events in a row)."""

    stored: int
    duplicates: int
    last_offset: int
    refused: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)
    is_remembered: bool = False  # the reply of an earlier send of the same sequence
    is_incomplete: bool = False  # the outcomes after the last run are not known

    def result(self, position: int = 0) -> IngestResult:
        """The SDK's object, with one outcome per event."""
        outcomes: list[Outcome] = []
        for outcome, length in self.runs:
            outcomes.extend([Outcome(outcome)] * length)
        refusals = [
            Refusal(index, outcome, outcome.name.lower().replace("_", " "))
            for index, outcome in enumerate(outcomes)
            if not outcome.counted
        ]
        return IngestResult(
            n_stored=self.stored,
            n_duplicates=self.duplicates,
            last_offset=self.last_offset,
            n_refused=self.refused,
            position=position,
            outcomes=outcomes,
            refusals=refusals,
        )


@dataclass(slots=True)
class HelloReply:
    """The version to go on with, who the node is, and its limits."""

    version: int
    node_id: int
    cluster_id: bytes  # 16 bytes
    features: Feature = Feature.SESSIONS | Feature.ALERT_POSITIONS
    frame_bytes_max: int = limits.FRAME_BYTES_MAX
    events_per_batch_max: int = limits.EVENTS_PER_BATCH_MAX
    page_items_max: int = limits.PAGE_ITEMS_MAX
    session_window: int = limits.SESSION_WINDOW
    key_window_days: int = limits.KEY_WINDOW_DAYS
    session_keep_seconds: int = limits.SESSION_KEEP_SECONDS
    server: str = ""  # name and release


@dataclass(slots=True)
class PartitionRoute:
    """Where one partition lives: ``host:port`` of its leader and of its replicas."""

    leader: str
    replicas: list[str] = field(default_factory=list)


@dataclass(slots=True)
class PartitionMapReply:
    """One route per partition, PARTITION_COUNT of them. Also pushed when it changes."""

    routes: list[PartitionRoute]


@dataclass(slots=True)
class MetricListReply:
    """Metrics in full."""

    metrics: list[MetricSchema]
    cursor: bytes = b""


@dataclass(slots=True)
class UsageReply:
    """A total and the range it answers for (the current period for UsageRealtime)."""

    value: AggValue
    start_ns: int = 0
    end_ns: int = 0


@dataclass(slots=True)
class EventsListReply:
    """Stored events; `EventRecord.timestamp_ns` is exact, `timestamp` cut to microseconds."""

    events: list[EventRecord]
    cursor: bytes = b""


@dataclass(slots=True)
class AlertRow:
    """One crossing. `offset` is the event's that crossed, `position` the alert's own."""

    offset: int
    account: Account
    metric_code: str
    threshold_code: str
    value: int  # the total at the crossing
    timestamp_ns: int  # of the event
    position: int = 0
    direction: Direction = Direction.RISING
    period_start_ns: int = 0

    def record(self, node_addr: str = "") -> AlertRecord:
        """The SDK's object."""
        return AlertRecord(
            node_addr=node_addr,
            log_offset=self.offset,
            account_id=self.account,
            metric_code=self.metric_code,
            threshold_code=self.threshold_code,
            value_at_cross=self.value,
            triggered_at=from_ns(self.timestamp_ns),
            position=self.position,
            direction=self.direction,
            period_start=from_ns(self.period_start_ns),
        )


@dataclass(slots=True)
class AlertsListReply:
    """Alerts by position. `more` says that a further page follows the last one's position."""

    alerts: list[AlertRow]
    more: bool = False


@dataclass(slots=True)
class AlertPushReply:
    """The subscription stands: alerts after position `after` will be pushed."""

    after: int


@dataclass(slots=True)
class AlertPush:
    """One alert, pushed by node `node_id`."""

    alert: AlertRow
    node_id: int = 0


@dataclass(slots=True)
class WatchReply:
    """The stream goes on behind this place: alerts above `after`, totals changed since `entry`.

    `entry` 0: with the totals of every pair that it names.
    """

    after: int
    entry: int


class TotalPushKind(enum.IntEnum):
    """What a push of a stream of totals says."""

    TOTAL = 0
    OVERFLOW = 1  # more totals changed than were kept: read them again
    PLACE = 2  # nothing but where the stream stands


@dataclass(slots=True)
class TotalPush:
    """The total of a pair in its current billing period, and the place that holds now."""

    kind: TotalPushKind
    after: int
    entry: int
    account: Account = 0
    metric_code: str = ""
    agg_type: AggType = AggType.COUNT
    start_ns: int = 0
    end_ns: int = 0
    value: AggValue = field(default_factory=AggValue)


@dataclass(slots=True)
class BreakdownRow:
    """One combination: (key, value) pairs in the order asked for, and its total."""

    pairs: list[tuple[str, str]]
    value: AggValue


@dataclass(slots=True)
class BreakdownReply:
    """One row per combination that has events."""

    rows: list[BreakdownRow]


@dataclass(slots=True)
class AccountsReply:
    """One row per account that has events in the range."""

    accounts: list[AccountTotal]
    cursor: bytes = b""


@dataclass(slots=True)
class SeriesRow:
    """One window, ``[start_ns, end_ns)``."""

    start_ns: int
    end_ns: int
    value: AggValue


@dataclass(slots=True)
class SeriesReply:
    """Every window of the range in order, empty ones too."""

    rows: list[SeriesRow]


@dataclass(slots=True)
class MembersReply:
    """Members (the values that the events carried), in ascending order."""

    members: list[int]
    cursor: bytes = b""


@dataclass(slots=True)
class KeyListReply:
    """The keys, revoked ones too; their `verifier` and `portal_secret` are empty."""

    keys: list[KeyRecord]


@dataclass(slots=True)
class WebhookPutReply:
    """The webhook as it is kept, with its secret: the only reply that shows it."""

    webhook: Webhook


@dataclass(slots=True)
class WebhookListReply:
    """The webhooks; their `secret` is empty."""

    webhooks: list[Webhook]


@dataclass(slots=True)
class AuditListReply:
    """Records, newest first. `more` says that older ones follow."""

    records: list[AuditRecord]
    more: bool = False


@dataclass(slots=True)
class PartitionStatus:
    """One partition as this node sees it; `role` 0 follower, 1 candidate, 2 leader."""

    term: int
    commit: int
    role: int
    leader: int


HEARD_NEVER = 2**32 - 1  # `heard_ms` of a node that was never heard from


@dataclass(slots=True)
class NodeStatus:
    """One node of the cluster as the answering node knows it; 0 and "" = not known."""

    node_id: int
    client_address: str = ""
    peer_address: str = ""
    role: NodeRole = NodeRole.UNREACHABLE
    membership: Membership = Membership.VOTER
    heard_ms: int = HEARD_NEVER  # since it was last heard from; 0 for the answering node itself
    term: int = 0
    last_index: int = 0
    commit: int = 0
    applied: int = 0
    match: int = 0  # up to where its log agrees with the leader's; only the leader knows
    lag: int = 0  # entries
    disk_free_bytes: int = 0
    disk_used_bytes: int = 0
    hash_index: int = 0  # where the replicas' states were last compared
    state_hash: bytes = bytes(16)  # of its state at that index
    version: str = ""  # of its software


@dataclass(slots=True)
class ClusterStatusReply:
    """A node about itself and its cluster. What follows `partitions` is only carried by v2."""

    node_id: int
    node_count: int
    log_offset: int
    segments: int
    aggregate_keys: int
    uptime_ns: int
    partitions: list[PartitionStatus] = field(default_factory=list)
    statistics: dict[str, int] = field(default_factory=dict)
    cluster_id: bytes = bytes(16)
    leader: int = 0  # node id; 0 = none is known
    nodes: list[NodeStatus] = field(default_factory=list)


Response = (
    ErrorReply
    | Done
    | IngestReply
    | HelloReply
    | PartitionMapReply
    | MetricListReply
    | UsageReply
    | EventsListReply
    | AlertsListReply
    | AlertPushReply
    | WatchReply
    | BreakdownReply
    | AccountsReply
    | SeriesReply
    | MembersReply
    | ClusterStatusReply
    | KeyListReply
    | WebhookPutReply
    | WebhookListReply
    | AuditListReply
)

Push = AlertPush | TotalPush | PartitionMapReply
