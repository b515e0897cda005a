"""The dashboard in a real browser: what the people who answer for invoices do with it."""

from __future__ import annotations

import csv
import json
import statistics
import time
import urllib.request
from pathlib import Path

from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from tests.web.accessible import serious
from tests.web.browser import Browser
from tests.web.conftest import ACCOUNT, LARGE, Meter

from unimeter import Event

LATENCY_MS_MAX = 100.0
WEIGHT_BYTES_MAX = 300_000
INTERACTIVE_MS_MAX = 1000.0
SENT = 40  # events, one after the other, whose way to the page is timed


def figure(code: str) -> str:
    return f'.tile [data-total="{code}"]'


def fetched(meter: Meter, path: str) -> str:
    with urllib.request.urlopen(meter.base + path) as answer:
        return str(answer.read().decode())


def test_the_overview_opens_and_shows_the_cluster(browser: Browser) -> None:
    browser.open("/")
    assert browser.text("h1") == "Overview"
    assert "leader" in browser.text("tbody tr")
    browser.wait_text("#pulse", "Live")
    assert int(browser.text(".card:nth-of-type(4) dd").replace(",", "")) >= 480


def test_the_first_page_is_light_and_soon_interactive(browser: Browser, outputs: Path) -> None:
    browser.cdp("Network.clearBrowserCache")
    browser.open("/")
    weighed = browser.script(
        "return performance.getEntriesByType('resource')"
        ".concat(performance.getEntriesByType('navigation'))"
        ".map((one) => [one.name, one.transferSize, one.decodedBodySize])"
    )
    sent, whole = sum(one[1] for one in weighed), sum(one[2] for one in weighed)
    ready = browser.script("return window.readyAt")
    figures = {"sent_bytes": sent, "bytes": whole, "requests": len(weighed), "ready_ms": ready}
    (outputs / "first-page.json").write_text(json.dumps(figures))
    print(figures)
    assert whole < WEIGHT_BYTES_MAX
    assert sent < whole / 2  # by gzip
    assert ready < INTERACTIVE_MS_MAX


def test_a_metric_is_tried_on_stored_events_and_then_created(
    browser: Browser, meter: Meter, outputs: Path
) -> None:
    browser.open("/ui/metrics")
    browser.button("New metric").click()
    browser.wait(lambda: browser.text("h1") == "New metric", "the form is there")
    browser.field("Code").send_keys("gpu_seconds")
    Select(browser.field("Aggregation")).select_by_visible_text("Sum of values")
    browser.button("Add a dimension").click()
    browser.field("Key").send_keys("gpu")
    browser.button("Add a threshold").click()
    browser.field("Name").send_keys("much")
    browser.field("Value").send_keys("5")
    browser.field("Events of").send_keys("unheard_of")
    browser.button("Dry run").click()
    browser.wait_text("[aria-label='Dry run'] h2", "Dry run")
    said = browser.text("[aria-label='Dry run']")
    for part in ("Would count2", "Would refuse0", "Accounts2", "Alerts2", "gpu a100", "acme", "42"):
        assert part in said
    assert serious(browser) == []
    browser.shoot(outputs / "dry-run.png")
    assert "gpu_seconds" not in {one.code for one in meter.client.metrics.list()}  # only tried
    browser.button("Create metric").click()
    browser.wait(lambda: browser.text("h1") == "gpu_seconds", "its page is there")
    made = next(one for one in meter.client.metrics.list() if one.code == "gpu_seconds")
    assert made.filters[0].key == "gpu" and made.thresholds[0].value == 5


def test_a_dry_run_shows_what_would_be_refused_and_why(browser: Browser) -> None:
    browser.open("/ui/new-metric?code=regional")
    browser.button("Add a dimension").click()
    browser.field("Key").send_keys("region")
    browser.field("Allowed values").send_keys("us")
    browser.field("Events of").clear()
    browser.field("Events of").send_keys("api_calls" + Keys.ENTER)
    browser.wait_text("[aria-label='Dry run']", "dimension not allowed")
    assert "not among those that are allowed" in browser.text("[aria-label='Dry run']")


def test_what_is_wrong_with_a_definition_is_said_in_the_nodes_words(browser: Browser) -> None:
    browser.open("/ui/new-metric?code=odd")
    browser.button("Add a dimension").click()
    browser.field("Key").send_keys("region")
    browser.button("Add a dimension").click()
    browser.all("[name=key]")[1].send_keys("region" + Keys.ENTER)
    browser.wait_text(".notice.bad", "The node says:")
    assert "region" in browser.text(".notice.bad")
    browser.said = [line for line in browser.said if "400" not in line]
    browser._keep()
    browser.said = [line for line in browser.said if "400 (Bad Request)" not in line]


def test_an_account_is_found_by_the_beginning_of_its_name(browser: Browser) -> None:
    browser.open("/ui/accounts")
    browser.find("#q").send_keys("ac")
    browser.wait(lambda: len(browser.all("tbody tr")) == 1, "one account is left")
    browser.find("tbody a").click()
    browser.wait(lambda: browser.text("h1") == ACCOUNT, "its page is there")


def test_an_account_shows_totals_seats_breakdown_and_exact_large_numbers(
    browser: Browser, meter: Meter
) -> None:
    browser.open(f"/ui/accounts/{ACCOUNT}?metric=seats")
    assert browser.text(figure("api_calls")) == "120"
    assert browser.text(figure("storage")) == f"{LARGE:,}"
    assert [one.text for one in browser.all(".members li")] == ["100", "101", "102", "103", "104"]
    browser.find(figure("api_calls")).click()
    browser.wait_text("main", "/v1/chat")
    browser.button("Hours").click()
    browser.wait_text("main", "api_calls by hour")
    assert "window=hour" in browser.driver.current_url  # a view has its address
    twin = json.loads(fetched(meter, f"/ui/accounts/{ACCOUNT}.json?metric=api_calls&window=hour"))
    assert len(twin["series"]) == 48
    shown = sum(int(row["value"]) for row in twin["series"])
    assert 0 < shown <= 120


def test_events_move_an_open_page_without_reload_within_100_ms(
    browser: Browser, meter: Meter, outputs: Path
) -> None:
    browser.open("/ui/accounts/acme?metric=tokens")
    browser.wait_text("#pulse", "Live")
    browser.script("window.isTheSamePage = true; window.moves = []")
    before = int(browser.text(figure("tokens")).replace(",", ""))
    took = []
    for number in range(1, SENT + 1):
        meter.client.ingest([Event(ACCOUNT, "tokens", 1, properties={"model": "small"})])
        acknowledged = time.time() * 1000
        wanted = f"{before + number:,}"
        moved = browser.wait(
            lambda wanted=wanted: browser.script(
                "return window.moves.find((move) => move[0] === 'tokens' && "
                "move[1] === arguments[0])?.[2]", wanted
            ),
            f"the page says {wanted}",
        )  # fmt: skip
        took.append(moved - acknowledged)
    assert browser.script("return window.isTheSamePage") is True
    figures = {"median_ms": statistics.median(took), "largest_ms": max(took), "events": SENT}
    (outputs / "latency.json").write_text(json.dumps(figures))
    print(figures)
    assert statistics.median(took) < LATENCY_MS_MAX
    browser.wait_text("main", "small")  # the break-down follows by itself


def test_a_balance_falls_through_its_threshold_and_the_page_says_so(
    browser: Browser, meter: Meter, outputs: Path
) -> None:
    browser.open("/ui/accounts/42?metric=credits")
    browser.wait_text("#pulse", "Live")
    track = ".credit .track"
    assert browser.find(track).get_attribute("data-state") == "good"
    width = browser.script("return parseFloat(document.querySelector('.level').style.width)")
    meter.client.ingest([Event(42, "credits", -850)])
    browser.wait_text("[data-alert]", "credits fell to “low”: 150")
    browser.shoot(outputs / "balance-low.png")
    browser.wait_text('.credit [data-total="credits"]', "150")
    assert browser.find(track).get_attribute("data-state") == "warn"
    assert browser.script("return parseFloat(document.querySelector('.level').style.width)") < width
    meter.client.ingest([Event(42, "credits", -120)])
    browser.wait_text("[data-alert]", "last_call")
    assert browser.find(track).get_attribute("data-state") == "low"
    assert [one.get_attribute("data-passed") for one in browser.all(".marks li")] == ["true"] * 2
    meter.client.ingest([Event(42, "credits", 970)])
    browser.wait(lambda: browser.find(track).get_attribute("data-state") == "good", "it is good")


def test_the_tail_shows_refused_events_with_their_reasons(browser: Browser, meter: Meter) -> None:
    browser.open("/ui/events?outcome=refused")
    said = browser.text("main")
    assert "unknown metric" in said and "there is no metric of this code" in said
    assert "dimension not allowed" in said and "stored" not in browser.text("tbody")
    browser.open("/ui/events")
    meter.client.ingest([Event("newcomer", "tokens", 31337, properties={"model": "x"})])
    browser.wait_text("tbody tr:first-child", "31,337")


def test_a_new_alert_appears_on_the_open_list(browser: Browser, meter: Meter) -> None:
    browser.open("/ui/alerts")
    browser.wait_text("#pulse", "Live")
    before = len(browser.all("tbody tr"))
    where = {"endpoint": "/v1/chat", "region": "us"}
    meter.client.ingest([Event("late", "api_calls", properties=where) for _ in range(100)])
    browser.wait(lambda: len(browser.all("tbody tr")) == before + 1, "it is there")
    assert "late" in browser.text("tbody tr:first-child")


def test_the_twins_of_every_view_say_the_same(browser: Browser, meter: Meter) -> None:
    for path in ("/overview", "/ui/metrics", "/ui/accounts", "/ui/alerts", "/ui/events"):
        page = "/" if path == "/overview" else path
        browser.open(page)
        assert browser.find(".twins a").get_attribute("href").endswith(f"{path}.json")
        rows = list(csv.reader(fetched(meter, f"{path}.csv").splitlines()))
        whole = json.loads(fetched(meter, f"{path}.json"))
        kept = whole.get("rows", whole.get("nodes"))
        assert rows[0] == list(kept[0]) and len(rows) == len(kept) + 1
    whole = json.loads(fetched(meter, f"/ui/accounts/{ACCOUNT}.json"))
    browser.open(f"/ui/accounts/{ACCOUNT}")
    for total in whole["totals"]:
        assert browser.text(figure(total["metric"])) == f"{int(total['value']):,}"


def test_an_account_that_is_not_there_and_a_path_that_is_not_are_said_kindly(
    browser: Browser,
) -> None:
    browser.open("/ui/accounts/nobody")
    assert "Nothing was metered" in browser.text("main")
    browser.open("/ui/metrics/no_such_metric")
    assert "The node says: there is no metric 'no_such_metric'" in browser.text("main")
    browser._keep()
    browser.said = [line for line in browser.said if "404 (Not Found)" not in line]


def test_markup_in_a_name_stays_text(browser: Browser, meter: Meter) -> None:
    name = "<img src=x onerror=alert(1)>"
    meter.client.ingest([Event(name, "tokens", 1, properties={"model": "<b>bold</b>"})])
    browser.open("/ui/accounts?q=%3Cimg")
    browser.find("tbody a").click()
    browser.wait(lambda: browser.text("h1") == name, "its page is there")
    browser.wait_text("main", "<b>bold</b>")
    assert browser.all("main img") == [] and browser.all("main b") == []


def test_a_webhook_is_made_paused_and_deleted(browser: Browser, meter: Meter) -> None:
    browser.open("/ui/webhooks")
    browser.field("URL").send_keys("http://127.0.0.1:9/nobody")
    browser.field("Only accounts").send_keys(f"acme, {2**60}, str:7")
    browser.button("Create webhook").click()
    browser.wait_text(".secret", "whsec_")
    (made,) = meter.client.webhooks.list()
    assert made.record.accounts == ("acme", 2**60, "7")  # to the last digit
    browser.wait_text("section.card", "active")
    browser.button("Pause").click()
    browser.wait_text("section.card .badge", "paused")
    browser.button("Send a test").click()
    browser.wait_text("section.card", "Not delivered")
    browser.button("Delete").click()
    browser.button("Delete it for good").click()
    browser.wait_text(".empty", "No webhooks yet")
    assert meter.client.webhooks.list() == []


def test_an_account_that_is_not_there_yet_appears_with_its_first_event(
    browser: Browser, meter: Meter
) -> None:
    browser.open("/ui/accounts/soon")
    browser.wait_text("#pulse", "Live")
    meter.client.ingest([Event("soon", "tokens", 3, properties={"model": "large"})])
    browser.wait_text(figure("tokens"), "3")


def test_a_page_that_nobody_looks_at_holds_no_stream(browser: Browser, meter: Meter) -> None:
    def streams() -> float:
        return meter.process.figures().get("unimeter_streams", 0.0)

    browser.open("/ui/accounts/42")
    browser.open(f"/ui/accounts/{ACCOUNT}?metric=tokens")
    browser.wait(lambda: streams() == 1, "there is one stream, and none of the page before")
    page = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.wait(lambda: streams() == 0, "it is closed")
    meter.client.ingest([Event(ACCOUNT, "tokens", 1000, properties={"model": "large"})])
    browser.driver.close()
    browser.driver.switch_to.window(page)
    browser.wait(lambda: streams() == 1, "it is open again")
    wanted = meter.client.query_realtime(ACCOUNT, "tokens").sum
    browser.wait_text(figure("tokens"), f"{wanted:,}")  # what came meanwhile was not missed


def test_a_node_that_is_not_there_is_said_and_looked_for_again(
    chromium: Browser, meter: Meter
) -> None:
    chromium.base = meter.base
    chromium.look()
    chromium.open(f"/ui/accounts/{ACCOUNT}?metric=tokens")
    chromium.wait_text("#pulse", "Live")
    meter.process.stop()
    meter.process.cont()
    meter.process.terminate()
    chromium.wait_text("#pulse", "Reconnecting")
    meter.process.start()
    chromium.wait_text("#pulse", "Live")
    meter.client.ingest([Event(ACCOUNT, "tokens", 1, properties={"model": "large"})])
    wanted = meter.client.query_realtime(ACCOUNT, "tokens").sum
    chromium.wait_text(figure("tokens"), f"{wanted:,}")
    said = chromium.misdeeds()
    while_away = ("ERR_CONNECTION", "ERR_INCOMPLETE", "503 (Service Unavailable)")
    assert all(any(words in line for words in while_away) for line in said), said


def test_the_keyboard_keeps_its_place_while_the_page_moves(browser: Browser, meter: Meter) -> None:
    browser.open(f"/ui/accounts/{ACCOUNT}?metric=api_calls")
    browser.wait_text("#pulse", "Live")
    browser.button("region").click()
    region = "[aria-label='api_calls by region']"
    browser.wait(lambda: browser.all(region), "by region")
    where = {"endpoint": "/v1/chat", "region": "us"}
    meter.client.ingest([Event(ACCOUNT, "api_calls", properties=where)])
    browser.wait_text(region, "us1")
    assert browser.script("return document.activeElement.dataset.choice") == "region"
    browser.script("document.querySelector(arguments[0]).focus()", region)
    meter.client.ingest([Event(ACCOUNT, "api_calls", properties=where)])
    browser.wait_text(region, "us2")
    assert browser.script("return document.activeElement.ariaLabel") == "api_calls by region"


def test_one_chart_serves_every_metric_and_both_themes(browser: Browser) -> None:
    browser.open(f"/ui/accounts/{ACCOUNT}?metric=api_calls")
    for code in ("tokens", "storage", "credits", "api_calls"):
        browser.find(figure(code)).click()
        browser.wait(lambda code=code: code in browser.text(".figures th.number"), code)
    browser.button("Dark").click()
    assert len(browser.all(".uplot")) == 1
    browser.button("Light").click()
    browser.script("localStorage.removeItem('unimeter-theme')")
