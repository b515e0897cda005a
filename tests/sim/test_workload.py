"""The clients of a run: their plans, and that they go through them against a real server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

from unimeter.engine.schema_rules import check_change, check_schema
from unimeter.errors import InvalidInputError
from unimeter.server.platform import Platform
from unimeter.server.server import Server
from unimeter.sim.auditor import Auditor
from unimeter.sim.chance import Chance
from unimeter.sim.client_checks import ClientChecks
from unimeter.sim.clients import SdkClient
from unimeter.sim.events import MARK
from unimeter.sim.history import History
from unimeter.sim.old_client import row_of
from unimeter.sim.plans import Ask, Burst, Change, Plan, Send
from unimeter.sim.schemas import TEMPORARY, draw_catalog, draw_growth, draw_refusal
from unimeter.sim.workload import START_NS, Workload, WorkloadOptions
from unimeter.types import AggType, Event, PeriodType
from unimeter.wire import v1
from unimeter.wire.messages import AuditList, Ingest, KeyList, PutMode, Read, WebhookList

ALL_KINDS = ("admin", "writer", "reader", "subscriber", "old")

OF_ADMINISTRATION = (KeyList, WebhookList, AuditList)
"""Not asked in the fake world, where a key would lock the clients out: see `test_admin_model`."""


def workload_of(seed: int, **options: Any) -> Workload:
    history = History(lambda: 0)
    given = WorkloadOptions(**{"kinds": ALL_KINDS, **options})
    return Workload(Chance(seed), history, ["10.0.0.1:7001", "10.0.0.2:7001"], given)


def batches_of(plan: Plan) -> Iterator[list[Event]]:
    for step in plan.steps:
        if isinstance(step, Send):
            yield step.events
        elif isinstance(step, Burst):
            yield from step.batches


def events_of(workload: Workload) -> Iterator[Event]:
    for client in workload.clients:
        for batch in batches_of(client.plan):
            yield from batch


# --- plans ----------------------------------------------------------------------------------


def test_a_plan_follows_from_the_seed_alone() -> None:
    one, same, other = workload_of(1), workload_of(1), workload_of(2)
    assert [client.plan for client in one.clients] == [client.plan for client in same.clients]
    assert [client.plan for client in one.clients] != [client.plan for client in other.clients]


def test_one_more_client_leaves_the_plans_of_the_others_alone() -> None:
    few, more = workload_of(1, kinds=ALL_KINDS[:2]), workload_of(1)
    assert [client.plan for client in few.clients] == [client.plan for client in more.clients[:2]]


def test_there_is_always_an_admin_and_a_writer() -> None:
    met: Counter[str] = Counter()
    for seed in range(30):
        kinds = [client.plan.kind for client in workload_of(seed, kinds=(), clients=5).clients]
        assert kinds[:2] == ["admin", "writer"] and len(kinds) == 5
        met.update(kinds)
    assert sorted(met) == sorted(ALL_KINDS)


def test_a_mark_belongs_to_one_event_whoever_sends_it() -> None:
    for seed in range(10):
        known: dict[str, Event] = {}
        for event in events_of(workload_of(seed)):
            mark = event.properties[MARK]
            first = known.setdefault(mark, event)
            assert (first.id, first.account_id, first.metric_code) == (
                (event.id, event.account_id, event.metric_code)
            )
            assert (first.value, first.timestamp, first.properties, first.operation_type) == (
                (event.value, event.timestamp, event.properties, event.operation_type)
            )


def test_what_is_sent_again_has_an_id_or_is_never_counted_twice_for_another_reason() -> None:
    again = 0
    for seed in range(10):
        sent: Counter[str] = Counter()
        for event in events_of(workload_of(seed)):
            mark = event.properties[MARK]
            if sent[mark]:
                again += 1
                assert event.id is not None and event.metric_code != TEMPORARY
            sent[mark] += 1
    assert again > 50


def test_batches_have_everything_that_they_should() -> None:
    met: Counter[str] = Counter()
    for seed in range(10):
        bodies: dict[tuple[object, ...], set[str]] = {}
        workload = workload_of(seed)
        for client in workload.clients:
            met.update(f"batch of {len(batch)}" for batch in batches_of(client.plan))
        for event in events_of(workload):
            met["id" if event.id else "no id"] += 1
            met["timed" if event.timestamp else "untimed"] += 1
            met["late"] += event.timestamp is not None and event.timestamp_ns() < START_NS - 10**14
            met["future"] += event.timestamp_ns() > START_NS + 10**14
            met[f"operation {int(event.operation_type)}"] += 1
            met["huge id"] += len(event.id or "") > 64
            met["string account"] += isinstance(event.account_id, str)
            if event.id:
                key = (event.account_id, event.metric_code, event.id)
                bodies.setdefault(key, set()).add(event.properties[MARK])
        met["same id, other body"] += sum(len(marks) > 1 for marks in bodies.values())
        for step in (step for client in workload.clients for step in client.plan.steps):
            met[type(step).__name__] += 1
            if isinstance(step, Ask):
                met[type(step.request).__name__] += 1
                met["linearizable"] += step.request.linearizable
            if isinstance(step, Change):
                met[step.mode.name] += 1
    wanted = [
        *("id", "no id", "timed", "untimed", "late", "future", "huge id", "string account"),
        *("operation 1", "operation 2", "same id, other body", "linearizable", "batch of 1"),
        *("Send", "Burst", "Ask", "Change", "Remove", "Transfer", "Look", "Listen", "Rest"),
        *(kind.__name__ for kind in Read.__args__ if kind not in OF_ADMINISTRATION),  # type: ignore[attr-defined]
        *(mode.name for mode in PutMode),
    ]
    assert [name for name in wanted if not met[name]] == []
    assert any(met[f"batch of {size}"] for size in range(40, 201))


def test_metrics_have_every_aggregation_and_period_and_follow_the_rules() -> None:
    for seed in range(40):
        catalog = draw_catalog(Chance(seed))
        schemas = [catalog.schema(code) for code in catalog.codes()]
        for schema in schemas:
            check_schema(schema)
        assert {schema.agg_type for schema in schemas} == set(AggType)
        assert {schema.period_type for schema in schemas} == set(PeriodType)
        assert catalog.schema("seats").recurring and not catalog.schema("users").recurring


def test_growth_keeps_a_metric_s_history_and_a_refusal_would_not() -> None:
    grown = 0
    for seed in range(40):
        chance = Chance(seed)
        for schema in draw_catalog(chance).stable.values():
            larger = draw_growth(chance, schema, "more")
            check_schema(larger)
            check_change(schema, larger)
            grown += larger != schema
            try:
                check_change(schema, draw_refusal(chance, schema))
            except InvalidInputError:
                continue
            raise AssertionError(f"{schema} may change that way")
    assert grown > 300


def test_what_version_1_sends_can_be_written_in_version_1() -> None:
    for seed in range(10):
        client = workload_of(seed).clients[4]
        for batch in [*batches_of(client.plan), client.plan.closing]:
            v1.encode_request(Ingest([row_of(event) for event in batch]))
        for step in client.plan.steps:
            if isinstance(step, Ask):
                v1.encode_request(step.request)


# --- against a real server ---------------------------------------------------------------


class Watching(Platform):
    """The real machine, with an auditor that is shown each entry, and a clock near 2026."""

    watches = True
    time_ns = staticmethod(lambda: START_NS + 2 * 10**9)

    def __init__(self) -> None:
        self.auditor = Auditor()

    def counted(self, node: Any, entry: Any, applied: Any) -> None:
        if self.auditor.position == 0:  # a start replays the first entry before anybody looks
            (first,) = node.replica.log.entries(1, 2, 0)
            self._show(first)
        self._show(entry)

    def _show(self, entry: Any) -> None:
        self.auditor.committed(entry.index, entry.term, entry.kind, entry.timestamp_ns, entry.body)


class Stage:
    """A server, a workload and its checks, on a real loop."""

    def __init__(self, seed: int, kinds: tuple[str, ...], calls: int) -> None:
        self.platform = Watching()
        self.seed, self.kinds, self.calls = seed, kinds, calls
        self.errors: list[BaseException] = []

    async def __aenter__(self) -> Stage:
        self.server = Server(":memory:", port=0, http_port=0, platform=self.platform)
        await self.server.__aenter__()
        loop = asyncio.get_running_loop()
        self.history = History(lambda: int(loop.time() * 1e9))
        options = WorkloadOptions(calls=self.calls, seconds=0.2, nodes=1, kinds=self.kinds)
        address = [self.server.address]
        self.workload = Workload(Chance(self.seed), self.history, address, options)
        self.checks = ClientChecks(self.history, self.platform.auditor, may_be_damaged=False)
        for client in self.workload.clients:
            client.on_error = self.errors.append
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.__aexit__(None, None, None)

    def start(self, *clients: Any) -> None:
        for client in clients or self.workload.clients:
            client.start(asyncio.get_running_loop(), Watching.time_ns)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(60):
            while not condition() and not self.errors:
                await asyncio.sleep(0.01)
        if self.errors:
            raise self.errors[0]

    async def finish(self) -> None:
        """Through all plans, the last calls and the last checks."""
        self.workload.healed()
        self.checks.healed()
        await self.until(lambda: self.workload.is_done)
        self.workload.check_invariants()
        self.checks.at_end()


def test_all_kinds_of_clients_go_through_their_plans_and_every_promise_is_kept() -> None:
    async def main() -> Counter[str]:
        async with Stage(5, ALL_KINDS, 30) as stage:
            stage.start()
            await stage.finish()
            assert stage.history.open_calls() == []
            return stage.checks.counts

    counts = asyncio.run(main())
    wanted = ["STORED", "DUPLICATE", "CONFLICT", "UNKNOWN_METRIC", "DIMENSION_NOT_ALLOWED"]
    assert [name for name in wanted if not counts[f"events {name}"]] == []
    assert counts["alerts handed out"] > 10
    assert counts["drain: answer"] == 1
    assert counts["ingest: answer"] > 60
    assert counts["UsageQuery: answer"] > 10
    assert not [name for name in counts if name.endswith(("Error", "killed"))]


def test_a_client_that_is_killed_goes_on_with_its_plan_in_a_new_process() -> None:
    async def main() -> None:
        async with Stage(6, ("admin", "writer"), 25) as stage:
            stage.start()
            writer = stage.workload.clients[1]
            assert isinstance(writer, SdkClient)
            ingests = [0]
            stage.history.on_begin.append(
                lambda call: ingests.__setitem__(0, ingests[0] + (call.client == "c2"))
            )
            await stage.until(lambda: ingests[0] > 5)
            place, sdk, task = writer.place, writer.sdk, writer._task
            began = len(stage.history.calls)
            writer.killed()
            assert all(call.client != "c2" for call in stage.history.open_calls())
            assert task is not None
            task.cancel()  # on a fake loop nothing of it would be called any more
            await asyncio.gather(task, return_exceptions=True)
            await sdk.close()
            assert all(call.client != "c2" for call in stage.history.calls[began:])
            stage.start(writer)
            assert writer.process == 2 and writer.place == place and writer.sdk is not sdk
            await stage.finish()
            processes = Counter(c.process for c in stage.history.calls if c.client == "c2")
            assert processes[1] > 0 and processes[2] > 0

    asyncio.run(main())
