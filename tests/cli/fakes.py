"""A meter in a few dozen lines, for verbs that are tested without a node.

It keeps events by id as a node does (stored, duplicate, conflict), refuses what
it is told to refuse, and can break off after a number of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unimeter.errors import AlreadyExistsError, NotFoundError
from unimeter.types import Event, IngestResult, MetricSchema, Outcome, Refusal
from unimeter.wire.messages import ClusterStatusReply, NodeRole, NodeStatus


@dataclass
class FakeMetrics:
    """The catalog."""

    schemas: list[MetricSchema] = field(default_factory=list)

    def list(self) -> list[MetricSchema]:
        """Every metric."""
        return self.schemas

    def get(self, code: str) -> MetricSchema:
        """One metric."""
        for schema in self.schemas:
            if schema.code == code:
                return schema
        raise NotFoundError(f"no metric {code!r}")

    def create(self, schema: MetricSchema) -> None:
        """Add a metric."""
        if any(known.code == schema.code for known in self.schemas):
            raise AlreadyExistsError(f"there is already a metric {schema.code!r}")
        self.schemas.append(schema)

    put = create


@dataclass
class FakeMeter:
    """What `ingest` talks to."""

    unknown: frozenset[str] = frozenset()  # metric codes to refuse
    batches_left: int | None = None  # then KeyboardInterrupt, before the batch is stored
    loses_reply_of: int | None = None  # this batch is stored, and then KeyboardInterrupt
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    stored: dict[tuple[object, str, str | None], Event] = field(default_factory=dict)
    cluster_id: bytes = b"\1" * 16
    batches: int = 0
    sizes: list[int] = field(default_factory=list)

    def __enter__(self) -> FakeMeter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ingest(self, events: Sequence[Event]) -> IngestResult:
        """Store a batch."""
        if self.batches_left is not None:
            if self.batches_left == 0:
                raise KeyboardInterrupt
            self.batches_left -= 1
        self.batches += 1
        self.sizes.append(len(events))
        outcomes = [self._store(event) for event in events]
        if self.batches == self.loses_reply_of:
            raise KeyboardInterrupt
        refusals = [
            Refusal(index, outcome, outcome.name.lower().replace("_", " "))
            for index, outcome in enumerate(outcomes)
            if not outcome.counted
        ]
        return IngestResult(
            outcomes.count(Outcome.STORED),
            outcomes.count(Outcome.DUPLICATE),
            len(self.stored),
            len(refusals),
            outcomes=outcomes,
            refusals=refusals,
        )

    def _store(self, event: Event) -> Outcome:
        if event.metric_code in self.unknown:
            return Outcome.UNKNOWN_METRIC
        key = (event.account_id, event.metric_code, event.id)
        known = self.stored.get(key)
        if known is None:
            self.stored[key] = event
            return Outcome.STORED
        return Outcome.DUPLICATE if known == event else Outcome.CONFLICT

    def total(self, account: object = 1) -> int:
        """The sum of an account's values."""
        return sum(e.value for e in self.stored.values() if e.account_id == account)


def node_status(node: int, **changes: object) -> NodeStatus:
    """A node as it should be: a follower that votes and has everything; node 2 leads."""
    usual: dict[str, object] = {
        "client_address": f"10.0.0.{node}:7001",
        "peer_address": f"10.0.0.{node}:7101",
        "role": NodeRole.LEADER if node == 2 else NodeRole.FOLLOWER,
        "heard_ms": 0 if node == 2 else 300,
        "term": 4,
        "last_index": 900,
        "commit": 900,
        "applied": 900,
        "match": 900,
        "disk_free_bytes": 80 * 2**30,
        "disk_used_bytes": 4 * 2**20,
        "hash_index": 896,
        "state_hash": b"\5" * 16,
        "version": "0.1.0",
    }
    return NodeStatus(node, **{**usual, **changes})  # type: ignore[arg-type]


def cluster_status(*nodes: NodeStatus, leader: int = 2) -> ClusterStatusReply:
    """What node 2 says of a cluster of these nodes, by default of three that are well."""
    found = list(nodes) or [node_status(node) for node in (1, 2, 3)]
    return ClusterStatusReply(
        2, len(found), 900, 1, 0, 1, cluster_id=b"\xab" * 16, leader=leader, nodes=found
    )


@dataclass
class FakeCluster:
    """A client of a cluster: what `status` and `transfer-leader` talk to."""

    answers: list[ClusterStatusReply | Exception] = field(
        default_factory=lambda: [cluster_status()]
    )
    transfers: list[int] = field(default_factory=list)
    refusal: Exception | None = None  # of a transfer

    @property
    def cluster(self) -> FakeCluster:
        """Where the methods are reached."""
        return self

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def status(self, *, timeout: float | None = None) -> ClusterStatusReply:
        """The next answer; the last one again and again."""
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    def transfer_leader(self, node_id: int = 0, *, timeout: float | None = None) -> None:
        """Note who is asked to lead; the next answers say that it does."""
        if self.refusal is not None:
            raise self.refusal
        self.transfers.append(node_id)
        self.answers = [cluster_status(leader=node_id or 3)]
