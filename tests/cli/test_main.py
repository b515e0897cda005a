"""What becomes of an error: one line, one code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from unimeter import errors
from unimeter.cli.exit_codes import ExitCode, code_of

Run = Callable[..., Result]


class Failing:
    """A client whose every call fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __enter__(self) -> Any:
        raise self.error

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInputError("x"), ExitCode.USAGE),
        (errors.NotFoundError("x"), ExitCode.NOT_FOUND),
        (errors.AlreadyExistsError("x"), ExitCode.REFUSED),
        (errors.RangeUnavailableError("x"), ExitCode.REFUSED),
        (errors.ConnectionError("x"), ExitCode.UNAVAILABLE),
        (errors.DeadlineExceededError("x"), ExitCode.UNAVAILABLE),
        (errors.BackpressureError("x"), ExitCode.UNAVAILABLE),
        (errors.ServerError("x"), ExitCode.INTERNAL),
        (errors.CorruptionError("f", 1, 2, 3, "x"), ExitCode.DATA),
        (errors.DirectoryInUseError("x"), ExitCode.DATA),
        (FileNotFoundError("x"), ExitCode.NOT_FOUND),
        (ZeroDivisionError("x"), ExitCode.INTERNAL),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_an_error_is_one_line_on_stderr_and_a_code(
    run: Run, error: BaseException, code: ExitCode
) -> None:
    result = run("metric", "list", client=Failing(error))
    assert (result.exit_code, code_of(error)) == (code, code)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_an_unknown_verb_or_option_is_a_usage_error(run: Run) -> None:
    assert run("count").exit_code == ExitCode.USAGE
    assert run("query", "1", "m", "--perido", "today").exit_code == ExitCode.USAGE


def test_no_node_is_said_in_one_line_with_the_address() -> None:
    done = unimeter("query", "42", "m", "--server", "127.0.0.1:1", "--timeout", "0.3")
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = f"{sys.executable} -m unimeter --help | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.stdout.startswith("Usage")) == ("", True)


def test_a_group_imports_only_the_verb_that_runs() -> None:
    code = (
        "import sys\nfrom unimeter.cli.main import main\n"
        "try: main(['version'])\n"
        "finally: print([m for m in ('asyncio', 'rich.live', 'unimeter.cli.serve')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]"


def unimeter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "unimeter", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], "--port must be a number"),
        (["--port", "99999"], "between 0 and 65535"),
        (["--ack", "never"], "ack"),
        (["--config", "no-such.toml"], "no-such.toml"),
        (["--retention-age", "soon"], "90d"),
    ],
)
def test_a_wrong_option_of_serve_is_refused_before_anything_is_made(
    run: Run, arguments: list[str], words: str, tmp_path: Any
) -> None:
    result = run("serve", "--data-dir", str(tmp_path / "data"), *arguments)
    assert (result.exit_code, words in result.stderr) == (ExitCode.USAGE, True), result.stderr
    assert not (tmp_path / "data").exists()
