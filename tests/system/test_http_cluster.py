"""HTTP on a cluster: any node takes any request, and a leader that is killed costs a retry."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from unimeter.demo.cluster_process import ClusterProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PATIENCE_SECONDS = 30.0
RETRIED = (503, 504, 429)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcess]:
    with ClusterProcess(tmp_path) as found:
        found.wait_leader()
        post(found, 1, "/v1/metrics", {"code": "api_calls", "type": "sum"})
        yield found


def url(cluster: ClusterProcess, node: int) -> str:
    return f"http://127.0.0.1:{cluster.nodes[node].http_port}"


def post(cluster: ClusterProcess, node: int, path: str, body: Any, **headers: str) -> Any:
    """POST, again and again, to one node after the other, until one answers for good."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    kind = headers.pop("kind", "application/json")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {
        "Content-Type": kind,
        **{name.replace("_", "-"): text for name, text in headers.items()},
    }
    while True:
        try:
            reply = httpx.post(
                url(cluster, node) + path, content=content, headers=given, timeout=40
            )
            if reply.status_code not in RETRIED:
                assert reply.status_code in (200, 201), reply.text
                return reply.json()
        except httpx.TransportError:
            pass  # killed, or not there yet
        assert time.monotonic() < deadline, "no node answers"
        node = node % 3 + 1
        time.sleep(0.02)  # as `Retry-After` would have it, but sooner


def total(cluster: ClusterProcess, node: int, account: str, **more: Any) -> int:
    reply = httpx.get(
        f"{url(cluster, node)}/v1/totals",
        params={"account": account, "metric": "api_calls", "linearizable": "true"},
        timeout=40,
        **more,
    )
    assert reply.status_code == 200, reply.text
    return int(reply.json()["value"])


def test_every_node_takes_events_and_reads_what_another_acknowledged(
    cluster: ClusterProcess,
) -> None:
    for turn in range(9):
        to, at = turn % 3 + 1, (turn + 1) % 3 + 1
        reply = post(cluster, to, "/v1/events", {"account": "acme", "metric": "api_calls"})
        assert reply["outcomes"] == ["stored"]
        read = httpx.get(
            f"{url(cluster, at)}/v1/totals",
            params={"account": "acme", "metric": "api_calls"},
            headers={"Unimeter-Position": str(reply["position"])},
            timeout=40,
        )
        assert read.status_code == 200, read.text
        assert read.json()["value"] == turn + 1
    status = httpx.get(f"{url(cluster, 2)}/v1/status", timeout=40).json()
    assert len(status["nodes"]) == 3 and status["leader"] in (1, 2, 3)


def test_requests_with_a_key_are_counted_once_while_the_leader_is_killed(
    cluster: ClusterProcess,
) -> None:
    sent = [0, 0, 0]
    ended = threading.Event()

    def send(which: int) -> None:
        body = [{"account": f"a{which}", "metric": "api_calls", "value": 1}] * 20
        while not ended.is_set():
            reply = post(cluster, which + 1, "/v1/events", body, Idempotency_Key=str(uuid.uuid4()))
            assert reply["stored"] + reply["duplicates"] == 20, reply
            sent[which] += 20

    threads = [threading.Thread(target=send, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        before = list(sent)
        leader = cluster.wait_leader()
        cluster.kill(leader)
        cluster.wait_leader(other_than=leader)
        cluster.restart(leader)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(now - then < 40 for now, then in zip(sent, before, strict=True)):
            assert time.monotonic() < deadline, "the senders do not go on"
            time.sleep(0.01)
    ended.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for which, count in enumerate(sent):
        assert total(cluster, which + 1, f"a{which}") == count


def test_a_stream_through_a_follower_survives_a_new_leader(cluster: ClusterProcess) -> None:
    leader = cluster.wait_leader()
    through = leader % 3 + 1
    line = b'{"account":"s","metric":"api_calls"}\n'
    key = str(uuid.uuid4())
    count, has_begun = 40_000, threading.Event()

    def body() -> Iterator[bytes]:
        for number in range(count // 1000):
            if number == 10:
                has_begun.set()
            yield line * 1000

    def kill() -> None:
        has_begun.wait(PATIENCE_SECONDS)
        cluster.kill(leader)

    killer = threading.Thread(target=kill)
    killer.start()
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
    reply = httpx.post(
        f"{url(cluster, through)}/v1/events", content=body(), headers=headers, timeout=90
    )
    killer.join()
    if reply.status_code == 200:
        assert reply.json()["stored"] + reply.json()["duplicates"] == count
    else:  # which it says, with what was stored; sent again it is whole
        assert reply.status_code in RETRIED, reply.text
        again = post(
            cluster, through, "/v1/events", line * count, kind=headers["Content-Type"],
            Idempotency_Key=key,
        )  # fmt: skip
        assert again["stored"] + again["duplicates"] == count
    assert total(cluster, through, "s") == count
