"""Fixtures that tests of several folders share: the real input, and a real node.

Kept small on purpose. What only one folder needs stands in that folder's own
conftest. A node here is the real ``unimeter serve`` in a process of its own,
on free ports of the loopback interface, ended by its process id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.planted.planting import plant_what_is_asked_for

if TYPE_CHECKING:
    from unimeter.demo.process import NodeProcess

ROOT = Path(__file__).resolve().parent.parent

plant_what_is_asked_for()  # a bug, where tests/planted wants to see who finds it

# Tests are the same every time; `make sim-engine` asks for inputs that nobody has seen before.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("fresh", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_report_header() -> list[str]:
    """Say what is tested: with which kernels, and whether the real input is there."""
    from unimeter.engine import COMPILED

    found = shared_folder()
    real = str(found) if found else "absent (tests that need it are skipped)"
    return [
        f"unimeter kernels: {'compiled' if COMPILED else 'interpreted'}",
        f"real input (../shared): {real}",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the slow tests out where kernels are interpreted: there they take minutes each."""
    from unimeter.engine import COMPILED

    for item in items:
        if not COMPILED and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow, and the kernels are interpreted"))


def shared_folder() -> Path | None:
    """Return the folder of real input that lies beside the repository, if it does."""
    named = os.environ.get("SHARED_DIR")
    folder = Path(named) if named else ROOT.parent / "shared"
    return folder if (folder / "data").is_dir() else None


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real input; a test that needs it is skipped where it is absent.

    Not in CI, and not where SHARED_DIR names it: there its absence is a failure,
    so that nobody can lose it unnoticed.
    """
    folder = shared_folder()
    if folder is None:
        text = "needs ../shared beside the repository, or SHARED_DIR=its path"
        if os.environ.get("SHARED_DIR") or os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    return folder


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A running node on a directory of its own."""
    from unimeter.demo.process import NodeProcess

    started = NodeProcess(tmp_path / "node")
    started.start()
    try:
        yield started
    finally:
        started.kill()
