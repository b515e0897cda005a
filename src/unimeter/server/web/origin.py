"""What a browser tells of the page behind a request, and the names that an open node answers to.

A node without a key lets in whoever reaches it, and so does a browser on the same host: it asks
`http://127.0.0.1` on behalf of any page that is open in it. Owns what is refused there with 403:

    a change, asked for by a page of another site     Sec-Fetch-Site, or else Origin against Host
    anything, under a name that is not this node's    Host

The second is for a site that has its own name point at this host, so that the browser takes its
page for one of ours. An address is nobody's name, and a name without a dot is one of this network's
own. A page can't set or leave out these headers. Programs send none of the first two and are
not asked for them; what comes with a key in `Authorization` isn't either, because a browser
adds that for no other site. A session in a cookie is held against the first as well.

Rejected: a list of hosts in the configuration. Whoever wants more names makes a key.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

from unimeter.errors import ForbiddenError

if TYPE_CHECKING:
    from unimeter.server.config import Config

SAFE: Final = ("GET", "HEAD", "OPTIONS")
_OWN: Final = ("same-origin", "none")  # none: the user, by a bookmark or the address bar

OTHER_SITE: Final = "a page of another site asks for a change; this needs a key in Authorization"
OTHER_NAME: Final = (
    "this node has no key, so it answers under its own names only: its IP address, localhost, or "
    "the host of --advertise; make a key, and it answers under every name"
)


def check_page(request: Request) -> None:
    """Raise ForbiddenError for a change that a page of another site has the browser ask for."""
    if request.method not in SAFE and _is_of_another_site(request):
        raise ForbiddenError(OTHER_SITE)


def _is_of_another_site(request: Request) -> bool:
    said = request.headers.get("sec-fetch-site")
    if said is not None:
        return said.strip().lower() not in _OWN
    origin = request.headers.get("origin")
    if origin is None:
        return False
    place = origin.strip().lower().partition("://")[2]  # "" where the browser hides it: "null"
    return place != request.headers.get("host", "").strip().lower()


def check_host(request: Request, config: Config) -> None:
    """Raise ForbiddenError unless Host is a name of this node."""
    host = host_of(request.headers.get("host", ""))
    own = (host_of(config.bind), host_of(config.advertise))
    if "." in host and not _is_address(host) and host not in own:
        raise ForbiddenError(OTHER_NAME)


def host_of(place: str) -> str:
    """``host:port`` without the port, brackets and capitals."""
    place = place.strip().lower()
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place if place.count(":") > 1 else place.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
