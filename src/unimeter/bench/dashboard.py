"""The dashboard's first page: what it weighs, how soon it is there, how soon a figure moves.

Owns the line "dashboard". Bytes are counted by asking the node for the page and for every file
that it names, as a browser does. With Selenium (the extra `web`) and Chromium there are two more
figures from a real browser, with an empty cache each time: until the page is drawn and takes
input, and from the acknowledgement of an event to the changed total on an open page.

Rejected: only the browser. Where there is none, the weight would not be known either.
"""

from __future__ import annotations

import re
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from unimeter import AggType, Client, Event, MetricSchema
from unimeter.bench.load import LoadError
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import Settings, fresh_node

WEIGHT_BYTES_MAX: Final = 300_000
INTERACTIVE_SECONDS_MAX: Final = 1.0
MOVE_SECONDS_MAX: Final = 0.1
WAIT_SECONDS: Final = 10.0
_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
_READY: Final = """
new MutationObserver(() => {
  if (document.body && document.body.dataset.ready) window.readyAt ||= performance.now();
  const figure = document.querySelector("[data-total]");
  if (figure && figure.textContent !== window.figure) {
    window.figure = figure.textContent;
    window.movedAt = performance.timeOrigin + performance.now();
  }
}).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
"""


def first_page(settings: Settings) -> list[Figure]:
    """Weight, and with a browser the two times."""
    rounds = 5 if settings.seconds >= 1 else 1
    with fresh_node(settings) as node:
        base = f"http://127.0.0.1:{node.http_port}"
        weight, files = weigh(base)
        note = f"{files} files, as they are before gzip"
        figures = [Figure("dashboard: first page", weight, "bytes", WEIGHT_BYTES_MAX, False, note)]
        driver_class = browser_class()
        if driver_class is not None:
            with Client([node.address]) as client, chromium(driver_class) as driver:
                figures += [
                    interactive(driver, base, rounds),
                    movement(driver, base, client, 8 * rounds),
                ]
    return figures


def weigh(base: str) -> tuple[int, int]:
    """(bytes, files) of the page and all that it names."""
    page = fetch(base + "/")
    names = sorted({name.decode() for name in re.findall(rb'(?:src|href)="(/static/[^"]+)"', page)})
    return len(page) + sum(len(fetch(base + name)) for name in names), len(names) + 1


def fetch(url: str) -> bytes:
    """The body of a page of the node."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        return bytes(reply.read())


# --- a browser ---------------------------------------------------------------------


def browser_class() -> Any:
    """Selenium's Chrome; None where it, or Chromium, is not installed."""
    try:
        from selenium import webdriver
    except ImportError:
        return None
    return webdriver.Chrome if shutil.which("chromium") and shutil.which("chromedriver") else None


@contextmanager
def chromium(driver_class: Any) -> Iterator[Any]:
    """A Chromium with an empty profile."""
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = driver_class(options=options, service=Service(shutil.which("chromedriver")))
        try:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _READY})
            yield driver
        finally:
            driver.quit()


def interactive(driver: Any, base: str, rounds: int) -> Figure:
    """Seconds until the first page is drawn and takes input, with nothing in the cache."""
    took = []
    for _ in range(rounds):
        driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        driver.get(base + "/")
        took.append(until(lambda: driver.execute_script("return window.readyAt")) / 1000)
    name, note = "dashboard: interactive", f"median of {rounds}, Chromium, empty cache"
    median = statistics.median(took)
    return Figure(name, median, "s", INTERACTIVE_SECONDS_MAX, False, note)


def movement(driver: Any, base: str, client: Client, events: int) -> Figure:
    """Seconds from the acknowledgement of an event to the changed total on an open page."""
    client.metrics.create(MetricSchema("page_moves", AggType.COUNT))
    client.ingest([Event("bench", "page_moves")])
    driver.get(base + "/ui/accounts/bench")
    until(lambda: driver.execute_script("return document.querySelector('[data-state=live]')"))
    took = []
    for number in range(2, events + 2):
        client.ingest([Event("bench", "page_moves")])
        acknowledged = time.time()
        moved = until(
            lambda number=number: driver.execute_script(  # type: ignore[misc]
                "return window.figure === arguments[0] && window.movedAt", str(number)
            )
        )
        took.append(max(0.0, moved / 1000 - acknowledged))
    name, note = "dashboard: event to page", f"median of {events}, worst {max(took):.3f} s"
    return Figure(name, statistics.median(took), "s", MOVE_SECONDS_MAX, False, note)


def until(look: Callable[[], Any]) -> Any:
    """What `look` gives once it gives something."""
    give_up = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < give_up:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise LoadError("the browser waited in vain")
