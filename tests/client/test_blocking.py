"""`Client` against a server that fails on command: nothing lost, nothing counted twice."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from tests.client.fake_server import FakeServer, Memory

from unimeter import (
    AggType,
    AlreadyExistsError,
    BackpressureError,
    Client,
    ClientError,
    ConnectionError,
    DeadlineExceededError,
    Event,
    InvalidInputError,
    MetricSchema,
    NotFoundError,
    Outcome,
    Period,
    SessionExpiredError,
    current_month,
)
from unimeter.types import EventRecord, OperationType, to_ns
from unimeter.wire.messages import ErrorCode, ErrorReply, Hello

MONTH = current_month()


def test_the_five_lines_of_the_readme(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        client.metrics.create(MetricSchema("m", AggType.COUNT))
        client.ingest([Event(1, "m")])
        assert client.query(1, "m", MONTH).value.count == 1


def test_reply_lost_then_resend_is_answered_from_memory(fake: FakeServer) -> None:
    fake.memory.faults = ["drop", "drop"]
    with Client([fake.address]) as client:
        result = client.ingest([Event(1, "m", 5)])
    assert (result.n_stored, fake.total()) == (1, 5)
    sent = fake.ingests()
    assert len(sent) == 3
    assert len({(r.session_hi, r.session_lo, r.sequence) for r in sent}) == 1


def test_request_lost_before_it_was_carried_out_is_sent_again(fake: FakeServer) -> None:
    fake.memory.faults = ["refuse"]
    with Client([fake.address]) as client:
        assert client.ingest([Event(1, "m")]).n_stored == 1
    assert fake.total() == 1


def test_duplicate_reply_is_not_taken_for_the_next_one(fake: FakeServer) -> None:
    fake.memory.faults = ["twice"]
    with Client([fake.address]) as client:
        client.ingest([Event(1, "m", 3)])
        assert client.ingest([Event(1, "m", 4)]).position == 2
        assert client.query(1, "m", MONTH).value.sum == 7


def test_timestamp_is_set_once_before_the_first_attempt(fake: FakeServer) -> None:
    fake.memory.faults = ["refuse"]
    before = time.time_ns()
    with Client([fake.address]) as client:
        client.ingest([Event(1, "m")])
    first, second = fake.ingests()
    assert before <= first.default_timestamp_ns <= time.time_ns()
    assert first == second


def test_event_is_left_as_it_was(fake: FakeServer) -> None:
    event = Event(1, "m")
    with Client([fake.address]) as client:
        client.ingest([event])
    assert event == Event(1, "m")


def test_large_batch_is_split_and_its_outcomes_put_together(fake: FakeServer) -> None:
    events = [Event(1, "unknown" if i % 1000 == 7 else "m") for i in range(20_000)]
    with Client([fake.address]) as client:
        result = client.ingest(events)
    assert [len(r.rows) for r in fake.ingests()] == [8192, 8192, 3616]
    assert (result.n_stored, result.n_refused, result.n_duplicates) == (19_980, 20, 0)
    assert len(result.outcomes) == 20_000
    assert [r.index for r in result.refusals] == list(range(7, 20_000, 1000))
    assert "create it" in result.refusals[0].message
    assert (result.position, result.last_offset) == (3, 300)


def test_server_with_smaller_batches_gets_smaller_batches(fake: FakeServer) -> None:
    fake.memory.batch_max = 3
    with Client([fake.address]) as client:
        assert client.ingest([Event(i, "m") for i in range(7)]).n_stored == 7
    assert [len(r.rows) for r in fake.ingests()] == [3, 3, 1]


def test_backpressure_is_waited_out(fake: FakeServer) -> None:
    fake.memory.faults = [ErrorReply(ErrorCode.BACKPRESSURE, "disk low", 120)]
    with Client([fake.address]) as client:
        began = time.monotonic()
        assert client.ingest([Event(1, "m")]).n_stored == 1
    assert time.monotonic() - began >= 0.12
    assert fake.total() == 1


def test_backpressure_until_the_deadline_says_that_nothing_was_stored(fake: FakeServer) -> None:
    fake.memory.faults = [ErrorReply(ErrorCode.BACKPRESSURE, "disk low", 60_000)]
    with Client([fake.address]) as client, pytest.raises(BackpressureError) as caught:
        client.ingest([Event(1, "m")], timeout=1.0)
    assert caught.value.retryable and caught.value.retry_after == 60
    assert "nothing was stored" in str(caught.value)


def test_silent_server_ends_at_the_deadline_in_doubt(fake: FakeServer) -> None:
    fake.memory.faults = ["silent"] * 100
    with Client([fake.address], timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="may or may not be counted"):
            client.ingest([Event(1, "m")])
        assert 0.25 < time.monotonic() - began < 2.0
        assert client.query(1, "m", MONTH, timeout=5).value.count == 1


def test_no_server_says_that_nothing_was_done() -> None:
    with FakeServer() as gone:
        address = gone.address
    client = Client([address])
    with pytest.raises(ConnectionError, match="nothing was done") as caught:
        client.ingest([Event(1, "m")], timeout=0.2)
    assert address in str(caught.value) and caught.value.retryable
    with pytest.raises(OSError):
        client.connect(timeout=0.05)


def test_second_seed_is_used_when_the_first_is_gone(fake: FakeServer) -> None:
    with FakeServer() as gone:
        dead = gone.address
    with Client([dead, fake.address]) as client:
        assert client.ingest([Event(1, "m")]).n_stored == 1


def test_restarted_server_is_found_again_within_the_call() -> None:
    memory = Memory()
    server = FakeServer(memory)
    server.__enter__()
    with Client([server.address]) as client:
        client.ingest([Event(1, "m")])
        memory.faults = [lambda _: threading.Thread(target=server.stop).start(), "silent"]
        again: list[FakeServer] = []

        def restart() -> None:
            server.wait_for(lambda: len(server.ingests()) >= 2)
            server._thread.join(10)
            memory.faults = []
            again.append(FakeServer(memory, server.port).__enter__())

        helper = threading.Thread(target=restart)
        helper.start()
        assert client.ingest([Event(1, "m")]).n_stored == 1
        helper.join()
    assert memory.totals[(1, "m")] == 2 and memory.broken == []
    again[0].stop()


def test_idle_connection_that_was_closed_is_not_used(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        client.ingest([Event(1, "m")])
        fake.drop_connections()
        time.sleep(0.25)  # older than this an idle connection is looked at before use
        # Had the dead connection been used, this refusal would be one of an attempt in doubt.
        fake.memory.faults = [ErrorReply(ErrorCode.SESSION_EXPIRED, "who are you")]
        client.ingest([Event(1, "m")])
    assert fake.total() == 2


def test_session_expired_on_first_attempt_goes_on_in_a_new_session(fake: FakeServer) -> None:
    fake.memory.faults = [ErrorReply(ErrorCode.SESSION_EXPIRED, "who are you")]
    with Client([fake.address]) as client:
        assert client.ingest([Event(1, "m")]).n_stored == 1
        client.ingest([Event(1, "m")])
    first, second, third = fake.ingests()
    assert (first.session_hi, first.session_lo) != (second.session_hi, second.session_lo)
    assert (second.sequence, third.sequence) == (1, 2)
    assert third.session_lo == second.session_lo
    assert fake.total() == 2


def test_session_expired_in_doubt_is_the_callers_decision(fake: FakeServer) -> None:
    fake.memory.faults = ["drop", ErrorReply(ErrorCode.SESSION_EXPIRED, "who are you")]
    with Client([fake.address]) as client, pytest.raises(SessionExpiredError, match="may or may"):
        client.ingest([Event(1, "m")])
    assert len(fake.ingests()) == 2


def test_session_expired_in_doubt_is_harmless_when_events_have_ids(fake: FakeServer) -> None:
    fake.memory.faults = ["refuse", ErrorReply(ErrorCode.SESSION_EXPIRED, "who are you")]
    with Client([fake.address]) as client:
        assert client.ingest([Event(1, "m", id="a")]).n_stored == 1


def test_another_cluster_behind_the_address_resets_position_and_sessions(
    fake: FakeServer,
) -> None:
    with Client([fake.address]) as client:
        client.ingest([Event(1, "m")])
        fake.memory.cluster_id = b"B" * 16
        fake.memory.position = 0
        fake.drop_connections()
        time.sleep(0.25)
        client.query(1, "m", MONTH)
        client.ingest([Event(1, "m")])
    first, second = fake.ingests()
    assert first.session_lo != second.session_lo and second.sequence == 1
    query = next(r for kind, r in fake.memory.requests if kind == 0x30)
    assert query.min_position in (0, 1)  # type: ignore[attr-defined]


def test_read_asks_for_the_position_of_the_last_write(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        for _ in range(3):
            client.ingest([Event(1, "m")])
        client.query(1, "m", MONTH)
    assert fake.memory.requests[-1][1].min_position == 3  # type: ignore[attr-defined]


def test_lists_follow_every_page(fake: FakeServer) -> None:
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    moment_ns = to_ns(moment)
    fake.memory.rows = [
        EventRecord(1, "m", i, OperationType.NONE, moment, i + 1, {"k": "v"}, None, moment_ns)
        for i in range(7)
    ]
    for i in range(5):
        fake.alert()
        fake.memory.metrics[f"m{i}"] = MetricSchema(f"m{i}", AggType.SUM)
    with Client([fake.address]) as client:
        events = client.list_events(1, moment, moment + timedelta(days=1))
        assert [e.value for e in events] == list(range(7))
        assert [a.position for a in client.list_alerts(1)] == [1, 2, 3, 4, 5]
        assert [a.position for a in client.list_alerts(after=3)] == [4, 5]
        assert [m.code for m in client.metrics.list()] == [f"m{i}" for i in range(5)]
        assert client.metrics.get("m4").agg_type == AggType.SUM
        with pytest.raises(NotFoundError, match="m9"):
            client.metrics.get("m9")


def test_refusals_become_the_errors_of_the_tree(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        for code, kind in (
            (ErrorCode.NOT_FOUND, NotFoundError),
            (ErrorCode.ALREADY_EXISTS, AlreadyExistsError),
            (ErrorCode.INVALID_INPUT, InvalidInputError),
        ):
            fake.memory.read_faults = [ErrorReply(code, "because")]
            with pytest.raises(kind, match="because"):
                client.query(1, "m", MONTH)
        assert client.query(1, "m", MONTH).value.count == 0


def test_delete_whose_reply_was_lost_is_done(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        client.metrics.create(MetricSchema("m", AggType.COUNT))
        fake.memory.read_faults = ["drop"]
        client.metrics.delete("m")
        with pytest.raises(NotFoundError):
            client.metrics.delete("m")


def test_create_whose_reply_was_lost_is_done_if_the_metric_is_ours(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        fake.memory.read_faults = ["drop"]
        client.metrics.create(MetricSchema("m", AggType.COUNT))
        with pytest.raises(AlreadyExistsError):
            client.metrics.create(MetricSchema("m", AggType.COUNT))
        fake.memory.read_faults = ["drop"]
        with pytest.raises(AlreadyExistsError):
            client.metrics.create(MetricSchema("m", AggType.SUM))


def test_threads_share_a_client(fake: FakeServer) -> None:
    with Client([fake.address]) as client:

        def work(account: int) -> None:
            for _ in range(20):
                client.ingest([Event(account, "m")])

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [fake.total(n) for n in range(8)] == [20] * 8
        assert client.statistics()["unresolved"] == 0


def test_use_after_fork_is_refused(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        client.ingest([Event(1, "m")])
        client._pid = os.getppid()  # what a child would see
        with pytest.raises(ClientError, match="in the child"):
            client.ingest([Event(1, "m")])
    assert fake.total() == 1


def test_closed_client_says_so(fake: FakeServer) -> None:
    client = Client([fake.address])
    client.connect()
    client.close()
    with pytest.raises(ClientError, match="closed"):
        client.query(1, "m", MONTH)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event(1, "m", 1.5), "scale"),  # type: ignore[arg-type]
        (Event(1, "m", timestamp=datetime(2026, 1, 1)), "timezone.utc"),
        (Event(1.0, "m"), "account_id"),  # type: ignore[arg-type]
        (Event(1, 7), "metric_code"),  # type: ignore[arg-type]
        (Event(1, "m", properties={"k": 3}), "str"),  # type: ignore[dict-item]
        (Event(1, "m", id=4), "id"),  # type: ignore[arg-type]
    ],
)
def test_mistake_in_the_program_raises_before_anything_is_sent(
    fake: FakeServer, event: Event, words: str
) -> None:
    with Client([fake.address]) as client:
        with pytest.raises(InvalidInputError, match=words) as caught:
            client.ingest([Event(1, "m"), event])
        assert "events[1]" in str(caught.value)
    assert fake.ingests() == []


def test_mistake_in_the_data_refuses_that_event_and_counts_the_rest(fake: FakeServer) -> None:
    old = datetime(1999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    late = datetime(2100, 1, 1, tzinfo=timezone.utc)
    events = [
        Event(1, "m"),
        Event(1, "m", 2**63),
        Event(1, "m", timestamp=old),
        Event(1, "unknown"),
        Event(1, "m", timestamp=late),
        Event(1, "m", properties={"k": "v" * 65}),
        Event(1, "m", properties={str(i): "" for i in range(17)}),
        Event("", "m"),
        Event(1, ""),
        Event(1, "m", id=""),
        Event(1, "m", operation_type=3),  # type: ignore[arg-type]
        Event(1, "m"),
    ]
    with Client([fake.address]) as client:
        result = client.ingest(events)
    assert result.outcomes == [
        Outcome.STORED,
        Outcome.BAD_VALUE,
        Outcome.BAD_TIMESTAMP,
        Outcome.UNKNOWN_METRIC,
        Outcome.BAD_TIMESTAMP,
        Outcome.BAD_PROPERTY,
        Outcome.TOO_MANY_PROPERTIES,
        Outcome.BAD_ACCOUNT,
        Outcome.BAD_METRIC_CODE,
        Outcome.BAD_ID,
        Outcome.BAD_OPERATION,
        Outcome.STORED,
    ]
    assert (result.n_stored, result.n_refused, fake.total()) == (2, 10, 2)
    assert all(refusal.message for refusal in result.refusals)


def test_only_refused_events_send_nothing(fake: FakeServer) -> None:
    with Client([fake.address]) as client:
        result = client.ingest([Event(1, "m", 2**70)])
    assert (result.n_stored, result.n_refused) == (0, 1)
    assert fake.ingests() == []


def test_period_without_zone_or_length_is_refused(fake: FakeServer) -> None:
    naive, aware = datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone.utc)
    client = Client([fake.address])
    with pytest.raises(InvalidInputError, match="no time zone"):
        client.query(1, "m", Period(naive, naive))
    with pytest.raises(InvalidInputError, match="not after"):
        client.query(1, "m", Period(aware, aware))
    with pytest.raises(InvalidInputError, match="window"):
        client.series(1, "m", MONTH, window="fortnight")
    assert fake.accepted == 0


def test_error_tells_what_a_divided_call_had_counted(fake: FakeServer) -> None:
    fake.memory.batch_max = 2
    fake.memory.faults = [None, ErrorReply(ErrorCode.INVALID_INPUT, "no more")]
    with Client([fake.address]) as client, pytest.raises(InvalidInputError) as caught:
        client.ingest([Event(1, "m")] * 5)
    assert "5 events 2 are counted" in caught.value.__notes__[0]


def test_greeting_names_version_two_and_the_sdk(fake: FakeServer) -> None:
    with Client(fake.address):
        pass
    hello = fake.memory.requests[0][1]
    assert isinstance(hello, Hello)
    assert (hello.version_min, hello.version_max) == (2, 2) and "unimeter" in hello.client
