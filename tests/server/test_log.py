"""Lines on stderr: as JSON every one of them parses, as text they are what they were."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unimeter.demo.process import free_port
from unimeter.instants import parse_ns
from unimeter.server import log as log_module
from unimeter.server.log import Log, Notice, capture

NOW_NS = 1_767_225_600 * 10**9 + 123_456_789
SECRET = "0123456789abcdef0123456789abcdef"


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNIMETER_")}
    return {**kept, **variables}


def objects(text: str) -> list[dict[str, Any]]:
    """Every line as an object, each of the form that the page promises."""
    found = []
    for line in text.splitlines():
        one = json.loads(line)
        assert isinstance(one, dict)
        assert list(one)[:4] == ["time", "level", "event", "message"], line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", one["time"])
        assert parse_ns(one["time"]) > 0 and one["level"] in ("info", "warning", "error")
        assert one["message"] and re.fullmatch(r"[a-z_]+", one["event"])
        found.append(one)
    return found


# --- one process ---------------------------------------------------------------------------


class Process:
    """`unimeter serve` with its stderr kept."""

    def __init__(self, directory: Path, *options: str, **variables: str) -> None:
        self.http_port = free_port()
        ports = ("--port", str(free_port()), "--http-port", str(self.http_port))
        command = [sys.executable, "-m", "unimeter", "serve", "--data-dir", str(directory), *ports]
        self.child = subprocess.Popen(
            [*command, *options], stderr=subprocess.PIPE, text=True, env=environment(**variables)
        )
        self.lines: list[str] = []

    def read_until(self, word: str) -> None:
        """Read lines up to one that has this word."""
        assert self.child.stderr is not None
        while not self.lines or word not in self.lines[-1]:
            line = self.child.stderr.readline()
            assert line, "".join(self.lines)
            self.lines.append(line)

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}") as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)

    def end(self) -> str:
        """SIGTERM, then everything that was said."""
        self.child.send_signal(signal.SIGTERM)
        return self.rest()

    def rest(self) -> str:
        assert self.child.stderr is not None
        self.lines.append(self.child.stderr.read())
        self.child.wait(30)
        self.child.stderr.close()
        return "".join(self.lines)


def test_a_whole_session_is_json(tmp_path: Path) -> None:
    process = Process(tmp_path / "data", "--log-format", "json", "--access-log", "yes")
    process.read_until("serving")
    assert process.get("/health") == 200
    assert process.get("/v1/session?token=ump_verysecret") == 200
    assert process.get("/no/such/place") == 404
    found = objects(process.end())
    assert process.child.returncode == 0
    assert [one["event"] for one in found] == ["serving", "http_request", "http_request", "stopped"]
    serving, _, access, _ = found
    assert serving["node"] == 1 and serving["http_port"] == process.http_port
    assert serving["data_dir"] == str(tmp_path / "data") and serving["index"] >= 1
    assert (access["route"], access["status"]) == ("/v1/session", 200)
    assert access["path"] == "/v1/session"
    assert "ump_verysecret" not in "".join(process.lines), "a query may hold a token"


def test_the_access_log_is_off_unless_asked_for(tmp_path: Path) -> None:
    process = Process(tmp_path / "data", UNIMETER_LOG_FORMAT="json")
    process.read_until("serving")
    assert process.get("/health") == 200
    assert [one["event"] for one in objects(process.end())] == ["serving", "stopped"]


def test_text_is_what_it_was(tmp_path: Path) -> None:
    process = Process(tmp_path / "data")
    process.read_until("serving")
    lines = process.end().splitlines()
    assert len(lines) == 2 and lines[0].startswith("unimeter: serving 127.0.0.1:")
    assert lines[1] == "unimeter: stopped; everything acknowledged is on the disk"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--segment-bytes", "1KiB"), 2),
        (("--retention-age", "soon"), 2),
        (("--bind", "0.0.0.0"), 2),
        (("--bind", "256.1.1.1"), 9),
    ],
)
def test_a_refusal_is_one_object(tmp_path: Path, options: tuple[str, ...], code: int) -> None:
    variables = {"UNIMETER_LOG_FORMAT": "json", "UNIMETER_INSECURE": str(code == 9)}
    process = Process(tmp_path / "data", *options, **variables)
    found = objects(process.rest())
    assert process.child.returncode == code
    assert [(one["event"], one["level"]) for one in found] == [("refused", "error")]
    assert found[0]["error"] in ("InvalidInputError", "ListenError")


def test_a_refusal_about_a_flag_is_json_when_the_flag_says_so(tmp_path: Path) -> None:
    process = Process(tmp_path / "data", "--log-format", "json", "--node-id", "zero")
    (refused,) = objects(process.rest())
    assert "node_id" in refused["message"].replace("-", "_")


def test_a_directory_that_is_damaged_is_one_object(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear customer")
    process = Process(tmp_path, UNIMETER_LOG_FORMAT="json")
    (refused,) = objects(process.rest())
    assert process.child.returncode == 7 and refused["event"] == "refused"


BROKEN = """
import sys
from unimeter.engine.machine import Machine
def apply(self, *words):
    raise {error}("planted: the state is wrong")
from unimeter.server import process
real = process._startup_line
def line(server):
    Machine.apply = apply
    server.node.machine.__class__ = type("Broken", (Machine,), {{"apply": apply}})
    server.node.raft_tick()
    server.clients.loop.call_soon(lambda: server.node.fail({error}("planted: a wrong state")))
    return real(server)
process._startup_line = line
from unimeter.server.config import load_config
sys.exit(process.serve(load_config(
    {{"data_dir": sys.argv[1], "port": 0, "http_port": 0, "log_format": "json"}})))
"""


def test_a_failure_is_json_with_its_traceback(tmp_path: Path) -> None:
    program = [sys.executable, "-c", BROKEN.format(error="AssertionError"), str(tmp_path / "data")]
    done = subprocess.run(program, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
                          env=environment())  # fmt: skip
    assert done.returncode == 1
    found = objects(done.stderr)
    assert [one["event"] for one in found] == ["serving", "exception", "failed"]
    assert "AssertionError: planted" in found[1]["traceback"]
    assert found[2]["error"] == "AssertionError" and found[2]["level"] == "error"


def test_a_cluster_says_who_it_is_and_never_its_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    ports = [free_port() for _ in range(3)]
    peers = ",".join(f"{node}=127.0.0.1:{port}" for node, port in enumerate(ports, 1))
    options = ("--peers", peers, "--cluster-id", "billing", "--cluster-secret-file", str(secret))
    processes = [
        Process(tmp_path / str(node), "--log-format", "json", "--node-id", str(node), *options)
        for node in (1, 2)  # the third never comes: that is told as well
    ]
    for process in processes:
        process.read_until("can't be reached")
    texts = [process.end() for process in processes]
    for node, text in enumerate(texts, 1):
        found = objects(text)
        assert all(one["node"] == node and one["cluster"] == "billing" for one in found)
        assert SECRET not in text
        unreachable = [one for one in found if one["event"] == "peer_unreachable"]
        assert unreachable[0]["level"] == "warning" and unreachable[0]["reason"]


# --- the log itself ------------------------------------------------------------------------


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> Log:
    found = Log(lambda: NOW_NS, stream)
    found.as_json({"node": 7})
    return found


@pytest.fixture
def captured(log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Everything of Python's goes to `log`, for the length of a test."""
    root = logging.getLogger()
    handlers, level, shown = root.handlers[:], root.level, warnings.showwarning
    hooks = sys.excepthook, sys.unraisablehook, log_module.threading.excepthook
    capture(log)
    yield log
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.showwarning = shown
    sys.excepthook, sys.unraisablehook, log_module.threading.excepthook = hooks


def test_a_notice_is_its_sentence_to_whoever_only_shows_it() -> None:
    notice = Notice("node 2 leads", event="leader", leader=2)
    assert notice == "node 2 leads" and f"{notice}" == "node 2 leads"
    stream = io.StringIO()
    Log(lambda: NOW_NS, stream)(notice)
    assert stream.getvalue() == "unimeter: node 2 leads\n"


def test_a_notice_has_its_fields_and_everybodys(log: Log, stream: io.StringIO) -> None:
    log(Notice('two\nlines and "quotes" and ünïcode', event="leader", leader=2))
    log("plain")
    first, second = objects(stream.getvalue())
    assert first == {
        "time": "2026-01-01T00:00:00.123456Z", "level": "info", "event": "leader",
        "message": 'two\nlines and "quotes" and ünïcode', "node": 7, "leader": 2,
    }  # fmt: skip
    assert second["event"] == "notice" and second["message"] == "plain"


@pytest.mark.parametrize("name", ["secret", "cluster_secret", "api_key", "token", "cookie"])
def test_a_field_of_a_secrets_name_is_our_mistake(name: str) -> None:
    with pytest.raises(AssertionError):
        Notice("x", event="x", **{name: "y"})


def test_what_python_would_print_is_a_line(captured: Log, stream: io.StringIO) -> None:
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    try:
        raise ValueError("of a library")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("it failed")
    logging.getLogger("chatty").info("not said")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = log_module._show_warning(captured)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    sys.excepthook(ValueError, ValueError("uncaught"), None)
    thread = log_module.threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    found = objects(stream.getvalue())
    assert [one["event"] for one in found] == [
        "library", "library", "warning", "exception", "exception",
    ]  # fmt: skip
    assert found[1]["exception"] == "ValueError" and "of a library" in found[1]["traceback"]
    assert found[4]["exception"] == "ZeroDivisionError"


def test_an_error_without_json_is_a_traceback_as_ever(stream: io.StringIO) -> None:
    Log(lambda: NOW_NS, stream).error(ValueError("here"))
    assert stream.getvalue().endswith("ValueError: here\n")


def test_every_event_that_is_said_is_on_the_page() -> None:
    root = Path(__file__).parents[2]
    said = {"notice", "library", "warning", "unraisable"}  # what is made of plain words
    for path in (root / "src" / "unimeter" / "server").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "Notice" in text:
            said |= set(re.findall(r'\bevent(?:: str)?\s?=\s?"(\w+)"', text))
            said |= set(re.findall(r'event = .*"(\w+)"$', text, re.M))
    page = (root / "docs" / "operating" / "logs-and-traces.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| event \| when \|\n(.*?)\n\n", page, re.S)
    names = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert names == said
