"""HTTP requests that the node makes: one POST, one answer, and nothing it did not ask for.

Owns what a request to somebody else's server may cost us: a deadline over all of it, an
answer of which only the first bytes are kept, no redirect followed (it would take a signed message
to a place that nobody configured), no proxy, cookie or `.netrc` from the environment, and
certificates that are checked against the system's store (``SSL_CERT_FILE`` names another).

A status that came in time is an answer, whatever becomes of the body behind it.

An administrator of the meter is not one of the network that it stands in. So nothing is sent to
where clouds keep the credentials of their machines (`is_forbidden`), and an answer says whether it
came from an address of the internet. Both look at the address that was connected to, because a name
may lead elsewhere each time. Other internal addresses are allowed: most receivers have one.

A request that is cut off, because its time is over or nobody wants it any more, can leave a
connection behind that the library's pool neither uses nor closes. So the pool of such a request is
retired: later ones get a new pool, and the old one is closed when the requests that it still serves
have ended.

Refuses to try again: whoever sends decides that. Imported by `Platform.outbound`, and so
not before there is a webhook; the simulator has one of its own.

Rejected: a new connection for each message. A handshake of TLS costs more than the message.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from typing import Any, Final

import httpx

from unimeter import limits
from unimeter.server.platform import Answer, OutboundError

IDLE_SECONDS = 30.0  # a connection is kept for the next message
IDLE_MAX = 32
CLOSE_SECONDS = 1.0  # for requests that were told to end
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_FORBIDDEN: Final = tuple(
    map(
        ipaddress.ip_network,
        ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32"),
    )
)  # where clouds answer their machines


class _Pool:
    """Connections, and the requests that use them."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.requests: set[asyncio.Task[Any]] = set()
        self.client = httpx.AsyncClient(
            verify=context,
            timeout=None,  # one deadline over all of it, below
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=IDLE_MAX,
                keepalive_expiry=IDLE_SECONDS,
            ),
            follow_redirects=False,
            trust_env=False,
        )


class HttpOutbound:
    """The real one, by httpx. For one event loop."""

    def __init__(self) -> None:
        self._context = ssl.create_default_context()
        self._pool = _Pool(self._context)
        self._retired: set[_Pool] = set()  # and still in use
        self._closing: set[asyncio.Task[None]] = set()

    async def post(self, url: str, headers: dict[str, str], body: bytes, seconds: float) -> Answer:
        """The answer's status and headers and the first bytes of its body.

        Raises OutboundError when no status came within `seconds`.
        """
        pool, task = self._pool, asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        pool.requests.add(task)
        try:
            return await self._post(pool, url, headers, body, seconds)
        except asyncio.CancelledError:
            self._retire(pool)
            raise
        finally:
            pool.requests.discard(task)
            if pool is not self._pool and not pool.requests:
                self._end(pool)

    async def _post(
        self, pool: _Pool, url: str, headers: dict[str, str], body: bytes, seconds: float
    ) -> Answer:
        response: httpx.Response | None = None
        first = b""
        try:
            async with asyncio.timeout(seconds):
                request = pool.client.build_request(
                    "POST", url, headers=headers, content=body, extensions={"trace": _guard}
                )
                response = await pool.client.send(request, stream=True)
                first = await _first_bytes(response)
        except TimeoutError:
            self._retire(pool)
            if response is None:
                raise OutboundError(f"no answer within {seconds:g} s") from None
        except Exception as error:  # whatever the library makes of a URL or a server: no answer
            if response is None:
                raise OutboundError(_said(error)) from None
        finally:
            if response is not None:
                await response.aclose()
        assert response is not None
        address = _address_of(response.extensions["network_stream"])
        is_public = address is not None and address.is_global
        return Answer(response.status_code, dict(response.headers), first, is_public)

    def _retire(self, pool: _Pool) -> None:
        """Give it no further requests."""
        if pool is self._pool:
            self._retired.add(pool)
            self._pool = _Pool(self._context)

    def _end(self, pool: _Pool) -> None:
        """Close a retired pool's connections, aside."""
        self._retired.discard(pool)
        closing = asyncio.ensure_future(pool.client.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End all connections, once the requests that were cancelled have ended."""
        pools = (self._pool, *self._retired)
        requests = set[asyncio.Task[Any]]().union(*(pool.requests for pool in pools))
        if requests:
            await asyncio.wait(requests, timeout=CLOSE_SECONDS)
        for pool in (self._pool, *self._retired):
            await pool.client.aclose()
        if self._closing:
            await asyncio.wait(self._closing)


def is_forbidden(address: Address | None) -> bool:
    """Whether nothing may be sent there, whoever asks for it."""
    return address is None or any(address in network for network in _FORBIDDEN)


async def _guard(event: str, info: dict[str, Any]) -> None:
    """Called at each step of a request: look where a new connection leads before it is used."""
    if event != "connection.connect_tcp.complete":
        return
    stream = info["return_value"]
    if is_forbidden(_address_of(stream)):
        await stream.aclose()
        raise OutboundError("this address is for the machine's own cloud; nothing is sent there")


def _address_of(stream: Any) -> Address | None:
    """Where a connection leads; of an IPv4 address in an IPv6 one, the former."""
    try:
        address = ipaddress.ip_address(str(stream.get_extra_info("server_addr")[0]))
    except (TypeError, ValueError):
        return None
    return getattr(address, "ipv4_mapped", None) or address


async def _first_bytes(response: httpx.Response) -> bytes:
    """Read to the end, so that the connection can be used again, unless that is far away."""
    first, size = b"", 0
    async for piece in response.aiter_raw():
        if len(first) < limits.WEBHOOK_ERROR_BYTES_MAX:
            first = (first + piece)[: limits.WEBHOOK_ERROR_BYTES_MAX]
        size += len(piece)
        if size > limits.WEBHOOK_RESPONSE_BYTES_MAX:
            break
    return first


def _said(error: Exception) -> str:
    """What went wrong, in words; the class where there are none."""
    while isinstance(error, ExceptionGroup):  # of the tasks that try the addresses of a host
        error = error.exceptions[0]
    text = str(error) or str(error.__cause__ or "")
    name = type(error).__name__
    if isinstance(error, httpx.ProtocolError):
        return f"{name}: what it answers is not HTTP"  # and is not repeated
    if isinstance(error, OutboundError):
        return text
    return f"{name}: {text}" if text else name
