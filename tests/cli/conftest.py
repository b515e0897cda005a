"""Running a verb in this process, against a fake meter or a real node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cli.fakes import FakeMeter

from unimeter.cli.connection import Opener
from unimeter.cli.main import cli

Run = Callable[..., Result]


@pytest.fixture
def meter() -> FakeMeter:
    """An empty fake meter."""
    return FakeMeter()


@pytest.fixture
def run(meter: FakeMeter) -> Run:
    """Run a verb; its client is the fake meter unless another is given."""

    def run_verb(*arguments: str, client: Any = None, stdin: str | None = None) -> Result:
        opener = Opener(lambda servers, timeout: client or meter)
        return CliRunner().invoke(cli, arguments, obj=opener, input=stdin)

    return run_verb
