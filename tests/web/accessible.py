"""axe-core on the page that is open (vendor/axe)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.web.browser import Browser

AXE = (Path(__file__).parent / "vendor" / "axe" / "axe.min.js").read_text()


def serious(browser: Browser) -> list[str]:
    """Serious and critical findings of axe-core on the page that is open."""
    browser.script(AXE)
    found: dict[str, Any] = browser.driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document, { resultTypes: ['violations'] }).then(done, (error) => done({"
        "  violations: [{ id: String(error), impact: 'critical', nodes: [] }] }));"
    )
    return [
        f"{one['id']}: {[node['html'][:160] for node in one['nodes']]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
