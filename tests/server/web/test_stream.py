"""GET /v1/stream as a program reads it: events, ids, rights, bounds, and how fast it is."""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from tests.client.fake_server import wait_until
from tests.server.web.running import Running, running

from unimeter.keys import sign_portal_token
from unimeter.server import pumps
from unimeter.server.web.api import stream

THRESHOLD = {"thresholds": [{"code": "full", "value": 100}]}


class Told(NamedTuple):
    """One event of a stream."""

    event: str
    id: str
    data: Any


class Reader:
    """An open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.status, self.headers = response.status_code, response.headers
        self._lines = response.iter_lines()

    def next(self) -> Told:
        """The next event; a comment is one without a name."""
        found = {"event": "", "id": "", "data": ""}
        for line in self._lines:
            name, _, value = line.partition(":")
            if name:
                found[name] = value.removeprefix(" ")
            elif not line and (found["event"] or found["id"]):
                data = json.loads(found["data"]) if found["data"] else None
                return Told(found["event"], found["id"], data)
            elif line:
                found["event"] = line
        raise EOFError

    def read(self, kind: str) -> Told:
        """The next event, which is of that kind."""
        found = self.next()
        assert found.event == kind, found
        return found


@contextlib.contextmanager
def opened(
    server: Running, query: str = "", last: str = "", key: str = "", hello: bool = True
) -> Iterator[Reader]:
    headers = {"Last-Event-ID": last} if last else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    with server.http.stream("GET", f"/v1/stream{query}", headers=headers) as response:
        if response.status_code != 200:
            response.read()
            raise AssertionError(response.text)
        reader = Reader(response)
        if hello:
            reader.read("hello")
        yield reader


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as found:
        found.metric("tokens", **THRESHOLD)
        found.metric("calls", "count")
        yield found


def send(server: Running, account: Any, value: int = 1, metric: str = "tokens") -> int:
    reply = server.send({"account": account, "metric": metric, "value": value})
    return int(reply["position"])


def test_a_stream_begins_with_totals_and_tells_changes_and_alerts(server: Running) -> None:
    send(server, "acme", 60)
    with opened(server, "?account=acme&metric=tokens") as reader:
        assert reader.headers["content-type"].startswith("text/event-stream")
        assert reader.headers["cache-control"] == "no-store"
        first = reader.read("total")
        assert first.data["account"] == "acme" and first.data["value"] == 60
        assert {"aggregation", "count", "sum", "start", "end", "position"} <= set(first.data)
        position = send(server, "acme", 50)
        alert = reader.read("alert")
        assert alert.data["position"] == 1 and alert.data["threshold"] == "full"
        total = reader.read("total")
        assert total.data["value"] == 110 and total.data["position"] == position
        assert total.id == f"1.{position}"
        send(server, "other", 500)
        send(server, "acme", 1, "calls")
        send(server, "acme", 1)
        assert reader.read("total").data["value"] == 111


def test_the_id_of_the_last_event_resumes_without_loss_or_repetition(server: Running) -> None:
    query = "?account=1&account=2&metric=tokens"
    with opened(server, query) as reader:
        assert [reader.read("total").data["account"] for _ in range(2)] == [1, 2]
        send(server, 1, 150)
        assert reader.read("alert").data["position"] == 1
        last = reader.read("total")
    send(server, 2, 150)
    with opened(server, query, last.id) as reader:
        alert, total = reader.read("alert"), reader.read("total")
        assert (alert.data["position"], total.data["account"]) == (2, 2)
    # Between the alert and its total: the alert is not told again, the total is.
    with opened(server, query, alert.id) as reader:
        assert reader.read("total").data["account"] == 2
    with opened(server, f"{query}&after={total.id}") as reader:
        send(server, 1, 1)
        assert reader.read("total").data["value"] == 151


def test_an_id_between_two_totals_of_one_batch_resumes_with_both(server: Running) -> None:
    query = "?account=1&account=2&metric=tokens&alerts=false"
    with opened(server, query) as reader:
        begun = [reader.read("total").id for _ in range(2)]
        assert begun[0].endswith(".0") and not begun[1].endswith(".0")
        server.send([{"account": n, "metric": "tokens", "value": 1} for n in (1, 2)])
        first, second = reader.read("total"), reader.read("total")
        assert first.id == begun[1] != second.id
    with opened(server, query, first.id) as reader:
        assert [reader.read("total").data["account"] for _ in range(2)] == [1, 2]
    with opened(server, query, second.id) as reader:
        send(server, 2, 1)
        assert reader.read("total").data["value"] == 2


def test_only_alerts_or_only_totals(server: Running) -> None:
    with opened(server, "?totals=false") as alerts, opened(server, "?alerts=false") as totals:
        send(server, 1, 150)
        send(server, 2, 250)
        assert [alerts.read("alert").data["account"] for _ in range(2)] == [1, 2]
        assert {totals.read("total").data["account"] for _ in range(2)} == {1, 2}


def test_large_integers_are_told_as_digits(server: Running) -> None:
    send(server, 2**60, 2**61)
    with opened(server, f"?account={2**60}&metric=tokens&alerts=false") as reader:
        data = reader.read("total").data
        assert (data["account"], data["value"]) == (str(2**60), str(2**61))


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("alerts=false&totals=false", "totals"),
        ("after=soon", "after"),
        ("after=1.2.3", "after"),
        ("interval_ms=-1", "interval_ms"),
        ("alerts=perhaps", "alerts"),
        ("&".join(f"account={n}" for n in range(257)), "account"),
        ("&".join(f"metric=m{n}" for n in range(257)), "metric"),
        ("&".join(f"metric=m{n}&account={n}" for n in range(100)), "account"),
    ],
)
def test_what_can_not_be_streamed_is_refused(server: Running, query: str, place: str) -> None:
    reply = server.http.get(f"/v1/stream?{query}")
    assert reply.status_code == 400
    assert reply.json()["errors"][0]["path"] == place


def test_an_unknown_metric_is_named_and_followed_once_it_is_there(server: Running) -> None:
    with opened(server, "?account=1&metric=later", hello=False) as reader:
        assert reader.read("hello").data["unknown"] == ["later"]
        server.metric("later")
        assert reader.read("total").data["metric"] == "later"


def test_many_changes_are_told_with_fewer_messages(server: Running) -> None:
    with opened(server, "?account=1&metric=tokens&alerts=false&interval_ms=200") as reader:
        reader.read("total")
        for _ in range(100):
            send(server, 1, 1)
        values = []
        while not values or values[-1] < 100:
            values.append(reader.read("total").data["value"])
        assert values == sorted(set(values)) and len(values) < 20


def test_a_quiet_stream_has_a_heartbeat_that_moves_its_id(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pumps, "HEARTBEAT_SECONDS", 0.0)
    with opened(server, "?account=1&metric=tokens") as reader:
        reader.read("total")
        position = send(server, 2, 1)
        while (found := reader.next()).id != f"0.{position}":
            assert found.event == ": heartbeat"


# --- who may --------------------------------------------------------------------------


def new_key(server: Running, admin: str = "", **wanted: Any) -> str:
    headers = {"Authorization": f"Bearer {admin}"} if admin else {}
    reply = server.http.post("/v1/keys", json={"name": "k", **wanted}, headers=headers)
    assert reply.status_code in (200, 201), reply.text
    return str(reply.json()["key"])


def test_a_key_for_one_account_or_metric_hears_of_nothing_else(server: Running) -> None:
    admin = new_key(server, scopes=["admin"])
    mine = new_key(server, admin, scopes=["read"], account="acme")
    metric = new_key(server, admin, scopes=["read"], metric="calls")
    server.http.headers["Authorization"] = f"Bearer {admin}"

    def status(query: str, key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        with server.http.stream("GET", f"/v1/stream{query}", headers=headers) as response:
            return response.status_code

    assert status("?account=acme", mine) == status("?metric=calls", metric) == 200
    assert status("?account=other", mine) == status("?account=acme&account=x", mine) == 403
    assert status("?metric=tokens", metric) == status("?metric=calls&metric=x", metric) == 403
    assert status("", "um_aaaaaaaaaaaa_" + "b" * 52) == 401
    assert status("", new_key(server, admin, scopes=["ingest"])) == 403
    with opened(server, "", key=mine) as one, opened(server, "", key=metric) as two:
        send(server, "other", 150)
        send(server, "acme", 150)
        send(server, "other", 1, "calls")
        assert one.read("alert").data["account"] == "acme"
        assert one.read("total").data["account"] == "acme"
        told = two.read("total").data
        assert (told["metric"], told["account"]) == ("calls", "other")


def test_a_stream_ends_when_its_key_is_revoked(server: Running) -> None:
    admin = new_key(server, scopes=["admin"])
    reader_key = new_key(server, admin, scopes=["read"])
    server.http.headers["Authorization"] = f"Bearer {admin}"
    ident = reader_key.split("_")[1]
    with opened(server, "", key=reader_key) as reader:
        assert server.http.delete(f"/v1/keys/{ident}").status_code in (200, 204)
        with pytest.raises(EOFError):  # its last chunk has come: it is not cut
            reader.next()
    wait_until(lambda: server.server.clients.pumps.statistics()["live_streams"] == 0)


# --- bounds -----------------------------------------------------------------------------


def streams(server: Running) -> int:
    return server.server.clients.pumps.statistics()["live_streams"]


def test_readers_that_go_away_leave_nothing(server: Running) -> None:
    for _ in range(20):
        with opened(server, "?account=1"):
            assert streams(server) >= 1
    wait_until(lambda: streams(server) == 0)
    assert server.server.node.touched is None


def test_a_reader_that_does_not_read_holds_a_bounded_number_of_bytes(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    largest = 0
    taken: list[int] = []
    give = stream.EventStream._give

    def noted(one: stream.EventStream, data: bytes) -> None:
        taken.append(len(data))
        give(one, data)

    monkeypatch.setattr(stream.EventStream, "_give", noted)
    with socket.create_connection((host, int(port))) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: streams(server) == 1)
        for first in range(0, 60_000, 1000):
            rows = range(first, first + 1000)
            server.send([{"account": n, "metric": "tokens", "value": 150} for n in rows])
            for connection in server.server.site._state.connections:  # type: ignore[union-attr]
                largest = max(largest, connection.transport.get_write_buffer_size())
        # What waits is the socket's buffer and one chunk; alerts wait in the engine.
        assert largest < 1_000_000 and max(taken) < 500_000
        assert sum(taken) < 30_000_000
        (topic,) = server.server.clients.pumps.live._topics.values()
        assert len(topic.pairs) <= 4096 and len(topic.alerts) <= 1024
    wait_until(lambda: streams(server) == 0)


def test_there_are_only_so_many_streams(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "STREAMS_MAX", 2)
    with opened(server), opened(server):
        reply = server.http.get("/v1/stream")
        assert reply.status_code == 503 and "Retry-After" in reply.headers


def test_streams_end_when_the_node_stops() -> None:
    ended = threading.Event()
    with running() as server:
        server.metric("tokens")

        def read() -> None:
            with (
                httpx.Client(base_url=server.url, timeout=30) as http,
                http.stream("GET", "/v1/stream?account=1&metric=tokens") as response,
            ):
                for _ in response.iter_lines():
                    pass
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        wait_until(lambda: streams(server) == 1)
        began = time.monotonic()
    assert ended.wait(10) and time.monotonic() - began < 10


# --- speed ------------------------------------------------------------------------------


def test_from_acknowledgement_to_event_in_under_100_ms(server: Running) -> None:
    heard: dict[int, float] = {}

    def read(reader: Reader) -> None:
        while len(heard) < 60:
            told = reader.next()
            heard.setdefault(told.data["value"], time.monotonic())

    with opened(server, "?account=1&metric=tokens&alerts=false") as reader:
        reader.read("total")
        thread = threading.Thread(target=read, args=(reader,), daemon=True)
        thread.start()
        waits = []
        with httpx.Client(base_url=server.url) as other:
            for value in range(1, 61):
                body = {"account": 1, "metric": "tokens", "value": 1}
                assert other.post("/v1/events", json=body).status_code == 200
                acknowledged = time.monotonic()
                wait_until(lambda value=value: value in heard)  # type: ignore[misc]
                waits.append(heard[value] - acknowledged)
        thread.join(10)
    assert statistics.median(waits) < 0.1, waits


def test_a_portal_token_hears_of_its_account_only(server: Running) -> None:
    admin = new_key(server, scopes=["admin"])
    server.http.headers["Authorization"] = f"Bearer {admin}"
    token = sign_portal_token(admin, "acme", ["tokens"], int(time.time()) + 60)
    wrong = server.http.get(
        f"/v1/stream?token={token}&account=other", headers={"Authorization": ""}
    )
    assert wrong.status_code in (401, 403)
    with opened(server, key=token) as reader:
        send(server, "other", 150)
        send(server, "acme", 1, "calls")
        send(server, "acme", 150)
        first = reader.read("total").data
        assert (first["account"], first["metric"]) == ("acme", "tokens")
        told = [reader.next() for _ in range(2)]
        assert {one.data["account"] for one in told} == {"acme"}
        assert {one.data["metric"] for one in told} == {"tokens"}
