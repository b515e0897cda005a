"""How far a sweep is: a bar for somebody who looks, a line now and then in a log."""

from __future__ import annotations

import io
import sys

import pytest
from tests.sim import stand_ins

from unimeter.cli import simulate_bar
from unimeter.cli.simulate_bar import seed_bar


class Terminal(io.StringIO):
    """Somebody looks."""

    def isatty(self) -> bool:
        return True


def look(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in place of stderr; not as a fixture, which pytest's own capturing undoes."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TERM", "xterm")
    return made


def test_a_terminal_has_a_bar_with_seeds_failures_and_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = look(monkeypatch)
    told: list[str] = []
    with seed_bar(10, None, told.append) as bar:
        for seed in range(1, 9):
            bar.count(stand_ins.sometimes_fails(seed))
    assert bar.is_shown and told == []
    text = terminal.getvalue()
    assert "8/10" in text and "1 failed" in text and "/hour" in text
    assert "seed 7 failed: NothingLost: event 7 was acknowledged and is gone" in text


def test_an_endless_sweep_says_how_many_minutes_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = look(monkeypatch)
    with seed_bar(None, 30, lambda line: None) as bar:
        bar.count(stand_ins.passes(1))
    assert "1/?" in terminal.getvalue() and "30 min left" in terminal.getvalue()


def test_a_log_has_failures_at_once_and_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    with seed_bar(1200, None, told.append) as bar:
        bar.count(stand_ins.sometimes_fails(7))
        assert (len(told), capsys.readouterr().err) == (1, "")
        monkeypatch.setattr(simulate_bar, "LINE_SECONDS", 0.0)
        bar.count(stand_ins.sometimes_fails(8))
    assert not bar.is_shown and len(told) == 1
    assert capsys.readouterr().err.startswith("2 of 1,200 seeds, 1 failed, ")
