"""Requests to other servers: what one costs us at most, and whom it trusts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from random import Random

import pytest
from tests.receivers import GARBAGE, HANG, Behaviour, Receiver, Said
from tests.server.certificates import Authority, Certificate

from unimeter import limits
from unimeter.server.outbound import _address_of as address_of
from unimeter.server.outbound import is_forbidden
from unimeter.server.platform import REAL, Answer, Outbound, OutboundError
from unimeter.webhooks import signed_headers

SECRET = "whsec_b25seSBmb3IgdGhpcyBleGFtcGxl"
BODY = b'{"type":"webhook.test","timestamp":"2026-11-05T10:30:00Z","data":{}}'

Body = Callable[[Outbound, Receiver], Awaitable[None]]


def asking(how: Behaviour, body: Body, certificate: Certificate | None = None) -> None:
    """Run `body` with a receiver that behaves like this."""

    async def inside() -> None:
        tls = None
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate.cert, certificate.key)
        outbound = REAL.outbound()
        try:
            async with Receiver(SECRET, lambda message, nth: how, tls) as receiver:
                await body(outbound, receiver)
        finally:
            await outbound.close()

    asyncio.run(inside())


async def post(outbound: Outbound, url: str, seconds: float = 15.0) -> Answer:
    headers = signed_headers(SECRET, "test_1", int(time.time()), BODY)
    return await outbound.post(url, headers, BODY, seconds)


def test_an_answer_is_its_status_its_headers_and_the_beginning_of_its_body() -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        answer = await post(outbound, receiver.url)
        assert (answer.status, answer.headers["retry-after"]) == (503, "7")
        assert answer.body == b"x" * limits.WEBHOOK_ERROR_BYTES_MAX

    asking(Said(503, {"Retry-After": "7"}, b"x" * 5000), body)


def test_a_connection_is_used_again() -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        for _ in range(5):
            assert (await post(outbound, receiver.url)).status == 200
        assert receiver.connections == 1

    asking(Said(200, body=b"thanks"), body)


def test_a_body_without_end_costs_one_connection_and_no_more_than_its_time() -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        for _ in range(2):
            assert (await post(outbound, receiver.url, 0.2)).status == 200
        assert receiver.connections == 2

    asking(Said(200, drips=True), body)


def sockets() -> int:
    """How many this process has open."""
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.exists(link))


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_requests_that_are_cut_off_leave_no_connection_open(is_cancelled: bool) -> None:
    """At whatever moment: the library's pool forgets some of them, and its requests."""
    random = Random(7)

    async def cancelled(outbound: Outbound, url: str, seconds: float) -> None:
        task = asyncio.ensure_future(post(outbound, url))
        await asyncio.sleep(seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OutboundError):
            await task

    async def body(outbound: Outbound, receiver: Receiver) -> None:
        await post(outbound, receiver.url)
        before = sockets()
        for _ in range(400):
            seconds = random.random() * 0.006
            if is_cancelled:
                await cancelled(outbound, receiver.url, seconds)
            else:
                with contextlib.suppress(OutboundError):
                    await post(outbound, receiver.url, seconds)
        assert (await post(outbound, receiver.url)).status == 200
        await asyncio.sleep(0.2)  # the receiver sees the ends, too
        assert sockets() <= before + 2

    # Each request makes a connection: that is when most moments are wrong.
    asking(Said(200, {"Connection": "close"}), body)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_after_a_request_that_is_cut_off_connections_are_made_anew(is_cancelled: bool) -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        before = sockets()
        await asyncio.gather(post(outbound, receiver.url), post(outbound, receiver.url))
        assert receiver.connections == 2
        receiver.behave = lambda message, nth: HANG
        asked = asyncio.ensure_future(post(outbound, receiver.url, 15.0 if is_cancelled else 0.1))
        await receiver.until(lambda: len(receiver.arrived) == 3)
        if is_cancelled:
            asked.cancel()
        with pytest.raises((asyncio.CancelledError, OutboundError)):
            await asked
        receiver.behave = lambda message, nth: 200
        await post(outbound, receiver.url)
        assert receiver.connections == 3, "the other one of the two is not used again"
        async with asyncio.timeout(5):
            while sockets() > before + 2:  # both ends of the new one
                await asyncio.sleep(0.01)

    asking(200, body)


def test_a_request_that_is_cut_off_ends_no_other() -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: (
            HANG if message.id == "hangs" else Said(200, after=0.5)
        )
        slow = asyncio.ensure_future(post(outbound, receiver.url))
        await receiver.until(lambda: len(receiver.arrived) == 1)
        headers = signed_headers(SECRET, "hangs", int(time.time()), BODY)
        with pytest.raises(OutboundError, match="no answer within"):
            await outbound.post(receiver.url, headers, BODY, 0.1)
        assert (await slow).status == 200

    asking(200, body)


def test_an_end_waits_for_requests_that_were_told_to_end() -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        before = sockets()
        tasks = [asyncio.ensure_future(post(outbound, receiver.url)) for _ in range(20)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.0002 * number)
            task.cancel()
        await outbound.close()
        assert all(task.done() for task in tasks)
        await asyncio.sleep(0.2)
        assert sockets() <= before

    asking(200, body)


def test_a_body_is_not_inflated() -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        answer = await post(outbound, receiver.url)
        assert (answer.status, answer.body) == (200, b"no gzip at all")

    asking(Said(200, {"Content-Encoding": "gzip"}, b"no gzip at all"), body)


@pytest.mark.parametrize(("how", "said"), [(HANG, "within 0.2 s"), (GARBAGE, "Protocol")])
def test_no_answer_is_told_as_what_it_was(how: Behaviour, said: str) -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        with pytest.raises(OutboundError, match=said):
            await post(outbound, receiver.url, 0.2 if how == HANG else 15.0)

    asking(how, body)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/", "http://host.invalid/", "http://127.0.0.1:99999/", "http://[::1/",
     "gopher://host/", "http://"],
)  # fmt: skip
def test_a_place_that_is_none_is_no_answer_and_no_crash(url: str) -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        with pytest.raises(OutboundError):
            await post(outbound, url)

    asking(200, body)


@pytest.mark.parametrize(
    ("address", "is_refused"),
    [
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", True),
        ("fe80::1", True),
        ("fd00:ec2::254", True),
        ("100.100.100.200", True),
        ("nonsense", True),
        ("127.0.0.1", False),
        ("10.0.0.7", False),
        ("fd12::7", False),
        ("93.184.216.34", False),
    ],
)
def test_where_clouds_keep_credentials_nothing_is_sent(address: str, is_refused: bool) -> None:
    assert is_forbidden(address_of(Leading(address))) == is_refused


class Leading:
    """A connection that leads somewhere."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get_extra_info(self, name: str) -> tuple[str, int]:
        assert name == "server_addr"
        return self._address, 80


def test_the_address_that_a_name_leads_to_is_looked_at_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loopback stands in for the cloud's address, which is not to be had here."""
    monkeypatch.setattr("unimeter.server.outbound._FORBIDDEN", (ip_network("127.0.0.0/8"),))

    async def body(outbound: Outbound, receiver: Receiver) -> None:
        port = receiver.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
            with pytest.raises(OutboundError, match="cloud"):
                await post(outbound, f"http://{host}:{port}")
        await receiver.until(lambda: receiver.connections == 4)
        assert not receiver.requests

    asking(200, body)


def test_an_answer_says_whether_it_came_from_the_internet() -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        assert not (await post(outbound, receiver.url)).is_public

    asking(200, body)


def test_what_is_no_http_is_not_repeated() -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        with pytest.raises(OutboundError) as found:
            await post(outbound, receiver.url)
        assert str(found.value) == "RemoteProtocolError: what it answers is not HTTP"

    asking(GARBAGE, body)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        with pytest.raises(OutboundError, match="CERTIFICATE_VERIFY_FAILED"):
            await post(outbound, receiver.url)
        assert not receiver.requests

    asking(200, body, Authority(tmp_path).certificate())


def test_an_authority_of_the_operators_is_trusted_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        assert (await post(outbound, receiver.url)).status == 200

    async def wrong(outbound: Outbound, receiver: Receiver) -> None:
        with pytest.raises(OutboundError, match="CERTIFICATE_VERIFY_FAILED"):
            await post(outbound, receiver.url)

    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca)
    asking(200, body, authority.certificate())
    asking(200, wrong, authority.certificate("DNS:elsewhere.example"))


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(outbound: Outbound, receiver: Receiver) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert (await post(outbound, receiver.url)).status == 204

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    asking(204, body)
