"""Everybody can use it: axe-core on every view, keyboard alone, phone width, both themes."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from tests.web.accessible import serious
from tests.web.browser import Browser
from tests.web.conftest import ACCOUNT, Meter

VIEWS = {
    "overview": "/",
    "metrics": "/ui/metrics",
    "new-metric": "/ui/new-metric",
    "metric": "/ui/metrics/api_calls",
    "accounts": "/ui/accounts",
    "account": f"/ui/accounts/{ACCOUNT}?metric=api_calls&window=hour",
    "seats": f"/ui/accounts/{ACCOUNT}?metric=seats",
    "events": "/ui/events",
    "alerts": "/ui/alerts",
    "webhooks": "/ui/webhooks",
    "keys": "/ui/keys",
    "audit": "/ui/audit",
    "login": "/ui/login",
}
PHONE = 360
STOPS_MAX = 400  # of the Tab key on one page
_REACHABLE = """
return [...document.querySelectorAll("a[href], button, input, select, textarea, summary")]
  .filter((one) => !one.disabled && one.checkVisibility({ visibilityProperty: true }))
  .map((one) => (one.dataset.stop ||= String(Math.random())));
"""
_FOCUSED = """
const at = document.activeElement, style = getComputedStyle(at);
return [at.dataset.stop || "", at === document.body,
  style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0, at.outerHTML.slice(0, 120)];
"""


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_no_serious_finding(
    browser: Browser, outputs: Path, name: str, is_dark: bool
) -> None:
    browser.look(is_dark=is_dark)
    browser.open(VIEWS[name])
    assert serious(browser) == []
    browser.shoot(outputs / f"{name}-{'dark' if is_dark else 'light'}.png")


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_fits_a_phone(browser: Browser, outputs: Path, name: str) -> None:
    browser.look(width=PHONE, height=780)
    browser.open(VIEWS[name])
    wide = browser.script(
        "return [...document.querySelectorAll('body *')].filter((one) => "
        "one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.table, .hidden'))"
        ".map((one) => one.outerHTML.slice(0, 120))"
    )
    assert wide == []
    assert browser.script("return document.documentElement.scrollWidth") <= PHONE
    assert serious(browser) == []
    browser.shoot(outputs / f"{name}-phone.png", PHONE)


def test_the_theme_can_be_chosen_and_is_kept(browser: Browser) -> None:
    browser.open("/")
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    light = browser.script(ground)
    browser.button("Dark").click()
    dark = browser.script(ground)
    assert dark != light
    browser.open("/ui/metrics")
    assert browser.script(ground) == dark
    browser.button("Light").click()
    assert browser.script(ground) == light
    browser.script("localStorage.removeItem('unimeter-theme')")


@pytest.mark.parametrize("name", ["overview", "account", "new-metric", "webhooks", "keys"])
def test_every_action_is_reached_by_the_tab_key_and_seen(browser: Browser, name: str) -> None:
    browser.open(VIEWS[name])
    wanted = set(browser.script(_REACHABLE))
    browser.script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached, unseen = set(), []
    for _ in range(STOPS_MAX):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        stop, is_over, is_seen, shown = browser.script(_FOCUSED)
        if is_over:
            break
        if not is_seen:
            unseen.append(shown)
        reached.add(stop)
        if wanted <= reached:
            break
    assert len(wanted) > 10
    missed = [
        browser.script(
            f"return document.querySelector('[data-stop=\"{one}\"]').outerHTML.slice(0, 120)"
        )
        for one in wanted - reached
    ]
    assert missed == [] and unseen == []


def test_an_account_is_opened_by_keys_alone(browser: Browser) -> None:
    browser.open("/")
    keys = ActionChains(browser.driver)
    keys.send_keys(Keys.TAB).perform()
    assert browser.script("return document.activeElement.textContent") == "Skip to content"
    keys.send_keys(Keys.ENTER).perform()
    assert browser.script("return document.activeElement.id") == "main"
    keys.send_keys("/").perform()
    assert browser.script("return document.activeElement.id") == "find"
    keys.send_keys("ac" + Keys.ENTER).perform()
    browser.wait(lambda: browser.text("h1") == "Accounts", "the accounts are there")
    browser.wait(lambda: len(browser.all("tbody tr")) == 1, "one account is found")
    for _ in range(40):
        keys.send_keys(Keys.TAB).perform()
        if browser.script("return document.activeElement.textContent") == ACCOUNT:
            break
    keys.send_keys(Keys.ENTER).perform()
    browser.wait(lambda: browser.text("h1") == ACCOUNT, "its page is there")


def test_the_menu_of_a_phone_opens_by_a_key(browser: Browser) -> None:
    browser.look(width=PHONE, height=780)
    browser.open("/")
    assert not browser.find("#nav").is_displayed()
    browser.find("#menu").send_keys(Keys.ENTER)
    assert browser.find("#nav").is_displayed()
    assert browser.find("#menu").get_attribute("aria-expanded") == "true"


def test_a_live_figure_is_said_to_a_screen_reader_only_where_it_matters(
    browser: Browser, meter: Meter
) -> None:
    """Alerts are a status; figures that move many times a second are not."""
    browser.open(f"/ui/accounts/{ACCOUNT}?metric=tokens")
    assert browser.script("return !document.querySelector('[data-total]').closest('[aria-live]')")
    assert browser.all("[role=status]")


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_the_reference_of_the_api_has_no_serious_finding(
    browser: Browser, outputs: Path, is_dark: bool
) -> None:
    browser.look(is_dark=is_dark)
    browser.driver.get(browser.base + "/docs")
    browser.wait(lambda: browser.all("h1"), "the page is there")
    assert serious(browser) == []
    browser.shoot(outputs / f"docs-{'dark' if is_dark else 'light'}.png")
    browser.look(width=PHONE, height=780)
    assert browser.script("return document.documentElement.scrollWidth") <= PHONE
