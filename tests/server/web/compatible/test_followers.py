"""A node that does not lead maps and stores like one that does, even what it has yet to apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.web.compatible.conftest import EVER

from unimeter import AggType, Client, MetricSchema
from unimeter.demo.cluster_process import ClusterProcess


@pytest.mark.slow
def test_a_metric_made_at_the_leader_is_known_at_once_at_a_follower(tmp_path: Path) -> None:
    with ClusterProcess(tmp_path / "cluster") as cluster:
        leader = cluster.wait_leader()
        nodes = cluster.nodes
        followers = [node for number, node in nodes.items() if number != leader]
        with Client([nodes[leader].address]) as client, httpx.Client(trust_env=False) as http:
            for at in range(20):
                code = f"metric {at}"
                client.metrics.create(MetricSchema(code, AggType.SUM, field_name="size"))
                for node in followers:
                    url = f"http://127.0.0.1:{node.http_port}/api/v1/events"
                    answer = http.post(url, json=event(code, at))
                    assert answer.status_code == 204, answer.text
                assert client.query("acme", code, EVER).value.sum == at, "once, and by its field"


def event(code: str, size: int) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": "1", "source": "s", "type": code, "subject": "acme",
        "time": "2026-11-05T12:00:00Z", "data": {"size": size, "value": 1000},
    }  # fmt: skip
