"""Who may what, walked over every packet type and every route: nothing is let through by default.

Each walk is made from the product's own lists (`PacketType`, `Site.endpoints`), so a new
packet or route that nobody has thought of here fails a test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.server.rawclient import DAY_NS, START_NS, RawClient

from unimeter import AggType, AlertThreshold, AsyncClient, Event, MetricSchema, Scope
from unimeter.control import Actor, WebhookRecord
from unimeter.errors import InvalidInputError
from unimeter.keys import KeyRecord, record_of, sign_portal_token
from unimeter.server.rights import PACKET_RIGHTS, Right
from unimeter.server.server import Server
from unimeter.server.web.endpoint import Endpoint
from unimeter.types import from_ns
from unimeter.wire import messages as m
from unimeter.wire import v1, v2
from unimeter.wire.framer import VERSION_2, request_frame
from unimeter.wire.messages import ErrorCode, ErrorReply, PacketType, Status

ACCOUNT, METRIC = "acme-co", "calls_made"  # what the wrong keys may not see
MINE, OTHER = "umbrella", "bytes_sent"  # what they are for
RANGE = (START_NS, START_NS + DAY_NS)
WEBHOOK = WebhookRecord("wh_aaaaaaaaaaaa", "https://example.com/", "whsec_" + "A" * 43 + "=")


class Place:
    """A server with two accounts, two metrics and one key of each kind."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.keys: dict[str, str] = {}
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}")

    async def fill(self) -> None:
        async with AsyncClient([self.server.address]) as client:
            for code in (METRIC, OTHER):
                threshold = AlertThreshold("two", 2)
                await client.metrics.create(
                    MetricSchema(code, AggType.COUNT, thresholds=[threshold])
                )
            await client.ingest(
                [
                    Event(account, code, timestamp=from_ns(START_NS + n))
                    for account in (ACCOUNT, MINE)
                    for code in (METRIC, OTHER)
                    for n in range(3)
                ]
            )
            self.keys["admin"] = (await client.keys.create("root", [Scope.ADMIN])).key
        admin = AsyncClient([self.server.address], key=self.keys["admin"])
        wanted: dict[str, tuple[list[Scope], str | None, str | None]] = {
            "ingest": ([Scope.INGEST], None, None),
            "read": ([Scope.READ], None, None),
            "both": ([Scope.INGEST, Scope.READ], None, None),
            "account": ([Scope.INGEST, Scope.READ], MINE, None),
            "metric": ([Scope.INGEST, Scope.READ], None, OTHER),
            "revoked": ([Scope.INGEST, Scope.READ], None, None),
        }
        for name, (scopes, account, metric) in wanted.items():
            made = await admin.keys.create(name, scopes, account=account, metric=metric)
            self.keys[name] = made.key
        await admin.keys.revoke(self.keys["revoked"].split("_")[1])
        self.server.look_at_keys()
        await admin.close()

    async def raw(self, key: str = "") -> RawClient:
        """A connection that has logged in with the key of this name, if any."""
        client = await RawClient.connect(self.server.address)
        if key:
            reply, _ = await client.ask(m.Hello(token=self.keys[key].encode()))
            assert isinstance(reply, m.HelloReply), reply
        return client

    def bearer(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[key]}"}

    @property
    def applied(self) -> int:
        return self.server.node.machine.applied


def place(body: Callable[[Place], Awaitable[None]], **options: Any) -> None:
    async def inside() -> None:
        async with Server(":memory:", port=0, http_port=0, **options) as server:
            made = Place(server)
            await made.fill()
            async with made.http:
                await asyncio.wait_for(body(made), 60)

    asyncio.run(inside())


# --- packets --------------------------------------------------------------------------


def _batch(account: str = ACCOUNT, code: str = METRIC) -> m.Ingest:
    return m.Ingest([m.IngestRow(account, code, 1, START_NS)])


def _key(scope: str = "read") -> KeyRecord:
    return record_of(f"um_{'a' * 12}_{'b' * 52}", "made", [scope])


def samples(account: str = ACCOUNT, code: str = METRIC) -> dict[PacketType, m.Request]:
    """A request of every type that names this account and metric where it can name any."""
    return {
        PacketType.INGEST_ASYNC: m.Ingest(_batch(account, code).rows, is_sync=False),
        PacketType.INGEST_SYNC: _batch(account, code),
        PacketType.GET_PARTITION_MAP: m.PartitionMap(),
        PacketType.METRIC_PUT: m.MetricPut(MetricSchema("new", AggType.COUNT)),
        PacketType.METRIC_DELETE: m.MetricDelete(code),
        PacketType.METRIC_LIST: m.MetricList(),
        PacketType.USAGE_QUERY: m.UsageQuery(account, code, *RANGE),
        PacketType.USAGE_REALTIME: m.UsageRealtime(account, code),
        PacketType.EVENTS_LIST: m.EventsList(account, code, *RANGE),
        PacketType.ALERTS_LIST: m.AlertsList(account, code),
        PacketType.ALERT_PUSH_ENABLE: m.AlertPushEnable(None, [account], [code]),
        PacketType.USAGE_QUERY_BREAKDOWN: m.Breakdown(account, code, *RANGE, []),
        PacketType.ACCOUNTS_LIST: m.Accounts(code, *RANGE),
        PacketType.USAGE_SERIES: m.Series(account, code, *RANGE),
        PacketType.MEMBERS_LIST: m.Members(account, code, START_NS),
        PacketType.WATCH: m.Watch([account], [code]),
        PacketType.CLUSTER_STATUS: m.ClusterStatus(),
        PacketType.TRANSFER_LEADER: m.TransferLeader(1),
        PacketType.KEY_PUT: m.KeyPut(_key()),
        PacketType.KEY_REVOKE: m.KeyRevoke("a" * 12),
        PacketType.KEY_LIST: m.KeyList(),
        PacketType.WEBHOOK_PUT: m.WebhookPut(WEBHOOK),
        PacketType.WEBHOOK_DELETE: m.WebhookDelete(WEBHOOK.id),
        PacketType.WEBHOOK_LIST: m.WebhookList(),
        PacketType.WEBHOOK_CONTROL: m.WebhookControl(WEBHOOK.id, m.WebhookAction.PAUSE),
        PacketType.AUDIT_LIST: m.AuditList(),
    }


def frames(account: str = ACCOUNT, code: str = METRIC) -> dict[PacketType, bytes]:
    """(kind, payload) of every request, and of the one that is between nodes only."""
    found = {}
    for kind, request in samples(account, code).items():
        encoded, payload = v2.encode_request(request)
        assert encoded == kind, (encoded, kind)
        found[kind] = payload
    kind, payload = v2.encode_request(m.MetricDelete(METRIC))
    found[PacketType.ON_BEHALF] = v2.encode_on_behalf(Actor(name="root"), kind, payload)
    return found


NEEDS_SCOPE = [kind for kind, right in PACKET_RIGHTS.items() if isinstance(right, Scope)]
NO_REQUEST = [kind for kind, right in PACKET_RIGHTS.items() if right is Right.PUSH]
SEEN_BY_ALL = {PacketType.GET_PARTITION_MAP, PacketType.METRIC_LIST}


async def code_of(client: RawClient, kind: int, payload: bytes) -> ErrorCode:
    """What a frame is refused with; NONE if it is not."""
    frame = await client.exchange(kind, payload)
    if frame.status == Status.NOT_LEADER and not frame.payload:
        return ErrorCode.NOT_LEADER
    if frame.status == Status.OK:
        return ErrorCode.NONE
    # A refusal looks the same whatever was asked.
    _, response = v2.decode_response(PacketType.METRIC_LIST, frame.status, frame.payload)
    return response.code if isinstance(response, ErrorReply) else ErrorCode.NONE


def test_every_packet_type_has_its_rights_and_its_sample() -> None:
    assert set(PACKET_RIGHTS) == set(PacketType)
    asked = set(PacketType) - {PacketType.HELLO, *NO_REQUEST}
    assert set(frames()) == asked


def test_what_changes_something_needs_more_than_reading() -> None:
    """Said once more, apart from the table that the walks below are made from."""
    lists = {PacketType.KEY_LIST, PacketType.WEBHOOK_LIST, PacketType.AUDIT_LIST}
    admin = {kind for kind, right in PACKET_RIGHTS.items() if right is Scope.ADMIN}
    assert admin == {PacketType(kind) for kind in v2.WITH_ACTOR} | lists
    ingest = {kind for kind, right in PACKET_RIGHTS.items() if right is Scope.INGEST}
    assert ingest == {PacketType.INGEST_ASYNC, PacketType.INGEST_SYNC}


def test_without_a_key_every_packet_is_refused_and_nothing_of_it_is_done() -> None:
    async def body(place: Place) -> None:
        before = place.applied
        client = await place.raw()
        for kind, payload in frames().items():
            assert await code_of(client, kind, payload) == ErrorCode.UNAUTHENTICATED, kind.name
        for number in sorted(set(range(256)) - set(PacketType) - {0}):
            assert await code_of(client, number, b"") == ErrorCode.UNAUTHENTICATED, number
        reply, _ = await client.ask(m.Hello())
        assert isinstance(reply, ErrorReply) and reply.code == ErrorCode.UNAUTHENTICATED
        assert "asks for a key" in reply.text
        client.close()
        assert place.applied == before

    place(body)


def test_version_1_is_refused_as_soon_as_there_is_a_key() -> None:
    found = []
    for request in samples(7, METRIC).values():
        try:
            found.append(v1.encode_request(request))
        except InvalidInputError:
            pass  # version 1 has no such request

    async def body(place: Place) -> None:
        before = place.applied
        client = await place.raw()
        for kind, payload in found:
            frame = await client.exchange(kind, payload, 1)
            assert frame.status == Status.ERROR, kind
        client.close()
        assert place.applied == before

    assert len(found) >= 8
    place(body)


def test_a_revoked_key_and_a_wrong_one_are_told_so_and_hung_up_on() -> None:
    async def body(place: Place) -> None:
        head, _, _ = place.keys["read"].rpartition("_")
        session, _ = place.server.auth.new_session(place.server.auth.login(place.keys["admin"]))
        portal = sign_portal_token(place.keys["read"], ACCOUNT, [], 2**33)
        shown = [place.keys["revoked"], f"{head}_{'a' * 52}", "nonsense", "\xff", session, portal]
        for token in shown:
            client = await place.raw()
            hello = v2.encode_request(m.Hello(token=token.encode("latin-1")))
            client.send(request_frame(VERSION_2, hello[0], 77, hello[1]))
            # What follows in the same write is not done either.
            kind, payload = v2.encode_request(_batch())
            client.send(request_frame(VERSION_2, kind, 78, payload))
            before = place.applied
            frame = await client.reply(77)
            _, response = v2.decode_response(hello[0], frame.status, frame.payload)
            assert isinstance(response, ErrorReply), token
            assert response.code == ErrorCode.UNAUTHENTICATED
            assert token not in response.text
            while await client.receive():
                pass  # until it is closed
            assert place.applied == before
            client.close()

    place(body)


@pytest.mark.parametrize("kind", NEEDS_SCOPE, ids=lambda kind: kind.name)
def test_too_small_a_scope_is_refused_and_the_right_one_is_not(kind: PacketType) -> None:
    scope = PACKET_RIGHTS[kind]
    small = {Scope.INGEST: ["read"], Scope.READ: ["ingest"], Scope.ADMIN: ["both"]}[scope]  # type: ignore[index]
    enough = {Scope.INGEST: "ingest", Scope.READ: "read", Scope.ADMIN: "admin"}[scope]  # type: ignore[index]

    async def body(place: Place) -> None:
        payload, before = frames()[kind], place.applied
        for name in small:
            client = await place.raw(name)
            assert await code_of(client, kind, payload) == ErrorCode.FORBIDDEN, name
            client.close()
        assert place.applied == before
        client = await place.raw(enough)
        refused = (ErrorCode.FORBIDDEN, ErrorCode.UNAUTHENTICATED)
        assert await code_of(client, kind, payload) not in refused
        client.close()

    place(body)


@pytest.mark.parametrize("key", ["account", "metric"])
def test_a_key_for_another_account_or_metric_is_refused_everywhere(key: str) -> None:
    async def body(place: Place) -> None:
        before = place.applied
        client = await place.raw(key)
        for kind, payload in frames().items():
            found = await code_of(client, kind, payload)
            if kind in SEEN_BY_ALL:
                assert found == ErrorCode.NONE, kind.name
            elif kind is not PacketType.ON_BEHALF:
                assert found == ErrorCode.FORBIDDEN, kind.name
            else:
                assert found == ErrorCode.UNSUPPORTED
        assert place.applied == before
        client.close()

    place(body)


def test_a_key_for_one_account_gets_what_is_its_own() -> None:
    async def body(place: Place) -> None:
        client = await place.raw("account")
        for kind in NEEDS_SCOPE:
            if PACKET_RIGHTS[kind] is Scope.ADMIN:
                continue
            found = await code_of(client, kind, frames(MINE, METRIC)[kind])
            for_all = kind in (PacketType.ACCOUNTS_LIST, PacketType.CLUSTER_STATUS)
            wanted = (ErrorCode.FORBIDDEN,) if for_all else (ErrorCode.NONE,)
            if kind in (PacketType.MEMBERS_LIST, PacketType.USAGE_QUERY_BREAKDOWN):
                wanted = (ErrorCode.INVALID_INPUT,)  # it has no members, and no tags
            assert found in wanted, kind.name
        client.close()

    place(body)


def test_a_list_of_metrics_shows_a_key_its_own() -> None:
    async def body(place: Place) -> None:
        for key, codes in (("metric", [OTHER]), ("account", [METRIC, OTHER])):
            client = await place.raw(key)
            listed, _ = await client.ask(m.MetricList())
            assert isinstance(listed, m.MetricListReply)
            assert [schema.code for schema in listed.metrics] == codes
            client.close()

    place(body)


def test_a_batch_with_one_foreign_event_is_refused_as_a_whole() -> None:
    async def body(place: Place) -> None:
        client = await place.raw("account")
        rows = [m.IngestRow(MINE, METRIC, 1, START_NS), m.IngestRow(ACCOUNT, METRIC, 1, START_NS)]
        before = place.applied
        for order in (rows, rows[::-1]):
            kind, payload = v2.encode_request(m.Ingest(order))
            assert await code_of(client, kind, payload) == ErrorCode.FORBIDDEN
        assert place.applied == before
        kind, payload = v2.encode_request(m.Ingest(rows[:1] * 3))
        frame = await client.exchange(kind, payload)
        _, response = v2.decode_response(kind, frame.status, frame.payload)
        assert isinstance(response, m.IngestReply) and response.stored == 3
        client.close()

    place(body)


def test_frames_in_pieces_and_many_in_one_piece_are_held_against_the_key_alike() -> None:
    async def body(place: Place) -> None:
        client = await place.raw("account")
        good = v2.encode_request(m.Ingest([m.IngestRow(MINE, METRIC, 1, START_NS)] * 40))
        bad = v2.encode_request(m.Ingest([m.IngestRow(ACCOUNT, METRIC, 1, START_NS)] * 40))
        data = b"".join(
            request_frame(VERSION_2, *((bad if n % 3 == 0 else good)[0], 100 + n),
                          (bad if n % 3 == 0 else good)[1])
            for n in range(30)
        )  # fmt: skip
        for start in range(0, len(data), 997):
            client.send(data[start : start + 997])
            await asyncio.sleep(0)
        for n in range(30):
            frame = await client.reply(100 + n)
            assert (frame.status == Status.OK) == (n % 3 != 0), n
        client.close()

    place(body)


def test_alerts_of_others_are_not_pushed() -> None:
    async def body(place: Place) -> None:
        for key, wanted in (("account", {MINE}), ("metric", {ACCOUNT, MINE})):
            client = await place.raw(key)
            reply, _ = await client.ask(m.AlertPushEnable(0))
            assert isinstance(reply, m.AlertPushReply), reply
            seen = []
            for _ in range(2):
                push = await client.push()
                seen.append(v2.decode_push(push.status, push.payload)[1])
            alerts = [one.alert for one in seen if isinstance(one, m.AlertPush)]
            assert {alert.account for alert in alerts} == wanted
            if key == "metric":
                assert {alert.metric_code for alert in alerts} == {OTHER}
            client.close()

    place(body)


# --- keys that come and go ------------------------------------------------------------


def test_a_revoked_keys_connections_are_told_and_closed() -> None:
    async def body(place: Place) -> None:
        client, other = await place.raw("read"), await place.raw("ingest")
        admin = AsyncClient([place.server.address], key=place.keys["admin"])
        await admin.keys.revoke(place.keys["read"].split("_")[1])
        told = await client.push()
        assert told.request_id == 0 and told.status == Status.ERROR
        while await client.receive():
            pass
        assert await code_of(other, PacketType.GET_PARTITION_MAP, b"") == ErrorCode.NONE
        await admin.close()
        client.close()
        other.close()

    place(body)


def test_the_first_key_ends_the_connections_of_everybody() -> None:
    async def inside() -> None:
        async with Server(":memory:", port=0, http_port=0) as server:
            anybody = await RawClient.connect(server.address)
            await anybody.metric()
            async with AsyncClient([server.address]) as client:
                made = await client.keys.create("root", [Scope.ADMIN])
            while await anybody.receive():
                pass
            async with AsyncClient([server.address], key=made.key) as client:
                trail = await client.audit()
            assert [record.action for record in trail] == ["key.put", "metric.put"]
            assert {record.actor.via for record in trail} == {"binary"}
            anybody.close()

    asyncio.run(inside())


def test_a_stream_by_http_ends_with_its_key() -> None:
    async def body(place: Place) -> None:
        headers = place.bearer("read")
        async with place.http.stream("GET", "/v1/stream", headers=headers, timeout=20) as stream:
            assert stream.status_code == 200
            lines = stream.aiter_raw()
            await anext(lines)
            admin = AsyncClient([place.server.address], key=place.keys["admin"])
            await admin.keys.revoke(place.keys["read"].split("_")[1])
            with pytest.raises((httpx.RemoteProtocolError, StopAsyncIteration)):
                while True:  # it ends with its last chunk where there is time for one
                    await anext(lines)
            await admin.close()

    place(body)


def test_whoever_does_not_log_in_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimeter.server.clients.LOGIN_SECONDS", 0.0)

    async def body(place: Place) -> None:
        client, stranger = await place.raw("read"), await place.raw()
        try:
            while await stranger.receive():
                pass
        except ConnectionResetError:
            pass
        stranger.close()
        assert await code_of(client, PacketType.METRIC_LIST, frames()[PacketType.METRIC_LIST]) == 0
        assert place.server.node.statistics.closed_strangers == 1
        client.close()

    place(body)


def test_a_crowd_of_strangers_pushes_out_its_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimeter.server.clients.STRANGERS_MAX", 3)

    async def body(place: Place) -> None:
        crowd = [await place.raw() for _ in range(8)]
        while place.server.node.statistics.closed_strangers < 5:
            await asyncio.sleep(0.002)
        assert await code_of(crowd[-1], PacketType.KEY_LIST, b"") == ErrorCode.UNAUTHENTICATED
        for one in crowd:
            one.close()

    place(body)


def test_strangers_make_room_for_whoever_comes_when_there_are_too_many() -> None:
    async def body(place: Place) -> None:
        client = await place.raw("read")
        clients = place.server.clients
        clients.connections_max = clients.count + 3
        crowd = [await place.raw() for _ in range(9)]
        late = await place.raw("read")
        for one in (client, late):
            asked = await code_of(one, PacketType.METRIC_LIST, frames()[PacketType.METRIC_LIST])
            assert asked == 0
        assert place.server.node.statistics.closed_too_many == 0
        assert place.server.node.statistics.closed_strangers == 7
        for one in (*crowd, client, late):
            one.close()

    place(body)


def test_a_stranger_can_not_make_the_node_hold_its_bytes() -> None:
    async def body(place: Place) -> None:
        client = await place.raw()
        for kind in (PacketType.INGEST_SYNC, PacketType.KEY_PUT, PacketType.HELLO):
            head = request_frame(VERSION_2, kind, 5, b"")
            client.send(head[:8] + (2**23).to_bytes(4, "little") + head[12:] + bytes(4096))
            frame = await client.reply(5)  # before the rest has come
            assert frame.status == Status.ERROR
            assert place.server.clients.buffers.held_bytes == 0
            client.send(bytes(2**23 - 4096))
        client.close()

    place(body)


# --- routes ---------------------------------------------------------------------------

JSON = {"content-type": "application/json"}
_EVENT = {"account": ACCOUNT, "metric": METRIC, "timestamp_ns": START_NS}
_CLOUD = {
    "specversion": "1.0", "type": METRIC, "source": "test", "id": "1", "subject": ACCOUNT,
    "time": "2026-01-01T00:00:00Z", "data": {},
}  # fmt: skip

SKIPPED = {
    "/v1/otlp/v1/metrics": "needs a mapping file; its own tests hold it against keys",
    "/v1/otlp/v1/logs": "needs a mapping file; its own tests hold it against keys",
    "/v2/billing/meter_event_session": "stores nothing: it gives a token of the same key",
}
OWN = (
    "/v1/session", "/v1/metrics", "/embed/usage.json", "/embed/usage.csv",
    "/ui/new-metric.json", "/ui/new-metric.csv",
)  # fmt: skip
"""They tell of whoever asks, or of a form, and take no account from the request."""
LEAVES_OUT = {
    "metric": ("/v1/accounts/{", "/ui/accounts/{", "/ui/metrics.", "/overview."),
    "account": ("/ui/metrics",),  # a definition belongs to no account
}
"""Lists that answer a restricted key and leave out what it may not see."""
BODIES: dict[str, tuple[dict[str, str], bytes]] = {
    "/v1/events": (JSON, json.dumps(_EVENT).encode()),
    "/api/v1/events": (
        {"content-type": "application/cloudevents+json"},
        json.dumps(_CLOUD).encode(),
    ),
    "/api/v1/events/batch": (
        JSON,
        json.dumps(
            {"events": [{"transaction_id": "1", "external_subscription_id": ACCOUNT,
                         "code": METRIC, "timestamp": 1767225600}]}
        ).encode(),
    ),
    "/v1/billing/meter_events": (
        {"content-type": "application/x-www-form-urlencoded"},
        f"event_name={METRIC}&payload[stripe_customer_id]={ACCOUNT}&payload[value]=1".encode(),
    ),
    "/v2/billing/meter_events": (
        JSON,
        json.dumps({"event_name": METRIC, "payload": {"stripe_customer_id": ACCOUNT, "value": "1"}}
                   ).encode(),
    ),
    "/v2/billing/meter_event_stream": (
        JSON,
        json.dumps({"events": [{"event_name": METRIC, "payload": {
            "stripe_customer_id": ACCOUNT, "value": "1"}}]}).encode(),
    ),
    "/v1/metrics/dry-run": (
        JSON,
        json.dumps({"metric": {"code": "new", "type": "count"}, "source": METRIC}).encode(),
    ),
}  # fmt: skip
QUERY = {
    "account": ACCOUNT, "metric": METRIC, "start": "2026-01-01T00:00:00Z",
    "end": "2026-01-02T00:00:00Z", "window": "day", "group_by": "region",
    "at": "2026-01-01T00:00:00Z",
}  # fmt: skip


def path_of(endpoint: Endpoint, account: str = ACCOUNT, metric: str = METRIC) -> str:
    path = endpoint.path
    for name, value in (
        ("{code:path}", metric), ("{code}", metric), ("{account:path}", account),
        ("{account}", account), ("{id}", "a" * 12),
    ):  # fmt: skip
        path = path.replace(name, value)
    assert "{" not in path, f"say what to put into {path}"
    return path


def guarded(server: Server) -> Iterable[Endpoint]:
    """Every route that asks who one is."""
    assert server.site is not None
    found = [one for one in server.site.endpoints if one.scope is not None]
    assert len(found) > 20
    return found


def known(endpoint: Endpoint, query: dict[str, str]) -> dict[str, str]:
    """What of a query a route takes: with anything else it would be refused for that alone."""
    names = {param.name for param in endpoint.params if param.where == "query"}
    if not endpoint.is_strict:
        return query
    return {name: value for name, value in query.items() if name in names}


async def ask(place: Place, endpoint: Endpoint, headers: dict[str, str], **query: str) -> Any:
    content_type, body = BODIES.get(endpoint.path, (JSON, b"{}"))
    if endpoint.method == "GET":
        content_type, body = {}, b""
    request = place.http.build_request(
        endpoint.method, path_of(endpoint), headers={**content_type, **headers},
        params=known(endpoint, query), content=body,
    )  # fmt: skip
    answer = await place.http.send(request, stream=True)
    text = b""
    if "event-stream" not in answer.headers.get("content-type", ""):
        text = await answer.aread()
    await answer.aclose()
    return answer.status_code, text.decode()


def test_nobody_is_asked_at_open_pages_only() -> None:
    async def body(place: Place) -> None:
        assert place.server.site is not None
        for one in place.server.site.endpoints:
            if one.scope is None:
                is_page = one.method == "GET" and not one.path.endswith((".json", ".csv"))
                is_known = one.path in ("/v1/session", "/openapi.json")
                assert is_page or is_known, f"{one.method} {one.path} asks nobody who he is"
                assert is_known or not one.path.startswith("/v1/"), one.path

    place(body)


ASKS = ("/v1/metrics/dry-run", "/v1/session")  # a body that asks, and changes nothing
FOR_ADMINS = ("key", "audit", "webhook")


def test_routes_that_change_something_need_more_than_reading() -> None:
    async def body(place: Place) -> None:
        for one in guarded(place.server):
            where = (one.method, one.path)
            if any(word in one.path for word in FOR_ADMINS):
                assert one.scope is Scope.ADMIN, where
            elif one.method != "GET" and one.path not in ASKS:
                is_event = "event" in one.path or "otlp" in one.path
                assert one.scope is (Scope.INGEST if is_event else Scope.ADMIN), where

    place(body)


def test_without_a_key_or_with_a_revoked_one_every_route_is_refused() -> None:
    async def body(place: Place) -> None:
        before = place.applied
        head, _, _ = place.keys["read"].rpartition("_")
        place.server.site.failures = _Patient()  # type: ignore[union-attr,assignment]
        shown: list[dict[str, str]] = [
            {},
            place.bearer("revoked"),
            {"Authorization": f"Bearer {head}_{'a' * 52}"},
            {"Cookie": "unimeter_session=ums_aaaaaaaaaaaa.9999999999.AAAA"},
        ]
        for endpoint in guarded(place.server):
            for headers in shown:
                status, _ = await ask(place, endpoint, headers)
                assert status == 401, (endpoint.method, endpoint.path, headers)
        assert place.applied == before

    place(body)


class _Patient:
    """Counts nobody's failures: the walk fails on purpose, hundreds of times."""

    def note(self, address: str) -> float:
        return 0.0


def test_too_small_a_scope_is_refused_on_every_route() -> None:
    async def body(place: Place) -> None:
        before = place.applied
        small = {Scope.INGEST: "read", Scope.READ: "ingest", Scope.ADMIN: "both"}
        for endpoint in guarded(place.server):
            assert endpoint.scope is not None
            status, _ = await ask(place, endpoint, place.bearer(small[endpoint.scope]))
            assert status == 403, (endpoint.method, endpoint.path)
        assert place.applied == before

    place(body)


def test_a_portal_token_opens_only_what_is_made_for_it() -> None:
    async def body(place: Place) -> None:
        before = place.applied
        token = sign_portal_token(place.keys["read"], MINE, [], 2**33)
        for endpoint in guarded(place.server):
            where = path_of(endpoint, MINE, METRIC)
            query = known(endpoint, QUERY | {"account": MINE})
            request = place.http.build_request(
                endpoint.method, where, params=query, headers={"Authorization": f"Bearer {token}"}
            )
            answer = await place.http.send(request, stream=True)
            await answer.aclose()
            if not endpoint.takes_portal:
                assert answer.status_code == 403, (endpoint.method, endpoint.path)
            else:
                assert endpoint.scope is Scope.READ, "a portal token only reads"
                assert answer.status_code not in (401, 403), (endpoint.path, answer.status_code)
            by_query = await place.http.send(
                place.http.build_request(endpoint.method, where, params=query | {"token": token}),
                stream=True,
            )
            await by_query.aclose()
            assert (by_query.status_code != 401) == endpoint.takes_portal, endpoint.path
        assert place.applied == before

    place(body)


@pytest.mark.parametrize("who", ["account", "metric", "portal", "portal-metric"])
def test_no_route_shows_or_takes_what_belongs_to_others(who: str) -> None:
    """Asked for by name: refused. Not asked for by name: not in the answer either."""

    async def body(place: Place) -> None:
        before = place.applied
        if who.startswith("portal"):
            codes = [OTHER] if who == "portal-metric" else []
            token = sign_portal_token(place.keys["read"], MINE, codes, 2**33)
            headers = {"Authorization": f"Bearer {token}"}
        else:
            headers = place.bearer(who)
        hidden = METRIC if "metric" in who else ACCOUNT
        for endpoint in guarded(place.server):
            if endpoint.path in SKIPPED or endpoint.scope is Scope.ADMIN:
                continue
            if endpoint.path == "/v1/metrics/{code:path}" and "metric" not in who:
                continue  # a definition belongs to no account
            if endpoint.path in OWN:
                status, text = await ask(place, endpoint, headers)
                assert hidden not in text
                continue
            assert endpoint.method == "GET" or endpoint.path in BODIES, (
                f"{endpoint.path} takes a body: put one with {ACCOUNT} and {METRIC} into BODIES"
            )
            status, text = await ask(place, endpoint, headers, **QUERY)
            leaves_out = LEAVES_OUT["metric" if "metric" in who else "account"]
            is_left_out = endpoint.path.startswith(leaves_out) and hidden not in text
            assert status in (403, 404) or is_left_out, (endpoint.path, status, text[:300])
            if endpoint.method == "GET" and "{" not in endpoint.path:
                status, text = await ask(place, endpoint, headers)
                assert hidden not in text, (endpoint.path, status, text[:300])
        assert place.applied == before, "nothing was stored"

    place(body)


# --- changes at another node ----------------------------------------------------------


def test_the_trail_names_who_asked_a_node_that_does_not_lead(tmp_path: Any) -> None:
    from tests.server.test_tls import free_ports, member, until

    async def inside() -> None:
        ports = free_ports(3)
        servers = [member(n, ports, tmp_path) for n in (1, 2, 3)]
        for server in servers:
            await server.start()
        try:
            await until(lambda: all(server.ready_page()[0] == 200 for server in servers))
            follower = next(server for server in servers if not server.node.leads)
            leader = next(server for server in servers if server.node.leads)
            async with AsyncClient([leader.address]) as client:
                made = await client.keys.create("root", [Scope.ADMIN])
            await until(lambda: all(server.auth.has_key for server in servers))
            raw = await RawClient.connect(follower.address)
            reply, _ = await raw.ask(m.Hello(token=made.key.encode()))
            assert isinstance(reply, m.HelloReply), reply
            await raw.metric("by_binary")
            raw.close()
            async with httpx.AsyncClient() as http:
                answer = await http.post(
                    f"http://127.0.0.1:{follower.http_port}/v1/keys",
                    json={"name": "by http", "scopes": ["read"]},
                    headers={"Authorization": f"Bearer {made.key}"},
                )
                assert answer.status_code == 201
            async with AsyncClient([leader.address], key=made.key) as client:
                trail = await client.audit()
            found = {(one.action, one.actor.name, one.actor.via) for one in trail}
            assert ("metric.put", "root", "binary") in found
            assert ("key.put", "root", "http") in found
            stranger = await RawClient.connect(follower.address)
            reply, _ = await stranger.ask(m.MetricDelete("by_binary"))
            assert isinstance(reply, ErrorReply) and reply.code == ErrorCode.UNAUTHENTICATED
            stranger.close()
        finally:
            for server in servers:
                await server.stop()

    asyncio.run(inside())


def test_a_portal_token_of_the_sdk_is_one_that_a_node_takes() -> None:
    async def body(place: Place) -> None:
        client = AsyncClient([place.server.address], key=place.keys["read"])
        token = client.portal_token(MINE, [METRIC], timedelta(minutes=5))
        answer = await place.http.get(
            "/v1/totals", params={"account": MINE, "metric": METRIC, "token": token}
        )
        assert answer.status_code == 200, answer.text
        assert place.keys["read"].rpartition("_")[2] not in token
        await client.close()

    place(body)
