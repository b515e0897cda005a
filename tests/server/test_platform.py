"""One way to the machine: nobody but `server.platform` takes a clock, chance, thread or socket."""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import unimeter.server
from unimeter.server.platform import REAL, Platform
from unimeter.server.server import ListenError
from unimeter.storage.disk import OsDisk
from unimeter.storage.memory_disk import MemoryDisk

PACKAGE = Path(unimeter.server.__file__).parent

# What takes something from the machine, by the module that it is found in; None = all of it.
TAKING: dict[str, set[str] | None] = {
    "time": None,
    "random": None,
    "secrets": None,
    "uuid": None,
    "threading": None,
    "_thread": None,
    "concurrent.futures": {"ThreadPoolExecutor", "ProcessPoolExecutor"},
    "multiprocessing": None,
    "subprocess": None,
    "queue": None,
    "resource": None,
    "socket": {"socket", "create_connection", "create_server", "socketpair", "getaddrinfo"},
    "os": {"urandom", "getrandom", "statvfs", "fork", "times", "cpu_count", "getpid", "getloadavg"},
    "datetime": None,
    "asyncio": {"to_thread", "new_event_loop", "open_connection", "start_server"},
    "unimeter.storage.disk": {"OsDisk"},
    "unimeter.storage.writer": {"Writer"},
    "unimeter.server.applier": {"Applier"},
    "unimeter.server.peer_fetch": {"fetch_entry"},
}
TAKING_METHODS = {"run_in_executor"}  # of the loop: a thread that the platform knows nothing of

# Module, name: why it may.
EXCEPTIONS = {
    ("applier", "threading"): "is what Platform.apply_thread starts",
    ("applier", "queue"): "is what Platform.apply_thread starts",
    ("peer_fetch", "time"): "is what Platform.fetch_entry does, with blocking sockets",
    ("peer_fetch", "socket"): "is what Platform.fetch_entry does, with blocking sockets",
    ("peer_fetch", "os"): "is what Platform.fetch_entry does, with blocking sockets",
    ("node", "threading"): "a lock, free wherever nobody else runs; Platform starts the threads",
    ("log", "threading"): "says what a thread died of; it starts none",
    ("process", "resource"): "is what a process has and a server in a test has not",
    ("process", "asyncio"): "makes the loop that the server runs on",
}


def taken(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Everything that a module takes from the machine: (module, name)."""
    called: dict[str, str] = {}  # a module's name here -> its name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            called |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in TAKING:
            names = TAKING[node.module]
            yield from (
                (node.module, alias.name)
                for alias in node.names
                if names is None or alias.name in names
            )
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if node.attr in TAKING_METHODS:
            yield "loop", node.attr
        module = called.get(ast.unparse(node.value), "")
        names = TAKING.get(module, set())
        if names is None or node.attr in names:
            yield module, node.attr


MODULES = sorted({path.stem for path in PACKAGE.glob("*.py")} - {"platform"})


def wanted(tree: ast.AST) -> list[tuple[str, str]]:
    """What a module takes, types apart."""
    annotations = {
        id(part)
        for node in ast.walk(tree)
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if note is not None
        for part in ast.walk(note)
    }

    class Untyped(ast.NodeTransformer):
        def generic_visit(self, node: ast.AST) -> ast.AST:
            return ast.Constant(None) if id(node) in annotations else super().generic_visit(node)

    return list(taken(Untyped().visit(tree)))


@pytest.mark.parametrize("name", MODULES)
def test_module_takes_nothing_from_the_machine_by_itself(name: str) -> None:
    for module, what in wanted(ast.parse((PACKAGE / f"{name}.py").read_text())):
        assert (name, module) in EXCEPTIONS, f"server.{name} takes {module}.{what}: see platform.py"


def test_every_exception_is_still_needed() -> None:
    for (name, module), reason in EXCEPTIONS.items():
        found = {each for each, _ in wanted(ast.parse((PACKAGE / f"{name}.py").read_text()))}
        assert module in found, f"server.{name} takes nothing of {module}: remove it ({reason})"


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.monotonic()",
        "from time import monotonic",
        "import os\nseed = os.urandom",
        "from concurrent.futures import ThreadPoolExecutor",
        "import socket as s\ns.create_connection(('a', 1))",
        "loop.run_in_executor(None, print)",
        "def f():\n    import random\n    return random.random()",
        "from datetime import datetime",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert wanted(ast.parse(source))


def test_the_search_passes_over_types_and_constants() -> None:
    source = "import socket\ndef f(s: socket.socket) -> socket.socket:\n    socket.TCP_NODELAY"
    assert not wanted(ast.parse(source))


# --- the real machine -----------------------------------------------------------------


def test_memory_is_nowhere_and_a_directory_has_a_volume(tmp_path: Path) -> None:
    disk, _, volume = REAL.open_disk(":memory:")
    assert isinstance(disk, MemoryDisk) and volume == 0
    disk, path, volume = REAL.open_disk(os.path.relpath(tmp_path / "not" / "there"))
    assert isinstance(disk, OsDisk) and path == str(tmp_path / "not" / "there")
    stat = os.statvfs(tmp_path)
    assert volume == stat.f_frsize * stat.f_blocks


def test_an_inline_log_has_no_thread_of_its_own() -> None:
    assert not REAL.wal_limits(2**20, True).background
    assert REAL.wal_limits(2**20, False).background
    assert REAL.wal_limits(2**20, False).segment_bytes == 2**20


def test_a_port_is_taken_once() -> None:
    taken = REAL.take_port("127.0.0.1", 0, "port")
    try:
        with pytest.raises(ListenError, match="--http-port"):
            REAL.take_port("127.0.0.1", taken.getsockname()[1], "http-port")
    finally:
        taken.close()


def test_another_platform_may_replace_everything() -> None:
    class Still(Platform):
        def monotonic(self) -> float:
            return 7.0

        def random_ticks(self, count: int) -> int:
            return count - 1

    clock: Callable[[], float] = Still().monotonic
    assert clock() == 7.0
    assert Still().random_ticks(10) == 9
    assert {REAL.random_ticks(3) for _ in range(200)} == {0, 1, 2}
    assert REAL.monotonic() <= time.monotonic()
    assert len(REAL.entropy(8)) == 8 and 0 <= REAL.chance() < 1
