"""What the views show, as JSON and CSV: the API's own answers, put together."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.web.running import Running, running

from unimeter.engine.alert_log import alert_at
from unimeter.server.web.dashboard import views
from unimeter.server.web.dashboard.history import History, Sample, quantile

LARGE = 10**30
ODD = "acme/eu.json"


@pytest.fixture(scope="module")
def filled() -> Iterator[Running]:
    """Two accounts, alerts of each, a refused event, names that are hard for a path."""
    with running() as found:
        found.metric(
            "credits",
            period="lifetime",
            thresholds=[{"code": "low", "value": 10, "when": "at-or-below", "again": True}],
        )
        found.metric("tokens", dimensions=[{"key": "model"}, {"key": "kind"}])
        found.metric("seats", "count-unique")
        for account in ("acme", 42, ODD):
            send = [
                {"account": account, "metric": "credits", "value": value} for value in (50, -45, 45)
            ]
            tags = {"model": "large", "kind": "prompt"}
            send += [{"account": account, "metric": "tokens", "value": 7, "properties": tags}]
            send += [{"account": account, "metric": "seats", "value": 9, "operation": "add"}]
            found.send(send)
        found.send([{"account": "acme", "metric": "nothing", "value": 1}])
        yield found


def table(filled: Running, path: str) -> list[dict[str, str]]:
    reply = filled.http.get(path)
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(reply.text)))


@pytest.mark.parametrize(
    "path",
    ["/overview", "/ui/metrics", "/ui/new-metric", "/ui/metrics/tokens", "/ui/accounts",
     "/ui/accounts/acme", "/ui/events", "/ui/alerts", "/ui/webhooks", "/ui/keys", "/ui/audit"],
)  # fmt: skip
def test_a_view_has_both_twins(filled: Running, path: str) -> None:
    whole = filled.get(f"{path}.json")
    lines = table(filled, f"{path}.csv")
    main = next(whole[name] for name in ("rows", "top", "totals", "nodes") if name in whole)
    assert len(lines) == len(main)


def test_the_form_of_a_new_metric_says_what_may_be_in_it(filled: Running) -> None:
    whole = filled.get("/ui/new-metric.json", code="fresh")
    given = {name: value for name, value in whole["definition"].items() if value is not None}
    made = filled.http.post("/v1/metrics", json={**given, "code": "fresh", "type": "sum"})
    assert made.status_code == 201, made.text
    choices = {row["field"]: row["choices"] for row in whole["rows"]}
    assert "count-unique" in choices["type"] and choices["resolution"] == ["day", "hour", "period"]
    assert whole["schema"]["$defs"]["MetricBody"]["required"] == ["code", "type"]
    filled.http.delete("/v1/metrics/fresh")


def test_an_account_says_what_the_api_says(filled: Running) -> None:
    shown = filled.get("/ui/accounts/42.json")
    assert shown["account"] == 42
    for total in shown["totals"]:
        asked = filled.get("/v1/totals", account="42", metric=total["metric"])
        assert {name: total[name] for name in asked if name in total} == {
            name: value for name, value in asked.items() if name in total
        }
    assert [row["threshold"] for row in shown["alerts"]] == ["low"]


def test_an_account_shows_the_metric_step_and_tag_that_are_asked_for(filled: Running) -> None:
    shown = filled.get("/ui/accounts/acme.json", metric="tokens", window="hour", group_by="kind")
    assert (shown["metric"], shown["group_by"], len(shown["series"])) == ("tokens", "kind", 48)
    assert sum(row["value"] for row in shown["series"]) == 7
    assert [row["group"] for row in shown["breakdown"]] == [{"kind": "prompt"}]
    assert filled.get("/ui/accounts/acme.json", metric="seats")["members"] == [9]
    filled.get("/ui/accounts/acme.json", 400, window="century")


def test_a_name_that_ends_like_a_twin_has_its_page_and_its_twins(filled: Running) -> None:
    path = "/ui/accounts/acme%2Feu.json"
    assert "<html" in filled.http.get(path, params={"page": "1"}).text
    assert filled.get(f"{path}.json")["account"] == ODD
    assert filled.get(path)["account"] == "acme/eu"  # the twin of another one


def test_refused_events_are_told_from_repeated_ones(filled: Running) -> None:
    event = {"account": "acme", "metric": "tokens", "value": 1, "id": "twice"}
    filled.send([event])
    filled.send([event])
    words = {row["outcome"] for row in filled.get("/ui/events.json", outcome="refused")["rows"]}
    assert words == {"unknown_metric"}


def test_alerts_are_newest_first_page_by_page(filled: Running) -> None:
    first = filled.get("/ui/alerts.json", limit=2)
    assert [row["position"] for row in first["rows"]] == [3, 2]
    last = filled.get("/ui/alerts.json", limit=2, before=first["cursor"])
    assert [row["position"] for row in last["rows"]] == [1] and "cursor" not in last
    only = filled.get("/ui/alerts.json", account="42")["rows"]
    assert [row["account"] for row in only] == [42]


def test_a_page_of_alerts_looks_at_a_bounded_number(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def counting(machine: Any, position: int) -> Any:
        looked.append(position)
        return alert_at(machine, position)

    monkeypatch.setattr(views, "ALERTS_LOOKED_AT", 2)
    monkeypatch.setattr(views, "alert_at", counting)
    page = filled.get("/ui/alerts.json", account="acme")
    assert page["rows"] == [] and page["cursor"] == "2" and looked == [3, 2]
    page = filled.get("/ui/alerts.json", account="acme", before="2")
    assert [row["position"] for row in page["rows"]] == [1]


def test_numbers_beyond_a_float_are_strings(filled: Running) -> None:
    for _ in range(2):
        filled.send([{"account": "big", "metric": "tokens", "value": 2**62}])
    shown = filled.get("/ui/accounts/big.json", metric="tokens")
    assert shown["totals"][0]["value"] == str(2**63)
    assert shown["series"][-1]["value"] == str(2**63)
    assert table(filled, "/ui/accounts/big.csv")[0]["value"] == str(2**63)


def test_a_read_that_cannot_be_is_said_where_it_belongs(filled: Running) -> None:
    assert "no metric" in filled.get("/ui/metrics/absent.json", 404)["detail"]
    assert filled.get("/ui/accounts/nobody.json")["totals"] == []
    assert filled.get("/embed/usage.json", 403)["detail"].startswith("this view is for a portal")


def test_rates_are_differences_of_what_was_read(filled: Running) -> None:
    history = History()
    bounds = (0.001, 0.01)
    for second, stored in enumerate((0, 100, 250)):
        syncs = (10 * second, second, 0)
        at = second * 2 * 10**9
        history.samples.append(Sample(at, stored, second, 0, syncs, second * 0.1))
    rates = list(history.rates())
    assert [row["stored"] for row in rates] == [50.0, 75.0]
    assert rates[0]["sync_seconds"] == pytest.approx(0.1 / 11)
    latency = history.latency(bounds)
    assert latency["p50"] is not None and latency["p50"] < 0.001 < (latency["p99"] or 0)


def test_a_quantile_is_read_between_the_bounds() -> None:
    assert quantile([0, 0, 0], (1.0, 2.0), 0.5) is None
    assert quantile([10, 0, 0], (1.0, 2.0), 0.5) == 0.5
    assert quantile([0, 10, 0], (1.0, 2.0), 0.5) == 1.5
    assert quantile([0, 0, 10], (1.0, 2.0), 0.99) == 2.0
