"""Webhooks of a cluster of real processes whose leader is killed while it delivers.

``UNIMETER_WEBHOOK_KILLS=20`` is the full run.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.receivers import CLOSE, TAKE_AND_CLOSE, Behaviour, ReceiverThread, Said

from unimeter import AggType, AlertThreshold, Client, Event, MetricSchema
from unimeter.demo.cluster_process import ClusterProcess
from unimeter.webhooks import Message

KILLS = int(os.environ.get("UNIMETER_WEBHOOK_KILLS", "3"))
SMALL = ("--segment-bytes", "1MiB", "--disk-free-bytes-min", "1MiB")
ACCOUNTS = 8
AHEAD_MAX = 400  # alerts raised and not delivered


class Crossings(threading.Thread):
    """Raises alerts of several accounts, one after the other, until it is told to end."""

    def __init__(self, addresses: list[str], receiver: ReceiverThread) -> None:
        super().__init__(name="crossings", daemon=True)
        self.addresses, self.receiver, self.is_ending = addresses, receiver, False
        self.raised = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Client(self.addresses, timeout=20.0) as client:
                while not self.is_ending:
                    self.receiver.wait_until(self.is_near, 120)
                    events = []
                    for account in range(ACCOUNTS):
                        events += [Event(account, "credits", 10), Event(account, "credits", -10)]
                    result = client.ingest(events)
                    assert result.n_refused == 0
                    self.raised += ACCOUNTS
        except BaseException as error:
            self.failure = error

    def is_near(self) -> bool:
        """Whether the receiver is not far behind."""
        return self.raised - len(self.receiver.firsts) < AHEAD_MAX or self.is_ending


def ask(cluster: ClusterProcess, method: str, path: str, body: Any = None) -> Any:
    node = cluster.nodes[cluster.running[0]]
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{node.http_port}{path}", data, method=method
    )
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * KILLS)
def test_no_alert_is_lost_and_few_repeated_when_leaders_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(message: Message, nth: int) -> Behaviour:
        """Slow, and wrong now and then."""
        position = int(message.data["position"])
        if nth == 1 and position % 97 == 0:
            return (500, CLOSE, TAKE_AND_CLOSE)[position % 3]
        return Said(204, after=0.003)

    with (
        ClusterProcess(tmp_path, *SMALL) as cluster,
        ReceiverThread(behave=behave) as receiver,
    ):
        with Client(cluster.addresses) as client:
            thresholds = [AlertThreshold("high", 5, recurring=True)]
            client.metrics.create(MetricSchema("credits", AggType.SUM, thresholds=thresholds))
        made = ask(cluster, "POST", "/v1/webhooks", {"url": receiver.url})
        receiver.secret = made["secret"]
        crossings = Crossings(cluster.addresses, receiver)
        crossings.start()
        for _ in range(KILLS):
            so_far = len(receiver.firsts)
            receiver.wait_until(lambda least=so_far + 200: len(receiver.firsts) > least)
            leader = cluster.wait_leader()
            cluster.kill(leader)
            killed_at = len(receiver.firsts)
            cluster.wait_leader(other_than=leader)
            receiver.wait_until(lambda least=killed_at: len(receiver.firsts) > least)
            cluster.restart(leader)
        crossings.is_ending = True
        crossings.join(60)
        assert crossings.failure is None, crossings.failure
        path = f"/v1/webhooks/{made['id']}/deliveries"
        receiver.wait_until(lambda: len(receiver.firsts) >= crossings.raised, 60)
        receiver.check_order()
        assert sorted(receiver.positions) == list(range(1, crossings.raised + 1))
        alerts = ask(cluster, "GET", f"/v1/alerts?limit=1&after={crossings.raised}")["rows"]
        assert not alerts, "every alert that there is has come"
        receiver.wait_until(lambda: ask(cluster, "GET", path)["lag"] == 0, 60)
        repeats = len(receiver.taken) - len(receiver.firsts)
        with capsys.disabled():
            print(f"\n{KILLS} leaders killed, {crossings.raised} alerts, {repeats} came twice")
        # What a leader delivers of eight accounts, at 3 ms each, until its progress is in the log.
        assert repeats <= KILLS * 400
