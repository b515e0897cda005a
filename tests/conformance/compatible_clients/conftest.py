"""Published clients of other products, each installed by pip into a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unimeter import AggType, Client, DimensionFilter, MetricSchema
from unimeter.demo.process import NodeProcess

INSTALL_SECONDS_MAX = 180
SESSION_SECONDS_MAX = 90
HERE = Path(__file__).parent

Installed = Callable[..., Path]
Session = Callable[[str, Path], dict[str, Any]]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Installs requirements. No network is a skip here and a failure in CI."""

    def install(*requirements: str, options: tuple[str, ...] = ()) -> Path:
        folder = tmp_path_factory.mktemp("client")
        command = [sys.executable, "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", *options, "--target", str(folder)]
        try:
            done = subprocess.run(
                [*command, *requirements],
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS_MAX,
                check=False,
            )
            reason = "" if done.returncode == 0 else done.stderr.strip() or "pip failed"
        except subprocess.TimeoutExpired:
            reason = f"pip did not end within {INSTALL_SECONDS_MAX} s"
        if reason:
            words = f"pip can't install {', '.join(requirements)}: {reason.splitlines()[-1]}"
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(words)
            pytest.skip(words)
        return folder

    return install


@pytest.fixture(scope="session")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node with the metrics that the sessions feed."""
    node = NodeProcess(tmp_path_factory.mktemp("compatible_clients") / "node")
    node.start()
    model = [DimensionFilter("model")]
    with Client([node.address]) as client:
        client.metrics.create(
            MetricSchema("tokens", AggType.SUM, field_name="tokens", filters=model)
        )
        client.metrics.create(MetricSchema("requests", AggType.SUM, filters=model))
        client.metrics.create(MetricSchema("memory", AggType.LATEST))
        client.metrics.create(MetricSchema("gen_ai.client.token.usage", AggType.SUM))
        client.metrics.create(MetricSchema("gen_ai.usage.input_tokens", AggType.SUM))
        client.metrics.create(MetricSchema("gen_ai.usage.output_tokens", AggType.SUM))
    yield node
    node.kill()


@pytest.fixture(scope="session")
def session(metered: NodeProcess) -> Session:
    """Runs a script with one folder of packages and nothing else, and gives what it printed."""

    def run(script: str, folder: Path) -> dict[str, Any]:
        url = f"http://127.0.0.1:{metered.http_port}"
        env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(HERE / script), str(folder), url],
            capture_output=True,
            text=True,
            timeout=SESSION_SECONDS_MAX,
            check=False,
            env=env,
        )
        assert done.returncode == 0, f"{done.stderr}\n{metered.output.read_text()}"
        return dict(json.loads(done.stdout))

    return run
