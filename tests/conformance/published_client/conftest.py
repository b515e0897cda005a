"""The published client, installed by pip into a folder of its own, against a node of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unimeter.demo.process import NodeProcess

REQUIREMENT = "unimeter-python==0.2.0"
INSTALL_SECONDS_MAX = 120
SESSION_SECONDS_MAX = 90
SESSION = Path(__file__).with_name("session.py")


@pytest.fixture(scope="session")
def client_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the published client. No network is a skip here and a failure in CI."""
    folder = tmp_path_factory.mktemp("published_client")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--target", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
        )
        reason = "" if done.returncode == 0 else done.stderr.strip() or "pip failed"
    except subprocess.TimeoutExpired:
        reason = f"pip did not end within {INSTALL_SECONDS_MAX} s"
    if reason:
        words = f"pip can't install {REQUIREMENT}: {reason.splitlines()[-1]}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(words)
        pytest.skip(words)
    return folder


@pytest.fixture(scope="session")
def published_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node with the default settings."""
    node = NodeProcess(tmp_path_factory.mktemp("published") / "node")
    node.start()
    yield node
    node.kill()


@pytest.fixture(scope="session")
def seen(client_folder: Path, published_node: NodeProcess) -> dict[str, Any]:
    """What the published client saw in one long session."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SESSION), str(client_folder), published_node.address],
        capture_output=True,
        text=True,
        timeout=SESSION_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\n{published_node.output.read_text()}"
    return dict(json.loads(done.stdout))
