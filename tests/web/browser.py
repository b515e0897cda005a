"""A headless Chromium that tests drive, and everything it must not have done.

Wraps Selenium in the few verbs that the tests speak. What a page asks the network for, what it
says on its console and what its policy forbids is kept and looked at after each test: see
`Browser.misdeeds`. The browser has no way out of this machine: every name but the loopback
addresses is made unknown to it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = "chromium", "chromedriver"
WAIT_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "localhost")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,900",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)  # fmt: skip
# Before any script of the page: what its policy forbids, when it was ready, when figures moved.
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
window.moves = [];
new MutationObserver((changes) => {
  for (const change of changes) {
    if (change.type === "attributes") {
      if (change.target === document.body && !window.readyAt) window.readyAt = performance.now();
      continue;
    }
    const at = change.target.nodeType === 1 ? change.target : change.target.parentElement;
    const figure = at && at.closest ? at.closest("[data-total]") : null;
    if (figure) window.moves.push([figure.dataset.total, figure.textContent,
      performance.timeOrigin + performance.now()]);
  }
}).observe(document, { subtree: true, childList: true, characterData: true,
  attributes: true, attributeFilter: ["data-ready"] });
"""


def is_installed() -> bool:
    """Whether there is a Chromium with its driver."""
    return shutil.which(CHROMIUM) is not None and shutil.which(DRIVER) is not None


class Browser:
    """One Chromium with an empty profile."""

    def __init__(self) -> None:
        self.profile = tempfile.mkdtemp(prefix="unimeter-chromium-")
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which(CHROMIUM))
        for flag in (*_FLAGS, f"--user-data-dir={self.profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(shutil.which(DRIVER))))
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        self.driver.get("about:blank")
        self.driver.get_log("performance")  # of the browser's own first page
        self.base = ""
        self.requested: list[str] = []
        self.said: list[str] = []
        self.forbidden: list[str] = []

    def close(self) -> None:
        """End it and remove its profile."""
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    # --- how it looks ------------------------------------------------------------------

    def look(self, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> None:
        """Be a window of this size, on a system with this theme."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        theme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[theme])

    def shoot(self, path: Path, width: int = 1280) -> None:
        """A picture of the whole page."""
        height = min(2400, max(700, int(self.script("return document.body.scrollHeight"))))
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))

    # --- pages -------------------------------------------------------------------------

    def open(self, path: str) -> None:
        """Go to a page of the node and wait until it is drawn."""
        self._keep()
        self.driver.get(self.base + path)
        self.wait(lambda: self.script("return document.body.dataset.ready"), f"{path} is drawn")

    def script(self, text: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(text, *arguments)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something to be true and return it."""
        waiting = WebDriverWait(self.driver, WAIT_SECONDS, poll_frequency=0.02)
        return waiting.until(lambda _: condition(), f"waited in vain until {what}")

    def find(self, selector: str) -> WebElement:
        """The one element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Every element."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The text of an element; "" if it is not there."""
        return str(
            self.script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)
        )

    def wait_text(self, selector: str, wanted: str) -> None:
        """Wait until an element's text contains something."""
        self.wait(lambda: wanted in self.text(selector), f"{selector} says {wanted!r}")

    def button(self, name: str) -> WebElement:
        """The button, or link, of that name."""
        for element in self.all("button, a.button"):
            if element.text.strip() == name and element.is_displayed():
                return element
        raise AssertionError(f"there is no button {name!r}")

    def field(self, label: str) -> WebElement:
        """The input with that label."""
        for element in self.all("label"):
            if element.text.strip() == label:
                return self.find(f"#{element.get_attribute('for')}")
        raise AssertionError(f"there is no field {label!r}")

    # --- what it did -------------------------------------------------------------------

    def _keep(self) -> None:
        """Take the logs: they are emptied by reading."""
        found = self.script("return window.violations || []")
        self.forbidden += found
        for line in self.driver.get_log("browser"):
            if line["level"] in ("SEVERE", "WARNING"):
                self.said.append(line["message"])
        for line in self.driver.get_log("performance"):
            event = json.loads(line["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                self.requested.append(event["params"]["request"]["url"])
            elif event["method"] == "Network.webSocketCreated":
                self.requested.append(event["params"]["url"])
        self.script("window.violations = []")

    def misdeeds(self) -> list[str]:
        """What must not have happened since the last call: the console, the policy, the network."""
        self._keep()
        outside = [url for url in self.requested if _leaves(url)]
        found = [f"console: {line}" for line in self.said]
        found += [f"policy: {line}" for line in self.forbidden]
        found += [f"left the host: {url}" for url in outside]
        self.said, self.forbidden, self.requested = [], [], []
        return found


def _leaves(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob", "about") and parts.hostname not in LOOPBACK
