"""The comparison servers do the same work, where they are installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unimeter.bench.load import LoadError
from unimeter.bench.rivals import (
    READY,
    RIVALS,
    RivalMissingError,
    count_postgres,
    count_redis,
    encode_resp,
    find_program,
)
from unimeter.bench.scenarios import Settings


@pytest.mark.slow
@pytest.mark.parametrize("name", RIVALS)
def test_rival_counts_every_event_once(name: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:  # pytest's own folders are closed to other users
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    in_ci = os.environ.get("CI") == "true"
    try:
        figures = RIVALS[name](Settings(directory=tmp_path).tiny(), in_ci)
    except RivalMissingError as missing:
        if in_ci:
            pytest.fail(f"{name}: {missing}")
        pytest.skip(f"{name}: {missing}")
    assert len(figures) == 4
    assert all(figure.value > 0 for figure in figures)


def test_a_missing_program_is_said_in_one_line() -> None:
    with pytest.raises(RivalMissingError, match=r"no-such-server is not installed \(apt-get"):
        find_program("no-such-server", "no-such-package", install=False)


def test_redis_replies_are_counted_and_errors_are_not_replies() -> None:
    assert encode_resp([b"PING", b"x"]) == b"*2\r\n$4\r\nPING\r\n$1\r\nx\r\n"
    assert count_redis(b":500\r\n:3\r\n:1") == (2, 10)
    assert count_redis(b":5") == (0, 0)
    with pytest.raises(LoadError, match="NOSCRIPT"):
        count_redis(b"-NOSCRIPT no\r\n")


def test_postgres_replies_are_counted_by_ready_for_query() -> None:
    reply = b"2\0\0\0\4" + b"C\0\0\0\x0fINSERT 0 1\0" + READY
    assert count_postgres(reply + reply[:7]) == (1, len(reply))
    assert count_postgres(reply[:9]) == (0, 0)
    with pytest.raises(LoadError):
        count_postgres(b"E\0\0\0\x20SERROR\0")
