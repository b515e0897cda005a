"""Who may send what by the compatible routes: each refuses, and stores nothing of the request."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.web.compatible.conftest import EVER
from tests.server.web.compatible.test_otlp import logs, point, record, request, total

from unimeter import AggType, Client, MetricSchema, limits
from unimeter.demo.process import NodeProcess
from unimeter.keys import new_key

NOON = "2026-11-05T12:00:00Z"


def cloud_event(account: str, metric: str) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": "1", "source": "s", "type": metric, "subject": account,
        "time": NOON,
    }  # fmt: skip


def lago(account: str, metric: str) -> dict[str, Any]:
    found = {"transaction_id": "1", "code": metric, "external_subscription_id": account}
    return {**found, "timestamp": NOON}


def stripe(account: str, metric: str) -> dict[str, Any]:
    payload = {"stripe_customer_id": account, "value": "1"}
    return {"event_name": metric, "payload": payload, "identifier": "1", "timestamp": NOON}


def form(account: str, metric: str) -> dict[str, str]:
    found = {"event_name": metric, "payload[stripe_customer_id]": account, "payload[value]": "1"}
    return {**found, "identifier": "1", "timestamp": NOON}


BATCH = {"content-type": "application/cloudevents-batch+json"}
ROUTES: dict[str, Any] = {
    "/v1/events": lambda a, m: {"json": [cloud_event("mine", "used"), cloud_event(a, m)],
                                "headers": BATCH},
    "/api/v1/events": lambda a, m: {"json": [cloud_event("mine", "used"), cloud_event(a, m)]},
    "/api/v1/events?lago": lambda a, m: {"json": {"event": lago(a, m)}},
    "/api/v1/events/batch": lambda a, m: {"json": {"events": [lago("mine", "used"), lago(a, m)]}},
    "/v1/billing/meter_events": lambda a, m: {"data": form(a, m)},
    "/v2/billing/meter_events": lambda a, m: {"json": stripe(a, m)},
    "/v2/billing/meter_event_stream": lambda a, m: {"json": {"events": [stripe(a, m)]}},
    "/v1/otlp/v1/metrics": lambda a, m: {"json": request(a, total(m, point("1")))},
    "/v1/otlp/v1/logs": lambda a, m: {"json": logs(a, record(name=m))},
}  # fmt: skip


class Keyed:
    """A node that has keys."""

    def __init__(self, folder: Path) -> None:
        self.admin = new_key(os.urandom)
        (folder / "admin").write_text(self.admin)
        self.node = NodeProcess(
            folder / "node", env={"UNIMETER_ADMIN_KEY_FILE": str(folder / "admin")}
        )
        self.node.start()
        url = f"http://127.0.0.1:{self.node.http_port}"
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=30)
        self.client = Client([self.node.address], key=self.admin)
        self.key("admin")  # the log's first one has to be of this scope
        for code in ("used", "other"):
            self.client.metrics.create(MetricSchema(code, AggType.SUM))

    def key(self, *scopes: str, **only: str) -> str:
        """A new key."""
        answer = self.http.post(
            "/v1/keys",
            json={"name": "k", "scopes": scopes, **only},
            headers={"Authorization": f"Bearer {self.admin}"},
        )
        assert answer.status_code < 300, answer.text
        return str(answer.json()["key"])

    def post(self, path: str, key: str, account: str, metric: str) -> httpx.Response:
        """One event by that route."""
        more = ROUTES[path](account, metric)
        headers = {**more.pop("headers", {}), "Authorization": f"Bearer {key}"}
        return self.http.post(path, headers=headers, **more)

    def count(self, account: str, metric: str) -> int:
        """How many events were counted."""
        return self.client.query(account, metric, EVER).value.count


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    found = Keyed(tmp_path_factory.mktemp("rights"))
    yield found
    found.http.close()
    found.client.close()
    found.node.kill()


@pytest.mark.parametrize("path", ROUTES)
def test_a_key_for_one_account_sends_for_that_one_only(keyed: Keyed, path: str) -> None:
    key = keyed.key("ingest", account="mine")
    assert keyed.post(path, key, "mine", "used").status_code in (200, 204)
    before = keyed.count("mine", "used")
    assert keyed.post(path, key, "theirs", "used").status_code == 403
    assert keyed.post(path, key, "theirs", "no such metric").status_code == 403
    assert keyed.count("theirs", "used") == 0
    assert keyed.count("mine", "used") == before, "what stood before it is not stored either"


@pytest.mark.parametrize("path", ROUTES)
def test_a_key_for_one_metric_sends_that_one_only(keyed: Keyed, path: str) -> None:
    key = keyed.key("ingest", metric="used")
    assert keyed.post(path, key, "anybody", "used").status_code in (200, 204)
    assert keyed.post(path, key, "anybody", "other").status_code == 403
    assert keyed.count("anybody", "other") == 0


@pytest.mark.parametrize("path", ROUTES)
def test_a_key_that_reads_sends_nothing(keyed: Keyed, path: str) -> None:
    assert keyed.post(path, keyed.key("read"), "reader", "used").status_code == 403
    assert keyed.post(path, "um_none", "reader", "used").status_code == 401
    assert keyed.count("reader", "used") == 0


@pytest.mark.parametrize("path", ["/v1/billing/meter_events", "/v2/billing/meter_events"])
def test_stripes_clients_are_refused_in_stripes_words(keyed: Keyed, path: str) -> None:
    answer = keyed.post(path, keyed.key("ingest", account="mine"), "theirs", "used")
    assert answer.json()["error"]["type"] == "permission_error"
    answer = keyed.post(path, "um_none", "theirs", "used")
    assert answer.json()["error"]["type"] == "authentication_error"


def test_the_key_may_be_a_user_name(keyed: Keyed) -> None:
    key = keyed.key("ingest")
    basic = base64.b64encode(f"{key}:".encode()).decode()
    answer = keyed.http.post(
        "/v1/billing/meter_events",
        data=form("basic", "used"),
        headers={"Authorization": f"Basic {basic}"},
    )
    assert answer.status_code == 200
    assert keyed.count("basic", "used") == 1


def test_a_session_for_the_stream_may_what_its_key_may_and_makes_no_other(keyed: Keyed) -> None:
    key = keyed.key("ingest", account="mine")
    path = "/v2/billing/meter_event_session"
    answer = keyed.http.post(path, headers={"Authorization": f"Bearer {key}"})
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()["authentication_token"]
    assert key not in answer.text
    stream = "/v2/billing/meter_event_stream"
    assert keyed.post(stream, token, "mine", "used").status_code == 200
    assert keyed.post(stream, token, "theirs", "used").status_code == 403
    again = keyed.http.post(path, headers={"Authorization": f"Bearer {token}"})
    assert again.status_code == 403


@pytest.mark.parametrize("path", [path for path in ROUTES if "billing/meter_events" not in path])
def test_a_body_that_is_read_as_a_tree_has_a_smaller_bound(keyed: Keyed, path: str) -> None:
    headers = {"content-type": "application/json", "Authorization": f"Bearer {keyed.admin}"}
    headers |= ROUTES[path]("mine", "used").get("headers", {})
    body = b"[" + b"{}," * (limits.HTTP_TREE_BYTES_MAX // 3) + b"{}]"
    assert len(body) > limits.HTTP_TREE_BYTES_MAX
    assert keyed.http.post(path, content=body, headers=headers).status_code == 413
