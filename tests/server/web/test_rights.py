"""A key for one account or metric reads that, by HTTP, and nothing beside it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.web.running import Running, running
from tests.server.web.test_ingest import put_key

from unimeter.keys import new_key

READS = {
    "/v1/totals": {"account": "acme", "metric": "calls"},
    "/v1/series": {"account": "acme", "metric": "calls"},
    "/v1/breakdown": {"account": "acme", "metric": "calls", "group_by": "model"},
    "/v1/members": {"account": "acme", "metric": "seats"},
    "/v1/events": {"account": "acme", "metric": "calls"},
    "/v1/events/tail": {"account": "acme", "metric": "calls"},
    "/v1/alerts": {"account": "acme", "metric": "calls"},
}
OF_ALL = {
    "/v1/top": {"metric": "calls"},
    "/v1/totals/accounts": {"metric": "calls"},
    "/v1/accounts": {},
    "/v1/events/tail": {},
    "/v1/alerts": {},
}


@pytest.fixture(scope="module")
def locked() -> Iterator[tuple[Running, dict[str, str]]]:
    """A server with keys by name: boss, acme (one account), calls (one metric), writer."""
    chance = random.Random(3)
    with running() as found:
        found.metric("calls", dimensions=[{"key": "model"}])
        found.metric("seats", "count-unique")
        found.send([{"account": name, "metric": "calls"} for name in ("acme", "other")])
        keys = {name: new_key(chance.randbytes) for name in ("boss", "acme", "calls", "writer")}
        put_key(found, keys["boss"], "boss", ["admin"], None)
        put_key(found, keys["acme"], "acme", ["read"], "acme")
        put_key(found, keys["calls"], "calls", ["read"], None, "calls")
        put_key(found, keys["writer"], "writer", ["ingest"], None)
        yield found, keys


def ask(locked: tuple[Running, dict[str, str]], who: str, path: str, **params: Any) -> Any:
    server, keys = locked
    return server.http.get(path, params=params, headers={"Authorization": f"Bearer {keys[who]}"})


@pytest.mark.parametrize("path", READS)
def test_what_is_its_own_is_read(locked: Any, path: str) -> None:
    assert ask(locked, "acme", path, **READS[path]).status_code == 200
    wanted = 403 if READS[path]["metric"] == "seats" else 200
    assert ask(locked, "calls", path, **READS[path]).status_code == wanted


@pytest.mark.parametrize("path", READS)
def test_what_is_another_accounts_is_not(locked: Any, path: str) -> None:
    reply = ask(locked, "acme", path, **{**READS[path], "account": "other"})
    assert reply.status_code == 403 and "other" not in reply.json()["detail"]
    assert ask(locked, "writer", path, **READS[path]).status_code == 403
    assert ask(locked, "calls", path, **{**READS[path], "metric": "seats"}).status_code == 403


@pytest.mark.parametrize("path", OF_ALL)
def test_lists_of_all_accounts_are_for_keys_of_all_accounts(locked: Any, path: str) -> None:
    assert ask(locked, "boss", path, **OF_ALL[path]).status_code == 200
    assert ask(locked, "acme", path, **OF_ALL[path]).status_code == 403
    wanted = 200 if "metric" in OF_ALL[path] else 403
    assert ask(locked, "calls", path, **OF_ALL[path]).status_code == wanted


def test_an_account_is_shown_with_what_the_key_may_see(locked: Any) -> None:
    assert ask(locked, "acme", "/v1/accounts/acme").status_code == 200
    assert ask(locked, "acme", "/v1/accounts/other").status_code == 403
    rows = ask(locked, "calls", "/v1/accounts/acme").json()["rows"]
    assert [row["metric"] for row in rows] == ["calls"]
    assert [row["code"] for row in ask(locked, "calls", "/v1/metrics").json()["rows"]] == ["calls"]
    assert ask(locked, "calls", "/v1/metrics/seats").status_code == 403
    assert ask(locked, "calls", "/v1/metrics/calls").status_code == 200


def test_metrics_are_changed_by_administrators(locked: Any) -> None:
    server, keys = locked
    for who, status in (("acme", 403), ("writer", 403), ("boss", 201)):
        headers = {"Authorization": f"Bearer {keys[who]}"}
        body = {"code": f"new-{who}", "type": "sum"}
        assert server.http.post("/v1/metrics", json=body, headers=headers).status_code == status
        place = "/v1/metrics/new-boss"
        wanted = {"boss": 204}.get(who, 403)
        assert server.http.delete(place, headers=headers).status_code == wanted
