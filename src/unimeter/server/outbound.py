"""HTTP requests that the node makes: one POST, one answer, and nothing it did not ask for.

Owns what a request to somebody else's server may cost us: a deadline over all of it, an
answer of which only the first bytes are kept, no redirect followed (it would take a signed message
to a place that nobody configured), no proxy, cookie or `.netrc` from the environment, and
certificates that are checked against the system's store (``SSL_CERT_FILE`` names another).

A status that came in time is an answer, whatever becomes of the body behind it.

Refuses to try again: whoever sends decides that. Imported by `Platform.outbound`, and so
not before there is a webhook; the simulator has one of its own.

Rejected: a new connection for each message. A handshake of TLS costs more than the message.
"""

from __future__ import annotations

import asyncio
import ssl

import httpx

from unimeter import limits
from unimeter.server.platform import Answer, OutboundError

IDLE_SECONDS = 30.0  # a connection is kept for the next message
IDLE_MAX = 32


class HttpOutbound:
    """The real one, by httpx. For one event loop."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            timeout=None,  # one deadline over all of it, below
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=IDLE_MAX,
                keepalive_expiry=IDLE_SECONDS,
            ),
            follow_redirects=False,
            trust_env=False,
        )

    async def post(self, url: str, headers: dict[str, str], body: bytes, seconds: float) -> Answer:
        """The answer's status and headers and the first bytes of its body.

        Raises OutboundError when no status came within `seconds`.
        """
        response: httpx.Response | None = None
        first = b""
        try:
            async with asyncio.timeout(seconds):
                request = self._client.build_request("POST", url, headers=headers, content=body)
                response = await self._client.send(request, stream=True)
                first = await _first_bytes(response)
        except TimeoutError:
            if response is None:
                raise OutboundError(f"no answer within {seconds:g} s") from None
        except Exception as error:  # whatever the library makes of a URL or a server: no answer
            if response is None:
                raise OutboundError(_said(error)) from None
        finally:
            if response is not None:
                await response.aclose()
        assert response is not None
        return Answer(response.status_code, dict(response.headers), first)

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()


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
    return f"{name}: {text}" if text else name
