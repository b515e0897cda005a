"""Installing the package: compiled where a compiler works, interpreted where none does.

The installations go into folders of their own with ``pip install --target``,
without build isolation and without dependencies, so no network is needed.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
METER_ONCE = """
import unimeter
from unimeter.engine import COMPILED
from unimeter import AggType, Event, MetricSchema, current_month
with unimeter.open(":memory:") as meter:
    meter.metrics.create(MetricSchema("api_calls", AggType.COUNT))
    meter.ingest([Event(42, "api_calls"), Event(42, "api_calls", id="a")])
    meter.ingest([Event(42, "api_calls", id="a")])
    print(COMPILED, meter.query(42, "api_calls", current_month()).value.count)
"""


def source_copy(folder: Path) -> Path:
    """Copy what the build reads, so that tests running beside this one see no build files."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "src", "pyproject.toml", "setup.py", "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return folder


def build_wheel(tmp_path: Path, **environment: str) -> Path:
    """Build the wheel as pip would and return its path."""
    pytest.importorskip("setuptools", minversion="77")  # what pyproject.toml asks for
    source = source_copy(tmp_path / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    run = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    return wheel


def installed_run(
    wheel: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run METER_ONCE with nothing but the unpacked wheel importable."""
    target = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    # -I would hide the environment's own packages too; -P and a foreign folder are enough.
    return subprocess.run(
        [sys.executable, "-P", *options, "-c", METER_ONCE],
        env={**os.environ, "PYTHONPATH": str(target), **environment},
        cwd=target, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_without_a_compiler_a_pure_wheel_meters_the_same(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, CC="/nonexistent/cc", UNIMETER_NO_COMPILE="")
    assert wheel.name.endswith("-py3-none-any.whl")
    run = installed_run(wheel)
    assert run.stdout.split() == ["False", "2"], run.stderr


@pytest.mark.slow
def test_asked_not_to_compile_a_pure_wheel_is_built(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, UNIMETER_NO_COMPILE="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"unimeter/py.typed", "unimeter/sim/seeds.txt"} <= set(names)
    assert not [name for name in names if name.endswith((".so", ".c", ".pyd"))]


def test_where_a_compiler_works_the_installation_has_every_kernel_compiled() -> None:
    # Compiling them again here would take a minute; .ci/run does it for the README's command.
    import unimeter.engine

    if os.environ.get("UNIMETER_PURE") or os.environ.get("UNIMETER_NO_COMPILE"):
        pytest.skip("interpreted kernels were asked for")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(os.environ.get("CC", "cc")) is None or not headers.exists():
        pytest.skip("there is no C compiler here, or Python's headers are missing")
    for name in unimeter.engine.KERNELS:
        assert not importlib.import_module(f"unimeter.engine.{name}").__file__.endswith(".py"), name
    assert unimeter.engine.COMPILED


def test_python_without_assertions_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, "-O", "-c", "import unimeter"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode != 0
    assert "-O" in run.stderr
