"""The description is of what is served, whole and valid; pages to read are made of it."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tests.server.web.running import Running, running

from unimeter.keys import Scope
from unimeter.server.web import reference
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.openapi import document, parameters, shown_path
from unimeter.server.web.site import api_endpoints

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "http.md"
LISTED = [one for one in api_endpoints() if one.is_listed]


@pytest.fixture(scope="module")
def described(shared: Running) -> Any:
    """The document as the node serves it."""
    return shared.get("/openapi.json")


def test_every_route_is_described_once(described: Any) -> None:
    wanted = sorted((shown_path(one), one.method.lower()) for one in LISTED)
    found = sorted((path, method) for path, ways in described["paths"].items() for method in ways)
    probes = [("/health", "get"), ("/metrics", "get"), ("/ready", "get")]
    assert sorted(set(found) - set(probes)) == wanted
    names = [way["operationId"] for ways in described["paths"].values() for way in ways.values()]
    assert len(names) == len(set(names))


def test_no_two_endpoints_have_one_address() -> None:
    found = [(one.method, shown_path(one)) for one in api_endpoints()]
    assert len(found) == len(set(found)), sorted(found)


def test_every_schema_is_a_schema_and_every_reference_leads_somewhere(described: Any) -> None:
    def look(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].split("/")[-1] in described["components"]["schemas"]
            if "schema" in value:
                jsonschema_rs.meta.validate(value["schema"])
            for item in value.values():
                look(item)
        elif isinstance(value, list):
            for item in value:
                look(item)

    look(described)
    for schema in described["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


@pytest.mark.parametrize("one", LISTED, ids=lambda one: f"{one.method} {one.path}")
def test_a_route_says_what_it_needs_and_gives(one: Endpoint) -> None:
    assert one.summary and not one.summary.endswith(".")
    assert one.tag, "it stands in no topic"
    names = [(param.name, param.where) for param in parameters(one)]
    assert len(names) == len(set(names)), names
    assert any(status < 400 for status in one.answers)
    if one.method in ("PUT", "DELETE") and one.scope is not None:
        assert one.scope is Scope.ADMIN or one.path == "/v1/session"


def test_keys_are_asked_for_where_the_document_says_so(described: Any) -> None:
    schemes = set(described["components"]["securitySchemes"])
    for ways in described["paths"].values():
        for way in ways.values():
            assert {name for one in way["security"] for name in one} <= schemes
            assert bool(way["security"]) == ("x-scope" in way)
            if way["security"]:
                assert {"401", "403", "503"} <= set(way["responses"])


class Page(HTMLParser):
    """What a page loads and runs."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forbidden: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "style", "iframe", "object", "form"):
            self.forbidden.append(tag)
        self.forbidden += [name for name in given if name == "style" or name.startswith("on")]
        self.links += [str(given[name]) for name in ("href", "src") if name in given]
        self.ids += [str(given["id"])] if "id" in given else []
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_runs_nothing_and_asks_nobody_else(shared: Running) -> None:
    reply = shared.http.get("/docs")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    page = Page()
    page.feed(reply.text)
    assert page.open == [] and page.forbidden == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert link.startswith("/") and not link.startswith("//")
            assert shared.http.get(link).status_code == 200, link
    assert "/v1/totals" in reply.text and "Idempotency-Key" in reply.text


def test_a_name_in_the_document_is_text_in_the_page() -> None:
    from unimeter.server.web.docs_page import page

    async def nothing(call: Any) -> Any: ...

    odd = Endpoint("GET", "/x", nothing, None, "<script>alert(1)</script>", "a `<b>`", "<i>")
    text = page(document([odd]), "/static/x")
    assert "<script>" not in text and "<b>" not in text and "<i>" not in text


def test_the_reference_page_is_fresh() -> None:
    written = PAGE.read_text(encoding="utf-8")
    fresh = reference.page(written)
    assert written == fresh, "run: python -m unimeter.server.web.reference docs/reference/http.md"


def test_the_statuses_of_the_reference_page_are_those_of_the_code() -> None:
    from unimeter.server.web.problems import _OF_CLASS

    text = PAGE.read_text(encoding="utf-8")
    for _, status, kind in _OF_CLASS:
        assert re.search(rf"^\| [0-9, ]*{int(status)}[0-9, ]* \|.*`{kind}`", text, re.MULTILINE), (
            kind
        )


def test_the_first_commands_of_the_reference_page_work() -> None:
    text = PAGE.read_text(encoding="utf-8")
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    with running() as server:
        host = f"127.0.0.1:{server.server.http_port}"
        outputs = [
            subprocess.run(
                ["bash", "-c", line.replace("localhost:9090", host)],
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            ).stdout
            for line in block[1].splitlines()
        ]
    metric, first, again = map(json.loads, outputs[:3])
    assert metric["code"] == "api_calls"
    assert (first["outcomes"], again["outcomes"]) == (["stored"], ["duplicate"])
    assert outputs[3].splitlines()[1].startswith("acme,api_calls,sum,")
