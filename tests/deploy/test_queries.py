"""Every query of the dashboard, the alerts and the rules, against the real /metrics.

Each is parsed by promql-parser, in Prometheus's own grammar. Then every metric that it selects,
every label that it names and every value that it compares a label with has to exist on a page
of a running node or cluster: a query for what is not there is never wrong, only silent.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from tests.deploy.watched import (
    DEPLOY,
    ROOT,
    Scrape,
    busy_node,
    certificate,
    one_node,
    page,
    three_nodes,
)

SCRAPED = {"instance", "job"}  # labels that Prometheus itself adds
OWN = {"up"}  # metrics that it makes of each target
VARIABLES = {
    "$__rate_interval": "5m",
    "$job": "unimeter",
    "$instance": "node-1",
}
# Label values that come up only when something goes wrong, or at other times.
UNSEEN = {("status", "5xx"), ("outcome", "conflict"), ("state", "paused")}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """Of three nodes that have seen a little of everything, and of one with TLS."""

    async def body() -> Scrape:
        found = Scrape()
        async with three_nodes(tmp_path_factory.mktemp("three")) as servers:
            leader = next(server for server in servers if server.node.leads)
            await busy_node(leader)
            for server in servers:
                found.read(await page(server))
        directory = tmp_path_factory.mktemp("tls")
        async with one_node(directory / "data", **certificate(directory)) as server:
            found.read(await page(server))
        return found

    return asyncio.run(body())


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana" / "unimeter.json").read_text(encoding="utf-8"))


def groups(name: str) -> list[Any]:
    return list(yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"])


def rules() -> Iterator[tuple[str, Any]]:
    """(where, rule) of every alert and recording rule."""
    for name in ("alerts.yml", "rules.yml"):
        for group in groups(name):
            for rule in group["rules"]:
                yield f"{name} {rule.get('alert') or rule['record']}", rule


def queries() -> Iterator[tuple[str, str]]:
    """(where, query) of everything that Prometheus or Grafana would ask."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']} {target['refId']}", target["expr"]
    for note in dashboard()["annotations"]["list"]:
        yield f"annotation {note['name']}", note["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found, variable
            yield f"variable {variable['name']}", f"count by ({found[2]}) ({found[1]})"
    for where, rule in rules():
        yield where, rule["expr"]


QUERIES = list(queries())
RECORDED = {rule["record"] for _, rule in rules() if "record" in rule}


def parsed(query: str) -> Any:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, f"an unknown variable in {query}"
    return promql.parse(query)


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector in an expression."""
    if isinstance(node, promql.VectorSelector):
        yield node
    elif isinstance(node, promql.MatrixSelector):
        yield node.vector_selector
    elif isinstance(node, promql.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif isinstance(node, promql.Call):
        for one in node.args:
            yield from selectors(one)
    elif isinstance(node, promql.AggregateExpr | promql.ParenExpr | promql.UnaryExpr
                    | promql.SubqueryExpr):  # fmt: skip
        yield from selectors(node.expr)
    else:
        assert isinstance(node, promql.NumberLiteral | promql.StringLiteral), type(node)


def grouped(node: Any) -> Iterator[str]:
    """Every label that an aggregation or a match names."""
    if isinstance(node, promql.AggregateExpr):
        if node.modifier is not None:
            yield from node.modifier.labels
        yield from grouped(node.expr)
    elif isinstance(node, promql.BinaryExpr):
        yield from grouped(node.lhs)
        yield from grouped(node.rhs)
    elif isinstance(node, promql.Call):
        for one in node.args:
            yield from grouped(one)
    elif isinstance(node, promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr):
        yield from grouped(node.expr)


def problems(query: str, scrape: Scrape) -> list[str]:
    """What a query asks for and no page has."""
    expression = parsed(query)
    found, known = [], set(SCRAPED)
    for selector in selectors(expression):
        if selector.name in OWN or selector.name in RECORDED:
            known |= {"route", "le"}
            continue
        labels = scrape.names.get(selector.name)
        if labels is None:
            found.append(f"there is no metric {selector.name}")
            continue
        known |= set(labels)
        for matcher in selector.matchers.matchers:
            if matcher.name in SCRAPED:
                continue
            if matcher.name not in labels:
                found.append(f"{selector.name} has no label {matcher.name}")
                continue
            for value in matcher.value.split("|"):
                if value not in labels[matcher.name] and (matcher.name, value) not in UNSEEN:
                    found.append(f"{selector.name} is never {matcher.name}={value}")
    found += [
        f"no metric has the label {name}" for name in grouped(expression) if name not in known
    ]
    return found


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_query_is_valid_and_asks_for_what_is_there(where: str, query: str, scrape: Scrape) -> None:
    assert not problems(query, scrape)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("rate(unimeter_event_total[5m])", "there is no metric unimeter_event_total"),
        ('unimeter_events_total{kind="stored"}', "has no label kind"),
        ('unimeter_events_total{outcome="refused"}', "is never outcome=refused"),
        ("sum by (account) (unimeter_events_total)", "no metric has the label account"),
        ("max(unimeter_leader) + min(rate(nothing[5m]))", "there is no metric nothing"),
    ],
)
def test_the_check_finds_what_it_is_for(query: str, problem: str, scrape: Scrape) -> None:
    assert problem in str(problems(query, scrape))


def test_a_query_that_prometheus_would_refuse_is_refused() -> None:
    for wrong in ("rate(unimeter_events_total)", "sum by (", "max(unimeter_leader", "a +"):
        with pytest.raises(ValueError):
            parsed(wrong)


def test_counters_are_only_asked_for_as_rates_and_gauges_never() -> None:
    for where, query in QUERIES:
        rated = set(re.findall(r"(?:rate|increase|irate)\((\w+)", query))
        assert all(name.endswith(("_total", "_bucket", "_sum", "_count")) or name in (
            "unimeter_peer_links",) for name in rated), where  # fmt: skip


def test_every_family_of_a_stage_is_on_the_dashboard_or_in_an_alert(scrape: Scrape) -> None:
    asked = {
        re.sub(r"_(total|bucket|sum|count)$", "", selector.name)
        for _, query in QUERIES
        for selector in selectors(parsed(query))
    }
    left = {name for name in scrape.types if name.startswith("unimeter_") and name not in asked}
    # Said by another family as well, or for a question asked by hand.
    assert left == {
        "unimeter_applied_index", "unimeter_commit_index", "unimeter_connections_opened",
        "unimeter_dedup_keys", "unimeter_dedup_sessions", "unimeter_entries",
        "unimeter_entries_applied", "unimeter_http_bodies_refused", "unimeter_http_refused",
        "unimeter_http_turned_out", "unimeter_log_index",
        "unimeter_snapshot_index", "unimeter_snapshot_running", "unimeter_snapshot_seconds",
        "unimeter_stream_seconds", "unimeter_subscribers", "unimeter_synced_index",
        "unimeter_term", "unimeter_tls_refused",
    }  # fmt: skip


# --- shape -------------------------------------------------------------------------------


def test_each_rule_is_whole() -> None:
    names = [rule.get("alert") or rule["record"] for _, rule in rules()]
    assert len(names) == len(set(names)) > 20
    for _, rule in rules():
        if "record" in rule:
            assert set(rule) == {"record", "expr"} and rule["record"].count(":") >= 1
            continue
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "runbook"}


def test_what_a_summary_shows_is_left_by_its_query() -> None:
    for where, rule in rules():
        for label in re.findall(r"\$labels\.(\w+)", str(rule.get("annotations"))):
            expression = parsed(rule["expr"])
            while isinstance(expression, promql.BinaryExpr):
                expression = expression.lhs
            if isinstance(expression, promql.AggregateExpr):
                modifier = expression.modifier
                assert modifier is not None and label in modifier.labels, (where, label)


def test_each_alert_has_its_lines_in_the_runbook() -> None:
    text = (ROOT / "docs" / "operating" / "alerts.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (Unimeter\w+)$", text, re.M)
    alerts = [rule["alert"] for _, rule in rules() if "alert" in rule]
    assert headings == alerts
    for _, rule in rules():
        if "alert" in rule:
            page_name, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert (ROOT / page_name).is_file() and anchor == rule["alert"].lower()


def test_the_dashboard_is_whole() -> None:
    found = dashboard()
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    assert {variable["name"] for variable in found["templating"]["list"]} == {
        "datasource", "job", "instance",
    }  # fmt: skip
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"] and panel["title"]


def test_the_scrape_names_the_files_that_are_there() -> None:
    found = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    for name in found["rule_files"]:
        assert Path(DEPLOY / "prometheus" / name).is_file()
    (job,) = found["scrape_configs"]
    assert job["job_name"] == "unimeter" and len(job["static_configs"][0]["targets"]) == 3
