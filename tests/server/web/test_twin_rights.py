"""A view shows nobody more than the API would: keys for one account, for one metric, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.server.web.running import Running, running

from unimeter.client.access import Access

LOW = [{"code": "low", "value": 10, "when": "at-or-below"}]
ADMIN_VIEWS = ("/ui/keys", "/ui/webhooks", "/ui/audit")
OPEN_VIEWS = ("/overview", "/ui/accounts", "/ui/events", "/ui/alerts", "/ui/metrics/tokens")
DRY_RUN = {"metric": {"code": "tried", "type": "count"}, "source": "tokens"}


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    """Two accounts with two metrics and an alert of each; keys of every kind."""
    with running() as found:
        for code in ("tokens", "credits"):
            found.metric(code, period="lifetime", thresholds=LOW)
        for account in ("acme", 42):
            for code in ("tokens", "credits"):
                found.send([{"account": account, "metric": code, "value": n} for n in (50, -45)])
        found.http.headers["Authorization"] = f"Bearer {key(found, scopes=['admin'])}"
        yield found


def key(locked: Running, **body: Any) -> str:
    reply = locked.http.post("/v1/keys", json={"name": "of a test", **body})
    assert reply.status_code == 201, reply.text
    return str(reply.json()["key"])


def asked(locked: Running, token: str, path: str, **params: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(locked.url + path, params=params or None, headers=headers)


def tried(locked: Running, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(locked.url + "/v1/metrics/dry-run", json=DRY_RUN, headers=headers).status_code


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_reader_sees_the_views_and_not_the_administration(locked: Running, form: str) -> None:
    token = key(locked, scopes=["read"])
    for view in OPEN_VIEWS:
        assert asked(locked, token, f"{view}.{form}").status_code == 200
    for view in ADMIN_VIEWS:
        assert asked(locked, token, f"{view}.{form}").status_code == 403
    assert tried(locked, token) == 200


@pytest.mark.parametrize("form", ["json", "csv"])
def test_who_only_sends_events_sees_nothing(locked: Running, form: str) -> None:
    token = key(locked, scopes=["ingest"])
    for view in (*OPEN_VIEWS, *ADMIN_VIEWS, "/ui/accounts/acme", "/embed/usage"):
        assert asked(locked, token, f"{view}.{form}").status_code == 403
    assert tried(locked, token) == 403


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_key_of_one_account_sees_that_account(locked: Running, form: str) -> None:
    token = key(locked, scopes=["read"], account="acme")
    for view in (*OPEN_VIEWS, "/ui/accounts/42"):
        assert asked(locked, token, f"{view}.{form}").status_code == 403
    for view in ("/ui/accounts/acme", "/embed/usage"):
        assert asked(locked, token, f"{view}.{form}").status_code == 200
    assert asked(locked, token, f"/ui/alerts.{form}", account="acme").status_code == 200
    assert asked(locked, token, f"/ui/alerts.{form}", account="42").status_code == 403
    assert tried(locked, token) == 403


def test_a_key_of_one_metric_sees_that_metric_everywhere(locked: Running) -> None:
    token = key(locked, scopes=["read"], metric="tokens")
    for account in ("acme", "42"):
        shown = asked(locked, token, f"/ui/accounts/{account}.json", metric="credits").json()
        assert [one["metric"] for one in shown["totals"]] == ["tokens"] == [shown["metric"]]
        assert {one["metric"] for one in shown["alerts"]} == {"tokens"}
    assert asked(locked, token, "/ui/metrics/tokens.json").status_code == 200
    assert asked(locked, token, "/ui/metrics/credits.json").status_code == 403
    shown = asked(locked, token, "/ui/metrics.json").json()
    assert [one["code"] for one in shown["rows"]] == ["tokens"]
    for view in ("/overview", "/ui/accounts", "/ui/events", "/ui/alerts"):
        assert asked(locked, token, f"{view}.json").status_code == 403
    assert tried(locked, token) == 403


def test_a_token_is_for_the_embedded_view_alone(locked: Running) -> None:
    signer = key(locked, scopes=["read"])
    token = Access(signer, None).portal_token(42, ["tokens"], timedelta(minutes=5))
    shown = asked(locked, token, "/embed/usage.json", metric="credits").json()
    assert shown["account"] == 42 and [one["metric"] for one in shown["totals"]] == ["tokens"]
    assert {one["metric"] for one in shown["alerts"]} == {"tokens"}
    by_address = httpx.get(f"{locked.url}/embed/usage.json", params={"token": token})
    assert by_address.json()["account"] == 42
    for view in (*OPEN_VIEWS, *ADMIN_VIEWS, "/ui/accounts/42"):
        assert asked(locked, token, f"{view}.json").status_code in (401, 403)
    assert tried(locked, token) in (401, 403)


def test_without_a_key_the_pages_are_there_and_their_data_is_not(locked: Running) -> None:
    for view in (*OPEN_VIEWS, *ADMIN_VIEWS, "/ui/accounts/acme", "/embed/usage"):
        assert httpx.get(f"{locked.url}{view}.json").status_code == 401
        page = httpx.get(locked.url + ("/" if view == "/overview" else view))
        assert page.status_code == 200 and "acme" not in page.text
