"""One request in a handler's hands: its parameters as the library's nouns, its body in bounds.

Owns reading a request: each method gives a value of the right kind or raises the `Problem` that
says which parameter, what was wrong and what would be right. Bodies may be compressed with
gzip or zstd; the bound is on what comes out, so a small bomb is a 413 like a large body.

Refuses to know routes (`endpoint`) and what an answer looks like (`answers`).
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import zstandard
from starlette.requests import ClientDisconnect, Request

from unimeter import limits
from unimeter.accounts import parse_account
from unimeter.keys import Principal
from unimeter.server.web.problems import RETRY_SECONDS, Problem, bad
from unimeter.server.web.shapes import fault_of
from unimeter.types import Account

if TYPE_CHECKING:
    from unimeter.server.web.site import Site

BODY_SECONDS_MAX = 120.0  # for a body that is held until it is whole
SMALL_BODY_BYTES_MAX = 8 * 1024  # of somebody who has shown no key: a key, or a token
BODY_STALL_SECONDS = 20.0  # without a byte of a body that is not over: the client is gone or slow
INFLATE_BYTES = 256 * 1024  # given on at a time, however well it was compressed
ZSTD_FEED_BYTES = 256  # given in at a time: they become 8 MiB at the most
ZSTD_WINDOW_BYTES = 8 * 1024 * 1024  # what RFC 8878 wants every decoder to take; kept per request

_JSON = "JSON in UTF-8"
_DIGITS_MAX = 60  # of a number that is read exactly
T = TypeVar("T")


class Call:
    """A request, who makes it, and the site that it came to."""

    def __init__(self, site: Site, request: Request, principal: Principal) -> None:
        self.site, self.request, self.principal = site, request, principal
        self._held = 0  # bytes of `site.bodies`

    # --- parameters ----------------------------------------------------------------

    def path(self, name: str) -> str:
        """A part of the path, decoded."""
        return str(self.request.path_params[name])

    def text(self, name: str, default: str | None = None) -> str:
        """A parameter of the query; a problem if it is missing and has no default."""
        found = self.request.query_params.get(name)
        if found is not None and found != "":
            return found
        if default is None:
            raise bad(name, "is missing", "a value that is not empty")
        return default

    def texts(self, name: str) -> list[str]:
        """Every value of a parameter that may be repeated."""
        return [value for value in self.request.query_params.getlist(name) if value]

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number in ``[least, most]``."""
        found = self.text(name, str(default))
        expected = f"a whole number from {least} to {most}"
        try:
            number = int(found) if len(found) < 40 else None
        except ValueError:
            number = None
        if number is None or not least <= number <= most or not found.isascii():
            raise bad(name, f"is {found[:40]!r}", expected)
        return number

    def account(self, name: str = "account") -> Account:
        """An account: digits are the integer, ``str:42`` is the string (`unimeter.accounts`)."""
        return parse_account(self.text(name))

    # --- body ----------------------------------------------------------------------

    def hold(self, size: int) -> None:
        """Count `size` bytes of memory as this request's until it is answered; or a 429."""
        self.site.bodies.take(size)
        self._held += size

    def close(self) -> None:
        """The request is answered."""
        self.site.bodies.give_back(self._held)
        self._held = 0

    async def body(self, bytes_max: int = 0) -> bytes:
        """The whole body, inflated; 413 if it is longer than `bytes_max` or the site's bound."""
        bound = self.site.config.http_body_bytes_max
        bound = min(bound, bytes_max or bound)
        announced = self._announced()
        _check_size(announced, bound)
        self.site.bodies.check(announced)
        return await self._gather(self.chunks(), bound, self.hold)

    async def tree_body(self) -> bytes:
        """A body that is read as a tree, which takes longer: a lower bound than for others."""
        return await self.body(limits.HTTP_TREE_BYTES_MAX)

    async def small_json(self, kind: type[T]) -> T:
        """A short body of somebody who need not have a key, as a `kind`.

        It is no part of what all bodies may hold: strangers can't use that up.
        """
        if self.request.headers.get("content-encoding", "identity") != "identity":
            raise Problem(415, "unsupported", "this body may not be compressed: it is short")
        _check_size(self._announced(), SMALL_BODY_BYTES_MAX)
        data = await self._gather(self._raw(), SMALL_BODY_BYTES_MAX, lambda size: None)
        found: T = decode(data, kind)
        return found

    def _announced(self) -> int:
        found = self.request.headers.get("content-length", "0")
        return int(found) if found.isdecimal() else 0

    async def _gather(
        self, pieces: AsyncIterator[bytes], bound: int, hold: Callable[[int], None]
    ) -> bytes:
        """All of it; what has arrived is held, and not what was announced, which costs nothing."""
        found, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                async for piece in pieces:
                    size += len(piece)
                    _check_size(size, bound)
                    hold(len(piece))
                    found.append(piece)
        except TimeoutError:
            text = f"the body was not whole after {BODY_SECONDS_MAX:.0f} seconds"
            raise Problem(408, "too-slow", text, headers={"Connection": "close"}) from None
        return found[0] if len(found) == 1 else b"".join(found)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, inflated, in pieces of bounded size."""
        coding = self.request.headers.get("content-encoding", "identity").strip().lower()
        if coding in ("identity", ""):
            async for piece in self._raw():
                yield piece
            return
        if coding not in ("gzip", "zstd"):
            text = f"content-encoding {coding[:40]!r} is not known here; send gzip, zstd or none"
            raise Problem(415, "unsupported", text)
        inflate = _Gzip() if coding == "gzip" else _Zstd()
        try:
            async for piece in self._raw():
                for out in inflate.feed(piece):
                    yield out
                    await asyncio.sleep(0)  # a bomb has others wait for one piece, and not for all
            inflate.finish()
        except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError, EOFError) as error:
            expected = f"a whole body in {coding}, or one without content-encoding"
            raise bad("body", f"is not {coding}: {error}", expected) from None

    async def _raw(self) -> AsyncIterator[bytes]:
        """What arrives; a client that sends nothing for too long is let go."""
        stream = self.request.stream()
        while True:
            try:
                async with asyncio.timeout(BODY_STALL_SECONDS):
                    piece = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                text = f"nothing of the body came for {BODY_STALL_SECONDS:.0f} seconds"
                raise Problem(408, "too-slow", text, headers={"Connection": "close"}) from None
            except ClientDisconnect:
                raise bad("body", "ended early: the client closed the connection", "all") from None
            if piece:
                yield piece

    async def json(self, kind: type[T]) -> T:
        """The body as a `kind`, checked; a problem with the JSON path of what is wrong."""
        found: T = decode(await self.body(), kind)
        return found


def _check_size(size: int, bound: int) -> None:
    if size > bound:
        text = f"a body may have {bound} bytes; send less at once, or stream NDJSON or CSV"
        raise Problem(413, "too-large", text, headers={"Retry-After": str(RETRY_SECONDS)})


def decode(data: bytes, kind: Any, float_hook: Callable[[str], Any] | None = None) -> Any:
    """JSON as a `kind` (msgspec); a problem names the place and what was expected there.

    `float_hook` makes what stands for a fraction where `kind` is Any.
    """
    try:
        return msgspec.json.Decoder(kind, float_hook=float_hook).decode(data)
    except msgspec.ValidationError as error:
        if float_hook is None and str(error).startswith("Expected `int"):
            return _with_whole_numbers(data, kind)
        raise _unfit(error, kind) from None
    except msgspec.DecodeError as error:
        raise bad("body", f"is not JSON: {error}", _JSON) from None
    except RecursionError:
        raise bad("body", "is nested too deeply", _JSON) from None
    except UnicodeDecodeError as error:
        raise bad("body", f"is not UTF-8: byte {error.start}", _JSON) from None


def _unfit(error: msgspec.ValidationError, kind: Any) -> Problem:
    fault = fault_of(error, kind)
    text = f"{fault.path}: {fault.reason}; expected {fault.expected}"
    return Problem(400, "invalid-input", text, [fault])


def _with_whole_numbers(data: bytes, kind: Any) -> Any:
    """As `decode`, for a sender that writes 3 as 3.0, which JSON Schema calls an integer too."""
    try:
        return msgspec.convert(decode(data, Any, whole), kind)
    except msgspec.ValidationError as error:
        raise _unfit(error, kind) from None


def whole(text: str) -> int | float:
    """A number with a fraction or an exponent: an integer where it is one, below 2^64."""
    found = float(text)
    if len(text) > _DIGITS_MAX or not abs(found) < 2.0**64:
        return found
    exact = Decimal(text)
    number = int(exact)
    return number if number == exact else found


class _Gzip:
    """Inflates gzip, member after member."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._has_begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out of `data`, in pieces; no more is inflated than is taken."""
        self._has_begun = True
        while data:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(wbits=31)
            piece = self._inflate.decompress(data, INFLATE_BYTES)
            if piece:
                yield piece
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def finish(self) -> None:
        """Raise unless all of it has come."""
        if self._has_begun and not self._inflate.eof:
            raise EOFError("it ends in the middle")


class _Zstd:
    """Inflates zstd, frame after frame.

    It gives all that comes out of what it is given, and four bytes may be a block of 128 KiB, so
    it is given little at a time: some MiB is the most that a small bomb can make of it.
    """

    def __init__(self) -> None:
        self._inflate = _zstd_frame()
        self._is_inside = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out of `data`, in pieces; no more is inflated than is taken."""
        for at in range(0, len(data), ZSTD_FEED_BYTES):
            yield from self._feed(data[at : at + ZSTD_FEED_BYTES])

    def _feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate.eof:
                self._inflate = _zstd_frame()
            piece = self._inflate.decompress(data)
            self._is_inside = not self._inflate.eof
            if piece:
                yield piece
            data = self._inflate.unused_data if self._inflate.eof else b""

    def finish(self) -> None:
        """Raise unless all of it has come."""
        if self._is_inside:
            raise EOFError("it ends in the middle")


def _zstd_frame() -> zstandard.ZstdDecompressionObj:
    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
