"""The unit, the image and the scrape: each option, file and command that they name exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from tests.deploy.watched import DEPLOY, ROOT

from unimeter.cli.main import VERBS
from unimeter.server.config import PARSERS, read_environment

UNIT = DEPLOY / "systemd" / "unimeter.service"
IMAGE = DEPLOY / "docker" / "Dockerfile"
FILES = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in str(path)
)


# --- what every file may name ------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_each_variable_and_flag_is_an_option(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"\bUNIMETER_([A-Z0-9_]+)\b", text):
        assert name.lower() in PARSERS or name == "CONFIG", f"UNIMETER_{name} is no option"
    for flag in re.findall(r"unimeter serve[^\n]*?(--[a-z-]+)", text):
        assert flag[2:].replace("-", "_") in PARSERS or flag == "--config", flag


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_each_command_is_a_verb(path: Path) -> None:
    for verb in re.findall(r"`?unimeter (serve|[a-z]+)[ `]", path.read_text(encoding="utf-8")):
        if verb not in ("the", "a"):
            assert verb in VERBS or verb in ("keys", "webhooks", "audit"), verb


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_no_secret_is_in_a_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\bum_[0-9a-zA-Z]{8,}|whsec_|BEGIN [A-Z ]*PRIVATE KEY|[0-9a-f]{64}", text)


# --- systemd -------------------------------------------------------------------------------


def unit() -> dict[str, dict[str, list[str]]]:
    """Section, key, values: as systemd reads it."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            assert equals and section and re.fullmatch(r"[A-Za-z]+", key), line
            found[section][key].append(value)
    return found


def test_the_unit_starts_a_node_and_stops_it_gracefully() -> None:
    service = unit()["Service"]
    (start,) = service["ExecStart"]
    assert start.split()[0].endswith("/unimeter") and start.split()[1] == "serve"
    assert service["KillSignal"] == ["SIGTERM"]
    assert int(service["TimeoutStopSec"][0]) >= 60, "a hand-over, the drain and a last snapshot"
    assert service["Restart"] == ["on-failure"]
    from unimeter.server import process

    refused = {int(code) for code in service["RestartPreventExitStatus"][0].split()}
    assert refused == {process.EXIT_CONFIG, process.EXIT_DATA}
    assert read_environment(dict(one.split("=", 1) for one in service["Environment"]))


def test_the_unit_has_its_own_data_and_its_key_as_a_credential() -> None:
    service = unit()["Service"]
    environment = dict(one.split("=", 1) for one in service["Environment"])
    assert environment["UNIMETER_DATA_DIR"] == f"/var/lib/{service['StateDirectory'][0]}"
    names = [one.partition(":")[0] for one in service["LoadCredential"]]
    assert environment["UNIMETER_ADMIN_KEY_FILE"] == f"%d/{names[0]}"
    assert not any("SECRET" in name for name in environment)


@pytest.mark.parametrize(
    "line",
    [
        "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateDevices=yes",
        "PrivateTmp=yes", "CapabilityBoundingSet=", "DynamicUser=yes", "RestrictNamespaces=yes",
        "MemoryDenyWriteExecute=yes", "SystemCallFilter=@system-service", "UMask=0077",
    ],
)  # fmt: skip
def test_the_unit_is_hardened(line: str) -> None:
    key, _, value = line.partition("=")
    assert value in unit()["Service"][key]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
def test_systemd_itself_finds_no_fault_and_little_exposure(tmp_path: Path) -> None:
    command = tmp_path / "unimeter"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    copy = tmp_path / "unimeter.service"
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={command}", UNIT.read_text())
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "unimeter" in line]
    assert not ours, ours
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(copy)],
        capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level and float(level[1]) <= 2.0, done.stdout[-300:]


# --- the image -------------------------------------------------------------------------------

INSTRUCTIONS = {
    "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL",
    "HEALTHCHECK", "ENTRYPOINT", "CMD",
}  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest of it) with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", IMAGE.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for one in instructions():
        if one[0] == "FROM":
            found.append([])
        found[-1].append(one)
    return found


def test_every_instruction_is_one_and_the_image_has_two_stages() -> None:
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    build, final = stages()
    assert build[0][1].endswith(" AS build")
    assert build[0][1].split()[0] == final[0][1].split()[0], "one Python: the environment is copied"
    assert "latest" not in final[0][1]


def is_left_out(source: str) -> bool:
    """Whether .dockerignore keeps a file from the build. All is left out that is not named."""
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    return not any(source == one or source.startswith(f"{one}/") for one in kept)


def test_everything_that_is_copied_is_there_and_not_left_out() -> None:
    named = {"build"}
    for name, rest in instructions():
        if name != "COPY":
            continue
        words = rest.split()
        flags = [word for word in words if word.startswith("--")]
        *sources, _ = [word for word in words if not word.startswith("--")]
        stage = [flag for flag in flags if flag.startswith("--from=")]
        if stage:
            assert stage[0].removeprefix("--from=") in named
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not is_left_out(source), f".dockerignore leaves out {source}"


def test_what_the_package_is_built_from_is_copied() -> None:
    copied = " ".join(rest for name, rest in stages()[0] if name == "COPY").split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in (
        "pyproject.toml",
        "setup.py",
        "src",
        project["readme"],
        *project["license-files"],
    ):
        assert needed in copied, needed
    (built,) = [rest for name, rest in stages()[0] if name == "RUN" and "pip wheel" in rest]
    extras = re.findall(r"\[([a-z,]+)\]", built)[0].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    assert "assert COMPILED" in built, "an image with interpreted kernels is not built"


def test_the_image_runs_without_root_and_says_how_it_is() -> None:
    final = dict(stages()[1])
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", final["USER"])
    order = [name for name, _ in stages()[1]]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert "health.py" in final["HEALTHCHECK"]
    assert final["ENTRYPOINT"].startswith("[") and final["CMD"] == '["serve"]', "no shell as pid 1"


def test_the_image_has_options_that_mean_something() -> None:
    words = dict(stages()[1])["ENV"].split()
    variables = dict(word.split("=", 1) for word in words)
    options = read_environment(variables)
    exposed = {int(port) for port in dict(stages()[1])["EXPOSE"].split()}
    assert {options["port"], options["http_port"]} <= exposed
    assert options["bind"] == "0.0.0.0" and options["admin_key_file"]
    assert options["data_dir"] in dict(stages()[1])["VOLUME"]


def test_health_is_what_the_node_says(tmp_path: Path) -> None:
    import asyncio

    from tests.deploy.watched import one_node

    script = DEPLOY / "docker" / "health.py"

    async def ask(port: int) -> int:
        environment = {"PATH": os.environ["PATH"], "UNIMETER_HTTP_PORT": str(port)}
        child = await asyncio.create_subprocess_exec(sys.executable, str(script), env=environment)
        return await child.wait()

    async def body() -> None:
        async with one_node(tmp_path / "data") as server:
            port = server.http_port
            assert await ask(port) == 0
            server.failure = RuntimeError("planted")
            assert await ask(port) == 1
            server.failure = None
        assert await ask(port) == 1, "nobody listens any more"

    asyncio.run(body())
