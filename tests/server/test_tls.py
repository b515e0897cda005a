"""TLS: who speaks it to whom, and what is said to those who do not."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.certificates import Authority, Certificate
from tests.server.rawclient import RawClient

from unimeter import TLS, AggType, AsyncClient, Client, Event, MetricSchema
from unimeter.errors import ConnectionError, InvalidInputError, UnimeterError
from unimeter.server import accepting, shares
from unimeter.server.config import Config
from unimeter.server.peer_fetch import fetch_entry
from unimeter.server.platform import take_port
from unimeter.server.server import Server
from unimeter.server.tls import peer_client_context
from unimeter.wire.messages import ErrorReply, PartitionMap

SECRET = "sixteen bytes or more"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.certificate()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Iterator[Callable[[], Any]]:
    if request.param == "asyncio":
        yield asyncio.new_event_loop
    else:
        uvloop = pytest.importorskip("uvloop")
        yield uvloop.new_event_loop


def run(
    body: Callable[[Server], Awaitable[None]],
    factory: Callable[[], Any] = asyncio.new_event_loop,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Run `body` with a server in memory."""

    async def inside() -> None:
        server = Server(":memory:", port=0, http_port=0, **options)
        if say is not None:
            server.say = say
        async with server:
            await asyncio.wait_for(body(server), 30)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(inside())


def url(server: Server, scheme: str = "https") -> str:
    return f"{scheme}://127.0.0.1:{server.http_port}"


# --- those who speak it ------------------------------------------------------------------


def test_both_ports_speak_tls_to_the_sdk_and_to_browsers(
    authority: Authority, certificate: Certificate, loop_factory: Callable[[], Any]
) -> None:
    async def body(server: Server) -> None:
        async with AsyncClient([server.address], tls=TLS(ca=authority.ca)) as client:
            await client.metrics.create(MetricSchema("calls", AggType.COUNT))
            result = await client.ingest([Event(1, "calls") for _ in range(5000)])
            assert result.n_stored == 5000
        context = ssl.create_default_context(cafile=authority.ca)
        async with httpx.AsyncClient(verify=context) as browser:
            answer = await browser.get(url(server) + "/ready")
            assert answer.status_code == 200

        def blocking() -> int:
            with Client([server.address], tls=TLS(ca=authority.ca)) as client:
                client.ingest([Event(1, "calls")])
                again = client.ingest([Event(2, "calls")])
                return again.n_stored

        assert await asyncio.to_thread(blocking) == 1

    run(body, loop_factory, tls_cert=certificate.cert, tls_key=certificate.key)


def test_subscriptions_and_closing_clients_work_over_tls(
    authority: Authority, certificate: Certificate, loop_factory: Callable[[], Any]
) -> None:
    async def body(server: Server) -> None:
        context = ssl.create_default_context(cafile=authority.ca)
        host, port = server.address.split(":")
        for _ in range(20):  # one that leaves in the middle, again and again
            _, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(b"\x01\xee")
            writer.close()
        async with AsyncClient([server.address], tls=TLS(ca=authority.ca)) as client:
            stream = await client.alerts.subscribe()
            await stream.close()
        while server.clients.count:
            await asyncio.sleep(0.005)

    run(body, loop_factory, tls_cert=certificate.cert, tls_key=certificate.key)


@pytest.mark.parametrize("names", ["DNS:elsewhere.example.com"])
def test_a_certificate_for_another_host_is_not_trusted(authority: Authority, names: str) -> None:
    other = authority.certificate(names)

    async def body(server: Server) -> None:
        client = AsyncClient([server.address], tls=TLS(ca=authority.ca))
        with pytest.raises(ConnectionError, match="certificate is not trusted"):
            await client.connect(1.5)
        await client.close()
        unchecked = TLS(ca=authority.ca, check_hostname=False)
        async with AsyncClient([server.address], tls=unchecked):
            pass

    run(body, tls_cert=other.cert, tls_key=other.key)


def test_an_authority_that_nobody_knows_is_not_trusted(certificate: Certificate) -> None:
    async def body(server: Server) -> None:
        def blocking() -> None:
            with pytest.raises(ConnectionError, match="certificate is not trusted"):
                Client([server.address], tls=True).connect(1.5)

        await asyncio.to_thread(blocking)

    run(body, tls_cert=certificate.cert, tls_key=certificate.key)


def test_old_versions_of_tls_are_refused(authority: Authority, certificate: Certificate) -> None:
    async def body(server: Server) -> None:
        context = ssl.create_default_context(cafile=authority.ca)
        with pytest.warns(DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        host, port = server.address.split(":")
        with pytest.raises(OSError):
            await asyncio.open_connection(host, int(port), ssl=context)

    run(body, tls_cert=certificate.cert, tls_key=certificate.key)


# --- those who do not ----------------------------------------------------------------------


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_a_plain_sdk_on_a_tls_port_is_told_so_at_once(
    certificate: Certificate, make: type, loop_factory: Callable[[], Any]
) -> None:
    async def body(server: Server) -> None:
        with pytest.raises(InvalidInputError, match="this port speaks TLS: connect with tls="):
            if make is Client:
                await asyncio.to_thread(Client([server.address]).connect)
            else:
                await AsyncClient([server.address]).connect()

    run(body, loop_factory, tls_cert=certificate.cert, tls_key=certificate.key)


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_an_sdk_with_tls_on_a_plain_port_asks_whether_it_speaks_tls(
    make: type, loop_factory: Callable[[], Any]
) -> None:
    said: list[str] = []

    async def body(server: Server) -> None:
        with pytest.raises(ConnectionError, match="does that port speak TLS"):
            if make is Client:
                await asyncio.to_thread(Client([server.address], tls=True).connect, 1.5)
            else:
                client = AsyncClient([server.address], tls=True)
                try:
                    await client.connect(1.5)
                finally:
                    await client.close()
        assert server.node.statistics.closed_bad_magic > 1
        assert sum("speaks TLS, and this node has no tls_cert" in line for line in said) == 1

    run(body, loop_factory, said.append)


def test_version_1_on_a_tls_port_gets_an_error_of_its_own(certificate: Certificate) -> None:
    async def body(server: Server) -> None:
        client = await RawClient.connect(server.address)
        response, _ = await client.ask(PartitionMap(), 1)
        assert isinstance(response, ErrorReply)
        assert await client.reader.read() == b"", "and is hung up on"
        client.close()

    run(body, tls_cert=certificate.cert, tls_key=certificate.key)


def test_plain_http_on_a_tls_port_is_told_to_use_https(certificate: Certificate) -> None:
    async def body(server: Server) -> None:
        async with httpx.AsyncClient() as browser:
            answer = await browser.get(url(server, "http") + "/ready")
        assert answer.status_code == 400 and "https://" in answer.text

    run(body, tls_cert=certificate.cert, tls_key=certificate.key)


def test_tls_on_a_plain_http_port_is_closed_with_a_word_to_the_operator() -> None:
    said: list[str] = []

    async def body(server: Server) -> None:
        async with httpx.AsyncClient(verify=False) as browser:
            for _ in range(3):
                with pytest.raises(httpx.TransportError):
                    await browser.get(url(server) + "/ready")
        assert sum("speaks TLS" in line for line in said) == 1

    run(body, say=said.append)


def test_strangers_on_a_tls_port_are_closed_and_counted(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_SECONDS", 0.2)

    async def body(server: Server) -> None:
        host, port = server.address.split(":")
        for data in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\0\0\0\0" * 9, b"\xff" * 64):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(data)
            try:
                assert await asyncio.wait_for(reader.read(), 5) == b""
            except OSError:
                pass  # a reset is as good
            writer.close()
        acceptor = server._listeners[-1]
        assert isinstance(acceptor, accepting.Acceptor)
        while acceptor.statistics()["handshakes"]:
            await asyncio.sleep(0.005)
        assert acceptor.statistics()["handshakes_failed"] >= 2

    run(body, tls_cert=certificate.cert, tls_key=certificate.key)


def test_a_crowd_that_never_shakes_hands_keeps_nobody_out(
    authority: Authority, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "HANDSHAKES_MAX", 8)

    async def body(server: Server) -> None:
        host, port = server.address.split(":")
        crowd = [await asyncio.open_connection(host, int(port)) for _ in range(40)]
        for place, (_, writer) in enumerate(crowd):
            if place % 2:
                writer.write(b"\x16")  # half of them begin
        async with AsyncClient([server.address], tls=TLS(ca=authority.ca)):
            pass
        acceptor = server._listeners[-1]
        assert isinstance(acceptor, accepting.Acceptor)
        assert acceptor.statistics()["handshakes"] <= 8
        for _, writer in crowd:
            writer.close()

    run(body, tls_cert=certificate.cert, tls_key=certificate.key)


@pytest.mark.parametrize("data", [b"\0", b"\x16\x03\x01\x02\x00\x01"], ids=["plain", "hello"])
def test_whoever_makes_room_is_closed_at_once(
    data: bytes,
    certificate: Certificate,
    loop_factory: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "HANDSHAKES_MAX", 8)
    monkeypatch.setattr(accepting, "HANDSHAKE_SECONDS", 60.0)
    monkeypatch.setattr(accepting, "REFUSAL_SECONDS", 60.0)

    async def body(server: Server) -> None:
        host, port = server.address.split(":")
        acceptor = server._listeners[-1]
        assert isinstance(acceptor, accepting.Acceptor)
        crowd = []
        for number in range(1, 41):  # neither a whole hello nor a whole header to answer
            crowd.append(await asyncio.open_connection(host, int(port)))
            crowd[-1][1].write(data)
            while acceptor._count < min(number, 8) or acceptor._waiting:
                await asyncio.sleep(0.001)
        closed = 0
        for reader, writer in crowd[:20]:
            try:
                closed += await asyncio.wait_for(reader.read(), 5) == b""
            except OSError:
                closed += 1
            writer.close()
        assert closed == 20
        assert acceptor.statistics()["handshakes"] <= 8
        for _, writer in crowd:
            writer.close()

    run(body, loop_factory, tls_cert=certificate.cert, tls_key=certificate.key)


# --- certificates of clients -------------------------------------------------------------------


def test_clients_without_a_certificate_are_refused_where_one_is_asked_for(
    authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    own = authority.certificate()
    foreign = Authority(tmp_path, "foreign").certificate()

    async def body(server: Server) -> None:
        good = TLS(ca=authority.ca, cert=own.cert, key=own.key)
        async with AsyncClient([server.address], tls=good) as client:
            await client.metrics.list()
        wrong = TLS(ca=authority.ca, cert=foreign.cert, key=foreign.key)
        for tls in (TLS(ca=authority.ca), wrong):
            stranger = AsyncClient([server.address], tls=tls)
            with pytest.raises(UnimeterError):
                await stranger.connect(0.3)
            await stranger.close()

    run(
        body,
        tls_cert=certificate.cert,
        tls_key=certificate.key,
        tls_ca=authority.ca,
        tls_clients=True,
    )


# --- new certificates ----------------------------------------------------------------------------


def test_a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(certificate.cert, cert)
    shutil.copy(certificate.key, key)
    newer = authority.certificate()
    said: list[str] = []

    def put(source: Certificate) -> None:
        for found, place in ((source.cert, cert), (source.key, key)):
            shutil.copy(found, f"{place}.new")
            os.replace(f"{place}.new", place)

    async def shown(server: Server) -> bytes:
        host, port = server.address.split(":")
        context = ssl.create_default_context(cafile=authority.ca)
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        serial = found.getpeercert(binary_form=True)
        writer.close()
        assert serial is not None
        return serial

    async def body(server: Server) -> None:
        async with AsyncClient([server.address], tls=TLS(ca=authority.ca)) as client:
            first = await shown(server)
            cert.write_text("rubbish")
            server.reload()
            server.reload()
            assert await shown(server) == first
            assert sum("stays in use" in line for line in said) == 1
            put(newer)
            while not any("read again" in line for line in said):
                await asyncio.sleep(0.01)  # it looks by itself
            assert await shown(server) != first
            await client.metrics.list()  # what stands goes on
        assert server.tls is not None
        assert server.tls.statistics() == {"tls_reloads": 1, "tls_reload_failures": 1}

    run(body, say=said.append, tls_cert=str(cert), tls_key=str(key))


# --- options -------------------------------------------------------------------------------------


def test_files_that_are_no_good_refuse_the_start_before_a_port_is_taken(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    other = authority.certificate()
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("rubbish")
    for options, words in (
        ({"tls_cert": str(tmp_path / "absent")}, "No such file"),
        ({"tls_cert": str(rubbish)}, "TLS: .*rubbish"),
        ({"tls_cert": certificate.cert, "tls_key": other.key}, "mismatch"),
        (
            {
                "tls_cert": certificate.cert,
                "tls_key": certificate.key,
                "tls_ca": str(rubbish),
                "tls_clients": True,
            },
            "tls_ca",
        ),
    ):
        with pytest.raises(InvalidInputError, match=words):
            asyncio.run(Server(":memory:", port=0, http_port=0, **options).start())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tls_key": "k"}, "tls_cert is not"),
        ({"tls_clients": True}, "tls_cert is not"),
        ({"tls_cert": "c", "tls_clients": True}, "needs tls_ca"),
        ({"tls_cert": "c", "tls_ca": "a", "peer_tls": True}, "peers is not"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Config(**options)


# --- between nodes ------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    taken = [take_port("127.0.0.1", 0, "port") for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def member(node: int, ports: list[int], tmp_path: Path, **options: Any) -> Server:
    peers = ",".join(f"{n}=127.0.0.1:{port}" for n, port in enumerate(ports, 1))
    return Server(
        tmp_path / f"node-{node}",
        port=0,
        http_port=0,
        node_id=node,
        peers=peers,
        cluster_id="tls",
        cluster_secret=SECRET,
        **options,
    )


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_nodes_speak_tls_to_each_other_and_a_stranger_is_not_heard(
    tmp_path: Path, authority: Authority, certificate: Certificate, loop_factory: Callable[[], Any]
) -> None:
    options = {
        "tls_cert": certificate.cert,
        "tls_key": certificate.key,
        "tls_ca": authority.ca,
        "peer_tls": True,
    }
    foreign = Authority(tmp_path / "foreign", "foreign")

    async def body() -> None:
        ports = free_ports(3)
        servers = [member(n, ports, tmp_path, **options) for n in (1, 2, 3)]
        for server in servers:
            await server.start()
        try:
            await until(lambda: all(server.node.lead for server in servers))
            seeds = [server.address for server in servers]
            async with AsyncClient(seeds, tls=TLS(ca=authority.ca)) as client:
                await client.metrics.create(MetricSchema("calls", AggType.COUNT))
                result = await client.ingest([Event(1, "calls")], timeout=10)
                assert result.n_stored == 1
            await until(lambda: len({server.node.machine.applied for server in servers}) == 1)
            for server in servers:
                assert server.cluster is not None
                assert len(server.cluster.peers._out) == 2
            await _strangers(ports[0], foreign)
            assert servers[0].cluster is not None
            acceptor = servers[0].cluster.peers._listener
            assert isinstance(acceptor, accepting.Acceptor)
            # It is refused by its certificate, and not for its silence later on.
            await until(lambda: acceptor.handshakes_failed > 0, 2)
            await _fetch(servers, ports)
        finally:
            for server in servers:
                await server.stop()

    async def _strangers(port: int, foreign: Authority) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(32))
        assert await reader.read() == b""
        writer.close()
        own = foreign.certificate()
        context = ssl.create_default_context(cafile=authority.ca)
        context.load_cert_chain(own.cert, own.key)
        with pytest.raises(OSError):  # with TLS 1.3 it shows at the first read
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            if not await reader.read():
                raise ConnectionResetError
        writer.close()

    async def _fetch(servers: list[Server], ports: list[int]) -> None:
        """The repair's blocking sockets speak TLS as well."""
        gone = servers.pop(0)
        assert gone.cluster is not None
        hello = replace(gone.cluster.hello(), last_index=2**32)  # as new as can be
        context = peer_client_context(gone.config)
        await gone.stop()  # who asks is not running yet
        places = {2: ("127.0.0.1", ports[1])}
        await until(lambda: len(servers[0].cluster.peers._in) == 1)  # type: ignore[union-attr]
        entry = await asyncio.to_thread(
            fetch_entry, places, SECRET.encode(), hello, 2, 5.0, print, context
        )
        assert entry is not None and entry.index == 2
        said: list[str] = []
        entry = await asyncio.to_thread(
            fetch_entry, places, SECRET.encode(), hello, 2, 2.0, said.append
        )
        assert entry is None and said, "a plain one gets nothing"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(body())


def test_a_node_without_peer_tls_is_not_reached_and_the_operator_is_told_why(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    said: list[str] = []

    async def body() -> None:
        ports = free_ports(3)
        with_tls = member(
            1, ports, tmp_path, tls_cert=certificate.cert, tls_key=certificate.key,
            tls_ca=authority.ca, peer_tls=True,
        )  # fmt: skip
        plain = member(2, ports, tmp_path)
        with_tls.say = said.append
        for server in (with_tls, plain):
            await server.start()
        try:
            await until(lambda: any("peer_tls" in line for line in said))
            assert with_tls.cluster is not None and not with_tls.cluster.peers._out
        finally:
            for server in (with_tls, plain):
                await server.stop()

    asyncio.run(body())


def test_the_handshake_of_the_binary_port_waits_for_nobody(
    authority: Authority, certificate: Certificate
) -> None:
    """A client that stops in the middle of its handshake holds up no other."""

    async def body(server: Server) -> None:
        host, port = server.address.split(":")
        silent = socket.create_connection((host, int(port)))
        silent.send(b"\x16\x03\x01")
        async with AsyncClient([server.address], tls=TLS(ca=authority.ca)) as client:
            await client.metrics.create(MetricSchema("calls", AggType.COUNT))
        silent.close()

    run(body, tls_cert=certificate.cert, tls_key=certificate.key)
