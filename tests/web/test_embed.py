"""Signing in, and the view that a company shows its customers on a site of its own."""

from __future__ import annotations

import csv
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from tests.web.accessible import serious
from tests.web.browser import Browser
from tests.web.conftest import ACCOUNT, Meter, fill

from unimeter import Client, Event
from unimeter.demo.process import NodeProcess
from unimeter.keys import sign_portal_token

HOUR = 3600


class Site:
    """Somebody else's site: one page, whatever it is asked for."""

    def __init__(self) -> None:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = site.page.encode() if self.path == "/" else b""
                self.send_response(200 if self.path == "/" else 204)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                return

        self.page = ""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        """Another origin than the node's, and by its name another site."""
        return f"http://localhost:{self.server.server_port}/"

    def frame(self, url: str) -> None:
        """Show `url` in a frame."""
        self.page = (
            "<!doctype html><html lang=en><title>A shop</title><body data-ready=1><h1>A shop</h1>"
            f'<iframe title="Usage" width="700" height="900" src="{url}"></iframe>'
        )

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@dataclass
class Locked(Meter):
    """A node with keys."""

    key: str

    def token(self, account: int | str = ACCOUNT, *metrics: str, seconds: int = HOUR) -> str:
        return self.client.portal_token(account, metrics, timedelta(seconds=seconds))

    def expired(self) -> str:
        """What the SDK would not sign."""
        return sign_portal_token(self.key, ACCOUNT, [], int(time.time()) - 1)

    def fetch(self, path: str, token: str) -> str:
        request = urllib.request.Request(
            self.base + path, headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    process = NodeProcess(tmp_path_factory.mktemp("locked") / "node")
    process.start()
    try:
        with Client([process.address]) as open_client:
            fill(open_client)
            key = open_client.keys.create("operations", ["admin"]).key
        with Client([process.address], key=key) as client:
            yield Locked(process, client, key)
    finally:
        process.kill()


@pytest.fixture
def shop() -> Iterator[Site]:
    site = Site()
    try:
        yield site
    finally:
        site.close()


@pytest.fixture
def guest(browser: Browser, locked: Locked) -> Browser:
    """The browser at the node with keys, not signed in."""
    browser.base = locked.base
    browser.cdp("Network.clearBrowserCookies")
    return browser


def framed(browser: Browser, shop: Site, url: str) -> None:
    """Open the shop's page and step into its frame once that is drawn."""
    shop.frame(url)
    browser._keep()
    browser.driver.get(shop.address)
    browser.driver.switch_to.frame(browser.find("iframe"))
    browser.wait(
        lambda: browser.script("return document.body?.dataset.ready"), "the frame is drawn"
    )


def forgive(browser: Browser, words: str) -> None:
    """A test that wants a refusal takes the browser's line about it away."""
    browser._keep()
    browser.said = [line for line in browser.said if words not in line]


def test_a_page_asks_for_a_key_and_goes_on_where_it_was(guest: Browser, locked: Locked) -> None:
    guest.driver.get(f"{locked.base}/ui/accounts/{ACCOUNT}?metric=tokens")
    guest.wait(lambda: guest.all("#key"), "the form is there")
    guest.find("#key").send_keys("um_aaaaaaaaaaaa_wrong" + Keys.ENTER)
    guest.wait_text(".notice.bad", "The node says:")
    guest.find("#key").clear()
    guest.find("#key").send_keys(locked.key + Keys.ENTER)
    guest.wait(lambda: guest.text("h1") == ACCOUNT, "the page is there")
    assert "metric=tokens" in guest.driver.current_url
    assert guest.script("return document.cookie") == ""  # a script can't read the session
    assert locked.key not in guest.script("return JSON.stringify({ ...localStorage })")
    guest.wait_text("#pulse", "Live")  # the stream takes the cookie as well
    guest.button("Sign out").click()
    guest.wait(lambda: guest.all("#key"), "signed out")
    guest.driver.get(f"{locked.base}/ui/keys")
    guest.wait(lambda: guest.all("#key") and "login" in guest.driver.current_url, "locked again")
    forgive(guest, "401 (Unauthorized)")


def test_signing_in_never_leads_to_another_host(guest: Browser, locked: Locked) -> None:
    for target in ("//evil.example/", "https://evil.example/ui/x", "javascript:alert(1)"):
        guest.cdp("Network.clearBrowserCookies")
        guest.open(f"/ui/login?next={target}")
        guest.find("#key").send_keys(locked.key + Keys.ENTER)
        guest.wait(lambda: guest.text("h1") == "Overview", "the overview is there")
        assert guest.driver.current_url == f"{locked.base}/"


def test_a_key_is_made_shown_once_and_revoked(guest: Browser, locked: Locked) -> None:
    guest.open("/ui/login?next=/ui/keys")
    guest.find("#key").send_keys(locked.key + Keys.ENTER)
    guest.wait(lambda: guest.text("h1") == "Keys", "the keys are there")
    guest.field("Name").send_keys("reader")
    guest.field("read: see totals").click()
    guest.button("Create key").click()
    guest.wait_text(".secret", "um_")
    made = guest.text(".secret")
    assert "reader" in {one.name for one in locked.client.keys.list()}
    assert json.loads(locked.fetch("/v1/session", made))["scopes"] == ["read"]
    guest.open("/ui/keys")
    assert made not in guest.script("return document.documentElement.outerHTML")
    row = next(one for one in guest.all("tbody tr") if "reader" in one.text)
    row.find_element("css selector", "button").click()
    guest.button("Revoke reader for good").click()
    guest.wait_text("tbody", "revoked")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        locked.fetch("/v1/session", made)


def test_a_reader_is_told_that_changing_needs_another_key(guest: Browser, locked: Locked) -> None:
    key = locked.client.keys.create("looks only", ["read"]).key
    guest.open("/ui/login")
    guest.find("#key").send_keys(key + Keys.ENTER)
    guest.wait(lambda: guest.text("h1") == "Overview", "the overview is there")
    guest.open("/ui/new-metric?code=never")
    guest.button("Create metric").click()
    guest.wait_text(".notice.bad", "this needs a key with the scope admin")
    guest.open("/ui/keys")
    assert "The node says:" in guest.text("main")
    forgive(guest, "403 (Forbidden)")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_customer_sees_their_usage_live_on_another_site(
    guest: Browser, locked: Locked, shop: Site, outputs: Path, theme: str
) -> None:
    token = locked.token(ACCOUNT, "api_calls", "credits")
    framed(guest, shop, f"{locked.base}/embed/usage?theme={theme}#token={token}")
    figure = '.tile [data-total="credits"]'
    before = int(guest.text(figure).replace(",", ""))
    guest.script("window.isTheSamePage = true")
    locked.client.ingest([Event(ACCOUNT, "credits", -1)])
    guest.wait_text(figure, f"{before - 1:,}")
    assert guest.script("return window.isTheSamePage") is True
    assert {one.text for one in guest.all(".tile .code")} == {"api_calls", "credits"}
    assert "tokens" not in guest.text("body")
    assert serious(guest) == []
    ground = guest.script("return getComputedStyle(document.documentElement).backgroundColor")
    assert (ground == "rgb(15, 18, 17)") == (theme == "dark")
    guest.driver.switch_to.default_content()
    guest.shoot(outputs / f"embed-{theme}.png")


def test_an_expired_a_forged_and_a_missing_token_show_nothing(
    guest: Browser, locked: Locked, shop: Site
) -> None:
    good = locked.token()
    for token in (locked.expired(), good[:-4] + "AAAA", "nonsense"):
        framed(guest, shop, f"{locked.base}/embed/usage#token={token}")
        assert "This view has ended" in guest.text("main")
        assert ACCOUNT not in guest.text("main")
        guest.driver.switch_to.default_content()
    framed(guest, shop, f"{locked.base}/embed/usage")
    assert "needs a token" in guest.text("main")
    forgive(guest, "401 (Unauthorized)")


def test_a_token_opens_its_own_account_and_nothing_else(locked: Locked) -> None:
    token = locked.token(42, "tokens")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        locked.fetch("/embed/usage.json?account=acme", token)  # it is nobody's to choose
    shown = json.loads(locked.fetch("/embed/usage.json", token))
    assert shown["account"] == 42
    assert [one["metric"] for one in shown["totals"]] == ["tokens"]
    assert {one["metric"] for one in shown["alerts"]} <= {"tokens"}
    rows = list(csv.reader(locked.fetch("/embed/usage.csv", token).splitlines()))
    assert [row[:2] for row in rows] == [["account", "metric"], ["42", "tokens"]]
    for path in ("/overview.json", "/ui/accounts/42.json", "/ui/events.json", "/ui/keys.json"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[13]"):
            locked.fetch(path, token)


def test_a_frame_may_hold_the_embedded_view_and_no_other_page(
    guest: Browser, locked: Locked, shop: Site
) -> None:
    shop.frame(f"{locked.base}/ui/login")
    guest._keep()
    guest.driver.get(shop.address)

    def is_refused() -> bool:
        guest._keep()
        return any("frame-ancestors" in line for line in guest.said)

    guest.wait(is_refused, "the browser refuses to show it")
    forgive(guest, "frame-ancestors")
    forgive(guest, "chrome-error://")
