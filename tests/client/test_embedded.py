"""`unimeter.open`: a client's methods without a server, on a directory that stays."""

from __future__ import annotations

import os
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import unimeter
from unimeter import (
    AggType,
    AlertThreshold,
    AlreadyExistsError,
    ClientError,
    DataError,
    DimensionFilter,
    DirectoryInUseError,
    Event,
    InvalidInputError,
    MetricSchema,
    NotFoundError,
    OperationType,
    Outcome,
    current_month,
)

MONTH = current_month()


def test_totals_are_there_after_opening_again(tmp_path: Path) -> None:
    with unimeter.open(tmp_path / "data") as meter:
        meter.metrics.create(MetricSchema("m", AggType.SUM))
        meter.ingest([Event(1, "m", 5, id="a"), Event("acme", "m", -3)])
    with unimeter.open(tmp_path / "data") as meter:
        assert meter.query(1, "m", MONTH).value.sum == 5
        assert meter.query("acme", "m", MONTH).value.sum == -3
        assert meter.ingest([Event(1, "m", 5, id="a")]).n_duplicates == 1
        assert [schema.code for schema in meter.metrics.list()] == ["m"]


def test_directory_is_open_once(tmp_path: Path) -> None:
    with unimeter.open(tmp_path), pytest.raises(DirectoryInUseError):
        unimeter.open(tmp_path)
    unimeter.open(tmp_path).close()


def test_every_method_answers() -> None:
    now = datetime.now(timezone.utc)
    with unimeter.open(":memory:") as meter:
        meter.metrics.put(MetricSchema("m", AggType.SUM, filters=[DimensionFilter("r")]))
        meter.metrics.create(MetricSchema("seats", AggType.COUNT_UNIQUE, recurring=True))
        meter.ingest(
            [
                Event(1, "m", 2, now, properties={"r": "eu"}),
                Event(1, "m", 3, now, properties={"r": "us"}),
                Event(1, "seats", 77, now, OperationType.ADD),
            ]
        )
        assert meter.query(1, "m", MONTH, filters={"r": ["eu", "us"]}).value.sum == 5
        groups = meter.query_breakdown(1, "m", MONTH, group_by=["r"])
        assert groups[frozenset({("r", "us")})].sum == 3
        assert meter.query_realtime(1, "m").sum == 5
        assert sum(p.value.sum for p in meter.series(1, "m", MONTH, window="day")) == 5
        assert [(t.account_id, t.value.sum) for t in meter.accounts("m", MONTH)] == [(1, 5)]
        assert meter.members(1, "seats") == [77]
        hour = timedelta(hours=1)
        assert [e.value for e in meter.list_events(1, now - hour, now + hour)] == [2, 3, 77]
        assert meter.list_alerts() == []
        assert meter.status().log_offset == 3
        assert meter.statistics()["stored"] == 3
        meter.metrics.delete("m")
        with pytest.raises(NotFoundError):
            meter.query(1, "m", MONTH)
        with pytest.raises(AlreadyExistsError):
            meter.metrics.create(MetricSchema("seats", AggType.SUM))


def test_large_call_is_divided_and_refusals_keep_their_index() -> None:
    with unimeter.open(":memory:") as meter:
        meter.metrics.create(MetricSchema("m", AggType.COUNT))
        events = [Event(1, "nope" if i == 9_999 else "m") for i in range(20_000)]
        events[5] = Event(1, "m", 2**64)
        result = meter.ingest(events)
        assert (result.n_stored, result.n_refused, len(result.outcomes)) == (19_998, 2, 20_000)
        assert [(r.index, r.outcome) for r in result.refusals] == [
            (5, Outcome.BAD_VALUE),
            (9_999, Outcome.UNKNOWN_METRIC),
        ]
        assert meter.query(1, "m", MONTH).value.count == 19_998


def test_alerts_reach_a_stream_in_another_thread() -> None:
    with unimeter.open(":memory:") as meter:
        thresholds = [AlertThreshold("ten", 10), AlertThreshold("twenty", 20)]
        meter.metrics.create(MetricSchema("m", AggType.SUM, thresholds=thresholds))
        stream = meter.alerts.subscribe(account_ids=[2], metric_codes=["m"])
        seen: list[str] = []
        reader = threading.Thread(target=lambda: seen.extend(a.threshold_code for a in stream))
        reader.start()
        meter.ingest([Event(1, "m", 99), Event(2, "m", 11), Event(2, "m", 11)])
        later = meter.alerts.subscribe(after=0)
        assert [next(later).account_id for _ in range(4)] == [1, 1, 2, 2]
        again = meter.alerts.subscribe(since_offset=later.offsets())
        assert again.get(timeout=0.01) is None
        while len(seen) < 2:
            pass
        stream.close()
        reader.join(10)
        assert seen == ["ten", "twenty"] and not reader.is_alive()


def test_threads_share_a_meter(tmp_path: Path) -> None:
    with unimeter.open(tmp_path) as meter:
        meter.metrics.create(MetricSchema("m", AggType.COUNT))

        def work() -> None:
            for _ in range(25):
                meter.ingest([Event(1, "m")])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert meter.query(1, "m", MONTH).value.count == 100


def test_use_after_close_or_fork_is_refused() -> None:
    meter = unimeter.open()
    meter._pid = os.getppid()  # what a child would see
    with pytest.raises(ClientError, match="fork"):
        meter.query(1, "m", MONTH)
    meter.close()
    meter.close()
    with pytest.raises(ClientError, match="closed"):
        meter.query(1, "m", MONTH)


def test_unknown_option_and_bad_timeout_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        unimeter.open(timeout=0)
    with pytest.raises((TypeError, InvalidInputError)):
        unimeter.open(colour="red")


def test_interrupted_call_stops_the_meter_and_opening_again_finds_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = unimeter.open(tmp_path)
    meter.metrics.create(MetricSchema("m", AggType.COUNT))
    meter.ingest([Event(1, "m")])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(meter._node.machine, "apply", interrupt)
    with pytest.raises(KeyboardInterrupt):
        meter.ingest([Event(1, "m", id="a")])
    with pytest.raises(DataError, match="open the directory again"):
        meter.query(1, "m", MONTH)
    meter.close()
    with unimeter.open(tmp_path) as again:
        # It was durable and not acknowledged, so the caller sends it again.
        assert again.ingest([Event(1, "m", id="a")]).n_duplicates == 1
        assert again.query(1, "m", MONTH).value.count == 2
