"""Who was let in, and where: what a cookie opens, and an upload that outlives its key."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest
from tests.server.web.running import Running, running
from tests.server.web.test_ingest import put_key

from unimeter import limits
from unimeter.errors import UnauthenticatedError
from unimeter.keys import ANYBODY, Principal, Scope, new_key, sign_portal_token
from unimeter.server.web.gateway import ITSELF
from unimeter.wire import v2
from unimeter.wire.messages import IngestReply, KeyRevoke, MetricList

NDJSON = "application/x-ndjson"
FAR = 2**33  # Unix seconds


class Locked:
    """A server with two keys."""

    def __init__(self, server: Running) -> None:
        chance = random.Random(7)
        self.server = server
        self.admin, self.writer = new_key(chance.randbytes), new_key(chance.randbytes)

    def lock(self) -> None:
        """Make the keys."""
        put_key(self.server, self.admin, "boss", ["admin"], None)
        put_key(self.server, self.writer, "writer", ["ingest"], None)
        self.server.http.headers["Authorization"] = f"Bearer {self.admin}"

    def revoke(self, key: str) -> None:
        """As an administrator."""
        assert self.server.http.delete(f"/v1/keys/{key.split('_')[1]}").status_code == 204

    @property
    def stored(self) -> int:
        """Events that are counted."""
        return int(self.server.total("acme", "calls"))


@pytest.fixture
def node() -> Iterator[Locked]:
    with running() as server:
        server.metric("calls", "count")
        yield Locked(server)


# --- cookies ------------------------------------------------------------------------------


def test_a_cookie_holds_a_session_and_nothing_else(node: Locked) -> None:
    node.lock()
    site, http = node.server.server.site, node.server.http
    assert site is not None
    session = site.server.auth.new_session(site.server.auth.login(node.admin))[0]
    portal = sign_portal_token(node.admin, "acme", [], FAR)
    del http.headers["Authorization"]
    site.failures.note = lambda address: 0.0  # type: ignore[method-assign]
    for path in ("/v1/events/tail", "/ui/accounts/acme.json", "/ui/metrics.json", "/v1/totals"):
        query = {"account": "acme", "metric": "calls"} if path.startswith("/v1") else {}
        found = {
            shown: http.get(path, params=query, headers={"Cookie": f"unimeter_session={token}"})
            for shown, token in (("portal", portal), ("key", node.admin), ("session", session))
        }
        assert found["session"].status_code == 200, path
        assert (found["portal"].status_code, found["key"].status_code) == (401, 401), path


# --- bodies that take their time ------------------------------------------------------------


class Upload:
    """A body that comes piece by piece."""

    def __init__(self, node: Locked, kind: str, key: str = "") -> None:
        port = node.server.server.http_port
        assert port is not None
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        head = f"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n"
        if key:
            head += f"Authorization: Bearer {key}\r\n"
        self._socket.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())

    def send(self, data: bytes) -> None:
        """One more piece; none of it ends the body."""
        try:
            self._socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        except ConnectionError:
            pass  # it was closed: as good as a refusal

    def answer(self) -> bytes:
        """What is said of it, until the end."""
        found = b""
        try:
            self._socket.sendall(b"0\r\n\r\n")
            while not found.endswith(b"}"):
                piece = self._socket.recv(65536)
                if not piece:
                    break
                found += piece
        except ConnectionError:
            pass
        finally:
            self._socket.close()
        return found


FORMS = {NDJSON: b'{"account":"acme","metric":"calls"}\n', "text/csv": b"acme,calls\n"}
BATCH = limits.HTTP_CHUNK_EVENTS


def begun(node: Locked, kind: str, key: str = "") -> Upload:
    """An upload of which a batch is stored."""
    upload = Upload(node, kind, key)
    upload.send(b"account,metric\n" if kind == "text/csv" else b"\n")
    before = node.stored
    upload.send(FORMS[kind] * BATCH)
    deadline = time.monotonic() + 20
    while node.stored < before + BATCH:
        assert time.monotonic() < deadline
    return upload


@pytest.mark.parametrize("kind", FORMS)
def test_an_upload_stores_nothing_more_once_its_key_is_revoked(node: Locked, kind: str) -> None:
    node.lock()
    upload = begun(node, kind, node.writer)
    node.revoke(node.writer)
    upload.send(FORMS[kind] * BATCH * 3)
    answer = upload.answer()
    assert b" 200 " not in answer.split(b"\r\n")[0]
    assert node.stored == BATCH


def test_an_upload_of_nobody_ends_with_the_first_key(node: Locked) -> None:
    upload = begun(node, NDJSON)
    node.lock()
    upload.send(FORMS[NDJSON] * BATCH * 3)
    assert b" 200 " not in upload.answer().split(b"\r\n")[0]
    assert node.stored == BATCH


def test_of_a_batch_in_parts_only_those_before_the_revocation_are_stored(node: Locked) -> None:
    node.lock()
    site = node.server.server.site
    assert site is not None
    real = site.gateway.ingest

    async def ingest(columns: v2.Columns, principal: Principal) -> tuple[IngestReply, int]:
        answer = await real(columns, principal)
        await site.gateway.ask(KeyRevoke(principal.key_id), site.server.auth.login(node.admin))
        return answer

    site.gateway.ingest = ingest  # type: ignore[method-assign]
    size = limits.EVENTS_PER_BATCH_MAX
    body = [{"account": "acme", "metric": "calls"}] * (size + 5)
    reply = node.server.http.post(
        "/v1/events", json=body, headers={"Authorization": f"Bearer {node.writer}"}
    )
    assert reply.status_code == 401 and reply.json()["stored"] == size
    assert node.stored == size


def test_every_question_to_the_node_is_held_against_who_asks_now(node: Locked) -> None:
    node.lock()
    site = node.server.server.site
    assert site is not None
    known = site.server.auth.login(node.writer)
    reader = Principal(known.key_id, known.name, frozenset([Scope.READ]))

    async def ask(principal: Principal) -> None:
        await site.gateway.ask(MetricList(), principal)

    node.server.run(ask(reader))
    node.revoke(node.writer)
    for one in (reader, ANYBODY):
        with pytest.raises(UnauthenticatedError, match="not good any more"):
            node.server.run(ask(one))
    node.server.run(ask(ITSELF))
