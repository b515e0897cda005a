"""A dry run gives what the metric would have given, and changes nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from tests.server.web.running import Running, running

from unimeter import limits
from unimeter.server.dry_run import Trial, prepare
from unimeter.types import AggType, MetricSchema

NOW = datetime.now(timezone.utc).replace(microsecond=0)
KINDS = ("count", "sum", "max", "min", "latest", "avg", "count-unique")


def event(number: int, metric: str, chance: random.Random) -> dict[str, Any]:
    operation = chance.choice(["none", "add", "remove"]) if metric == "seats" else "none"
    return {
        "account": chance.choice(["acme", 42, "globex"]),
        "metric": metric,
        "value": chance.randrange(-50, 100),
        "timestamp": (NOW - timedelta(hours=chance.randrange(70))).isoformat(),
        "properties": {"model": chance.choice(["large", "small"]), "unused": "x"},
        "operation": operation,
        "id": f"{metric}-{number}",
    }


@pytest.fixture(scope="module")
def filled() -> Iterator[Running]:
    """Events of a metric, of seats, and of a code that nobody created; some sent twice."""
    chance = random.Random(5)
    with running() as found:
        found.metric("usage")
        found.metric("seats", "count-unique")
        for metric in ("usage", "seats", "later"):
            events = [event(number, metric, chance) for number in range(300)]
            for start in range(0, 300, 50):
                found.send(events[start : start + 50])
            found.send(events[:20])  # again
        yield found


def tried(filled: Running, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    reply = filled.http.post("/v1/metrics/dry-run", json=body)
    assert reply.status_code == status, reply.text
    found: dict[str, Any] = reply.json()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("period", ["month", "day", "lifetime", "12h"])
def test_a_trial_counts_what_the_metric_counts_when_it_is_made(
    filled: Running, kind: str, period: str
) -> None:
    """The same events are tried on a definition, and sent to a metric that has it."""
    source = "seats" if kind == "count-unique" else "later"
    code = f"made_{kind}_{period}".replace("-", "_")
    definition = {
        "code": code,
        "type": kind,
        "period": period,
        "dimensions": [{"key": "model"}],
        "thresholds": [{"code": "much", "value": 60, "again": True}],
    }
    found = tried(filled, {"metric": definition, "source": source})
    chance = random.Random(5)
    sent = {
        name: [event(at, name, chance) for at in range(300)] for name in ("usage", "seats", "later")
    }
    filled.metric(
        **{name: value for name, value in definition.items() if name != "type"}, kind=kind
    )
    for start in range(0, 300, 50):
        filled.send([one | {"metric": code} for one in sent[source][start : start + 50]])
    range_ = {"start": "2000-01-01", "end": "2099-12-31"}
    for total in found["totals"]:
        real = filled.get("/v1/totals", account=total["account"], metric=code, **range_)
        for name in ("value", "count", "sum", "min", "max", "last"):
            assert total[name] == real[name], name
    groups = {(row["account"], row["group"]["model"]): row["value"] for row in found["groups"]}
    for account in ("acme", 42, "globex"):
        rows = filled.get("/v1/breakdown", account=account, metric=code, group_by="model", **range_)
        for row in rows["rows"]:
            assert groups.pop((account, row["group"]["model"])) == row["value"]
    assert groups == {}
    real = filled.get("/v1/alerts", metric=code)["rows"]
    assert found["alert_count"] == len(real)
    same = ("account", "threshold", "value", "timestamp", "period_start")
    for one, other in zip(found["alerts"], real, strict=False):
        assert {name: one[name] for name in same} == {name: other[name] for name in same}


def test_repeated_events_count_once(filled: Running) -> None:
    known = tried(filled, {"metric": {"code": "a", "type": "count"}, "source": "usage"})
    assert known["is_known"] and known["outcomes"] == {"stored": 300}  # only what counted
    unknown = tried(filled, {"metric": {"code": "a", "type": "count"}, "source": "later"})
    assert not unknown["is_known"] and unknown["outcomes"] == {"duplicate": 20, "stored": 300}
    assert unknown["events"] == 320 and unknown["is_all"]


def test_nothing_is_stored_and_nothing_of_the_node_changes(filled: Running) -> None:
    machine = filled.server.node.machine
    before = machine.applied, machine.state_hash(), filled.server.node.wal.last_index
    assert tried(filled, {"metric": {"code": "later", "type": "sum"}})["events"] == 320
    assert (machine.applied, machine.state_hash(), filled.server.node.wal.last_index) == before
    assert "later" not in {one["code"] for one in filled.get("/v1/metrics")["rows"]}


def test_refused_events_are_shown_with_their_reasons(filled: Running) -> None:
    listed = {"code": "l", "type": "sum", "dimensions": [{"key": "model", "values": ["large"]}]}
    found = tried(filled, {"metric": listed, "source": "usage"})
    assert found["outcomes"]["dimension_not_allowed"] == len(found["refusals"]) or (
        len(found["refusals"]) == limits.DRY_RUN_ROWS_MAX
    )
    assert {row["properties"]["model"] for row in found["refusals"]} == {"small"}
    assert "not among those" in found["refusals"][0]["reason"]
    wrong = tried(filled, {"metric": {"code": "w", "type": "sum"}, "source": "seats"})
    assert wrong["outcomes"]["operation_not_allowed"] > 0


def test_the_newest_events_are_taken_and_a_range_narrows_them(filled: Running) -> None:
    definition = {"code": "n", "type": "count"}
    few = tried(filled, {"metric": definition, "source": "usage", "events": 10})
    assert few["events"] == 10 and not few["is_all"]
    start = (NOW - timedelta(hours=10)).isoformat()
    late = tried(filled, {"metric": definition, "source": "usage", "start": start})
    assert 0 < late["events"] < 300 and late["first"] >= start[:13]
    none = tried(filled, {"metric": definition, "source": "never seen"})
    assert (none["events"], none["totals"], none["first"]) == (0, [], None)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"metric": {"code": "", "type": "sum"}}, "code"),
        ({"metric": {"code": "x", "type": "product"}}, "$.metric.type"),
        ({"metric": {"code": "x", "type": "sum", "zone": "Mars/Base"}}, "zone"),
        ({"metric": {"code": "x", "type": "sum"}, "events": 10**9}, "$.events"),
        ({"metric": {"code": "x", "type": "sum"}, "start": "yesterday"}, "start"),
        (
            {"metric": {"code": "x", "type": "sum"}, "start": "2026-02-01", "end": "2026-01-01"},
            "range",
        ),
    ],
)
def test_what_can_not_be_tried_is_said(filled: Running, body: dict[str, Any], words: str) -> None:
    assert words in tried(filled, body, 400)["detail"]


def test_events_are_counted_in_the_order_of_the_log_however_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A balance that rises and falls crosses its threshold at other events in another order."""
    balance = {
        "code": "b",
        "type": "sum",
        "thresholds": [{"code": "t", "value": 10, "again": True}],
    }
    with running() as own:
        for value in (20, -15, 6, 1, -9, 30):
            own.send([{"account": "acme", "metric": "later", "value": value}])
        monkeypatch.setattr("unimeter.server.dry_run._STEP_ENTRIES", 1)
        found = tried(own, {"metric": balance, "source": "later"})
        assert [one["value"] for one in found["alerts"]] == [20, 11, 33]


def test_only_so_much_of_the_log_is_searched(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DRY_RUN_LOG_BYTES_MAX", 1)
    monkeypatch.setattr("unimeter.server.dry_run._STEP_ENTRIES", 2)
    log = prepare(filled.server.node, Trial(MetricSchema("x", AggType.COUNT), "later"))
    found = log.run()
    assert found.events < 320 and not found.is_all


def test_one_trial_at_a_time(filled: Running) -> None:
    filled.server.site.is_trying = True  # type: ignore[union-attr]
    reply = filled.http.post("/v1/metrics/dry-run", json={"metric": {"code": "x", "type": "sum"}})
    assert reply.status_code == 429 and reply.headers["retry-after"] == "1"
    filled.server.site.is_trying = False  # type: ignore[union-attr]
