"""The dashboard's pages and files: what is served, how it is cached, what a browser may do with it.

Owns the list of views and the headers that keep a page to itself. A page is a shell that
holds no data, so nobody is asked who they are for it; its module asks for the view's twin, the
same address with ``.json``, and that asks (`views`).

    /ui/metrics        shell ── module views/metrics.js ──> /ui/metrics.json
    /static/<hash>/…   every file, under one hash of them all: kept by browsers for a year
    /embed/usage       the shell without navigation, for a frame on another site

The policy allows this node's own files and nothing else: no script or style in a page, no
other host, no frame around it. Only the embedded view may be framed, by anybody: there is
nothing in it to be tricked into, and without a token no data.

Rejected: templates on the server, which would put accounts' names into markup. Here
they only ever become text nodes. Rejected too: an application with its own router; a browser
handles addresses, history, focus and titles better.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from starlette.responses import Response

from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Handler
from unimeter.server.web.problems import Problem

_KEPT: Final = "public, max-age=31536000, immutable"
_ASKED: Final = "no-cache"  # kept, and asked about each time: 304 by its ETag
_GZIP_BYTES_MIN: Final = 600  # less is not worth the header
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "font-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


@dataclass(frozen=True)
class View:
    """One page: where it is, the module that draws it, what it is called."""

    path: str
    name: str
    title: str
    has_chart: bool = False
    is_bare: bool = False  # without navigation
    is_framed: bool = False  # anybody may put it into a frame


VIEWS: Final = (
    View("/", "overview", "Overview", has_chart=True),
    View("/ui/metrics", "metrics", "Metrics"),
    View("/ui/new-metric", "new_metric", "New metric"),
    View("/ui/metrics/{code:path}", "metric", "Metric"),
    View("/ui/accounts", "accounts", "Accounts"),
    View("/ui/accounts/{account:path}", "account", "Account", has_chart=True),
    View("/ui/events", "events", "Events"),
    View("/ui/alerts", "alerts", "Alerts"),
    View("/ui/webhooks", "webhooks", "Webhooks"),
    View("/ui/keys", "keys", "Keys"),
    View("/ui/audit", "audit", "Audit trail"),
    View("/ui/login", "login", "Sign in", is_bare=True),
    View("/embed/usage", "embed", "Usage", has_chart=True, is_bare=True, is_framed=True),
)


@dataclass(frozen=True)
class File:
    """A static file as it is sent."""

    data: bytes
    kind: str
    etag: str

    @property
    def packed(self) -> bytes:
        """The same by gzip, where that is smaller."""
        return _packed(self.data)


@cache
def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0) if len(data) >= _GZIP_BYTES_MIN else data


@cache
def files() -> dict[str, File]:
    """Every static file by its path in the folder."""
    found: dict[str, File] = {}
    folders = [("", resources.files("unimeter.server.web.dashboard") / "static")]
    while folders:
        prefix, folder = folders.pop()
        for item in folder.iterdir():
            if item.is_dir():
                folders.append((f"{prefix}{item.name}/", item))
            elif item.name.endswith((".js", ".css", ".svg", ".html")):
                found[prefix + item.name] = _file(item.name, item.read_bytes())
    return found


def _file(name: str, data: bytes) -> File:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if name.endswith(".js"):
        kind = "text/javascript"
    digest = hashlib.sha256(data).hexdigest()[:20]
    return File(data, f"{kind}; charset=utf-8", f'"{digest}"')


@cache
def version() -> str:
    """A hash of all static files: a changed one has another address."""
    digest = hashlib.sha256()
    for name, file in sorted(files().items()):
        digest.update(f"{name} {file.etag}\n".encode())
    return digest.hexdigest()[:12]


@cache
def shell(view: View) -> File:
    """The HTML of a view."""
    place = f"/static/{version()}"
    extra = ""
    if view.has_chart:
        extra += f'<link rel="stylesheet" href="{place}/vendor/uplot/uPlot.min.css">\n'
        extra += f'<script src="{place}/vendor/uplot/uPlot.iife.min.js" defer></script>\n'
    for name in imported(f"views/{view.name}.js"):
        extra += f'<link rel="modulepreload" href="{place}/{name}">\n'
    page = files()["bare.html" if view.is_bare else "shell.html"].data.decode()
    for name, value in (
        ("$title", view.title),
        ("$static", place),
        ("$view", view.name),
        ("$extra", extra.rstrip()),
    ):
        page = page.replace(name, value)
    return _file("page.html", page.encode())


def imported(name: str) -> list[str]:
    """The modules that a module needs, without itself: the browser asks for all of them at once."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        at = waiting.pop()
        for line in files()[at].data.decode().splitlines():
            if not line.startswith(("import ", "} from ")) or ' from "' not in line:
                continue
            path = line.split(' from "')[1].split('"')[0]
            parts = at.split("/")[:-1]
            for part in path.split("/"):
                if part == "..":
                    parts.pop()
                elif part != ".":
                    parts.append(part)
            whole = "/".join(parts)
            if whole not in found:
                found.append(whole)
                waiting.append(whole)
    return found


def policy(*, is_framed: bool = False) -> str:
    """The content security policy of a page."""
    ancestors = "*" if is_framed else "'none'"
    whole = {**_POLICY, "frame-ancestors": ancestors}
    return "; ".join(f"{name} {value}" for name, value in whole.items())


def _send(call: Call, file: File, headers: dict[str, str]) -> Response:
    headers = {**_HEADERS, **headers, "ETag": file.etag, "Vary": "Accept-Encoding"}
    if file.etag in call.request.headers.get("if-none-match", ""):
        return Response(b"", 304, headers)
    data = file.data
    if "gzip" in call.request.headers.get("accept-encoding", "") and len(file.packed) < len(data):
        data = file.packed
        headers["Content-Encoding"] = "gzip"
    return Response(data, 200, headers, file.kind)


def _page(view: View) -> Handler:
    async def page(call: Call) -> Response:
        return send_page(call, view)

    return page


def send_page(call: Call, view: View) -> Response:
    """The shell of a view, with what a browser may do with it."""
    headers = {
        "Cache-Control": _ASKED,
        "Content-Security-Policy": policy(is_framed=view.is_framed),
    }
    if not view.is_framed:
        headers["X-Frame-Options"] = "DENY"
    return _send(call, shell(view), headers)


async def static(call: Call) -> Response:
    """A file. Under an older hash it is the present one, and not kept."""
    file = files().get(call.path("name"))
    if file is None or file.kind.startswith("text/html"):
        raise Problem(404, "no-route", "there is no such file")
    is_current = call.path("version") == version()
    headers = {
        "Cache-Control": _KEPT if is_current else _ASKED,
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return _send(call, file, headers)


def view_of(name: str) -> View:
    """The view that a module draws."""
    return next(view for view in VIEWS if view.name == name)


def _pages(views: Iterable[View]) -> list[Endpoint]:
    return [
        Endpoint("GET", view.path, _page(view), None, view.title, tag="dashboard", is_listed=False)
        for view in views
    ]


ENDPOINTS: Final = [
    *_pages(VIEWS),
    Endpoint(
        "GET",
        "/static/{version}/{name:path}",
        static,
        None,
        "A file of the dashboard",
        tag="dashboard",
        is_listed=False,
    ),
]
