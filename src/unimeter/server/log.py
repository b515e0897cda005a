"""What a process says on stderr, as text or as one JSON object a line.

Owns the one way there. Whoever has something to tell gives a sentence; a sentence that knows
what it is about is a `Notice`, which still is a plain string to whoever only shows it:

    say(Notice("node 2 leads in term 7", event="leader", leader=2, term=7))

    text   unimeter: node 2 leads in term 7
    json   {"time": "2026-01-05T10:00:00.123456Z", "level": "info", "event": "leader",
            "message": "node 2 leads in term 7", "node": 1, "cluster": "billing", ...}

As JSON, everything that ends on this process's stderr becomes such a line: `capture` takes over
Python's warnings, its `logging` (asyncio's and the libraries' complaints) and what is printed of an
error that nobody caught. As text, all of these stay as they are.

Refuses to be given secrets: fields are named one by one where a sentence is made, a field of
a secret's name is an assertion, and no request's query or header is ever one.

Rejected: `logging` for our own sentences too. Its levels, handlers and configuration would be
a second set of options for a few dozen lines that a node says in its life.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TextIO

from unimeter.instants import format_ns

SECRETS = ("secret", "password", "token", "authorization", "cookie", "api_key")
FORMATS = ("text", "json")


class Notice(str):
    """A sentence for the operator, with what a machine wants to know of it."""

    __slots__ = ("event", "fields", "level")

    event: str
    level: str
    fields: dict[str, Any]

    def __new__(cls, text: str, *, event: str, level: str = "info", **fields: Any) -> Notice:
        """`level`: info, warning or error. `event` names the kind of sentence."""
        notice = super().__new__(cls, text)
        assert level in ("info", "warning", "error"), level
        assert not any(secret in name for name in fields for secret in SECRETS), fields
        notice.event, notice.level, notice.fields = event, level, fields
        return notice


class Log:
    """Where a process's sentences go. Callable with one."""

    def __init__(self, clock_ns: Callable[[], int], stream: TextIO | None = None) -> None:
        """Text, until `as_json`; `stream` None: whatever stderr is at the time."""
        self._clock_ns, self._stream = clock_ns, stream
        self.is_json = False
        self._always: dict[str, Any] = {}

    def as_json(self, always: Mapping[str, Any]) -> None:
        """From now on one object a line, with these fields in each."""
        self.is_json = True
        self._always = dict(always)

    def __call__(self, sentence: str) -> None:
        """Say it."""
        if not self.is_json:
            self._write(f"unimeter: {sentence}")
        elif isinstance(sentence, Notice):
            self.record(sentence, sentence.level, sentence.event, sentence.fields)
        else:
            self.record(sentence, "info", "notice", {})

    def record(self, message: str, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one object."""
        found = {
            "time": format_ns(self._clock_ns() // 1000 * 1000),
            "level": level,
            "event": event,
            "message": str(message),
            **self._always,
            **fields,
        }
        self._write(json.dumps(found, ensure_ascii=False, default=str))

    def error(self, error: BaseException, event: str = "exception") -> None:
        """Show a mistake of ours, with its place."""
        if not self.is_json:
            traceback.print_exception(error, file=self._stream or sys.stderr)
            return
        text = "".join(traceback.format_exception(error))
        fields = {"exception": type(error).__name__, "traceback": text}
        self.record(f"{type(error).__name__}: {error}", "error", event, fields)

    def _write(self, line: str) -> None:
        # One write a line: threads and a forked child may speak at the same time.
        stream = self._stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()


def capture(log: Log) -> None:
    """Have everything that Python itself would print on stderr be said by `log`, as JSON."""
    root = logging.getLogger()
    root.handlers[:] = [_Handler(log)]
    root.setLevel(logging.WARNING)
    warnings.showwarning = _show_warning(log)

    def on_error(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        log.error(error if error is not None else kind())

    def on_unraisable(found: Any) -> None:
        log.error(found.exc_value or found.exc_type(), "unraisable")

    def on_thread_error(found: Any) -> None:
        if found.exc_type is not SystemExit:
            log.error(found.exc_value or found.exc_type())

    sys.excepthook = on_error
    sys.unraisablehook = on_unraisable
    threading.excepthook = on_thread_error


def _show_warning(log: Log) -> Callable[..., None]:
    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        fields = {"category": category.__name__, "place": f"{filename}:{lineno}"}
        log.record(str(message), "warning", "warning", fields)

    return show


class _Handler(logging.Handler):
    """Python's `logging`, as our lines."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record."""
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["exception"] = type(error).__name__
            fields["traceback"] = "".join(traceback.format_exception(error))
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self._log.record(record.getMessage(), level, "library", fields)
