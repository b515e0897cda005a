"""Who only uses the SDK or embeds the engine never loads what HTTP needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

OF_HTTP = "starlette uvicorn httptools msgspec zstandard httpx"


@pytest.mark.parametrize(
    "program",
    [
        "import unimeter; unimeter.Client, unimeter.AsyncClient",
        "import unimeter; unimeter.Server(':memory:')",
        "import unimeter; unimeter.open(':memory:').close()",
        "import unimeter.cli.main",
    ],
)
def test_http_is_imported_when_a_server_starts_and_not_before(program: str) -> None:
    look = (
        f"import sys; found = set('{OF_HTTP}'.split()) & set(sys.modules); assert not found, found"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{program}\n{look}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
