"""The layers of the architecture page, enforced: who may import whom, and what the core may touch.

The table below is architecture section 3 as data. Exceptions are named one by
one with their reason; a new one is a decision, not an edit.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from unimeter.engine import KERNELS

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "unimeter"

ANYTHING = {
    "server", "storage", "engine", "raft", "wire", "client", "sim", "cli", "bench", "demo",
    "embedded", "root", "base",
}  # fmt: skip

# Layer -> the other layers it may import. A layer may always import itself.
MAY_IMPORT: dict[str, set[str]] = {
    "base": set(),
    "wire": {"base"},
    "engine": {"base"},
    "raft": {"base"},
    "storage": {"engine", "raft", "base"},
    "server": {"storage", "engine", "raft", "wire", "base"},
    "client": {"wire", "base"},
    # The simulator runs whole servers and clients (docs/decisions/0021).
    "sim": {"server", "client", "root", "engine", "raft", "storage", "wire", "base"},
    # Commands put a whole together and may import anything.
    "cli": ANYTHING,
    "bench": ANYTHING,
    "main": {"cli"},
    # A node inside the caller's process: the server's node behind the client's methods.
    "embedded": {"server", "storage", "engine", "wire", "client", "base"},
    # `make demo`: what a newcomer would write, so it uses what a newcomer would import.
    "demo": {"root", "client", "engine", "base"},
    # `import unimeter`: the names users import.
    "root": {"server", "client", "wire", "embedded", "base"},
}

CORE = {"base", "wire", "engine", "raft"}
# Modules of other layers that promise to be pure as well.
CORE_MODULES = {"client.core"}

# What would let a clock, a disk, a socket, a thread, a process or chance into the core.
IMPURE = {
    "asyncio", "concurrent", "ctypes", "fcntl", "glob", "http", "io", "logging", "mmap",
    "multiprocessing", "os", "pathlib", "platform", "queue", "random", "sched", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess",
    "sys", "tempfile", "threading", "time", "urllib", "uuid", "zoneinfo",
}  # fmt: skip

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("_pure", "sys"): "puts the stand-in for cython where `import cython` finds it",
    ("engine", "os"): "reads UNIMETER_PURE once, at import, before there is any state",
    ("engine", "sys"): "loads the kernels, compiled or interpreted, at import",
    ("engine", "pathlib"): "finds the kernels' files beside itself, at import",
    ("engine.memory", "mmap"): "private anonymous memory, which is no file and no state of a host",
    ("engine.memory", "sys"): "growing a mapping in place is Linux's; the content is the same",
    ("engine.snapshot", "sys"): "asserts that the host is little-endian, as the stored formats are",
    ("periods", "zoneinfo"): "rules of a zone are read once, when a metric is proposed",
}
# A call of one of these names reads the clock; only the SDK's "current month" helpers may.
CLOCK_CALLS = {"now", "utcnow", "today", "time_ns", "monotonic"}
CLOCK_EXCEPTIONS = {
    "periods": "current_month() and its like answer for now, in the caller's process",
    "webhooks": "verify() asks how old a message is, in the receiver's process",
}


def modules() -> dict[str, Path]:
    """Return every module of the package by its name without the leading ``unimeter.``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name or "__init__"] = path
    return found


MODULES = modules()


def layer_of(name: str) -> str:
    """Return the layer of a module: its first folder, or base for a top-level module."""
    if name in ("__init__", ""):
        return "root"
    if name == "__main__":
        return "main"
    first = name.split(".")[0]
    return first if first in MAY_IMPORT else "base"


def is_core(name: str) -> bool:
    """Whether a module has promised to be pure."""
    return layer_of(name) in CORE or name in CORE_MODULES


def is_typing_only(node: ast.stmt) -> bool:
    """Whether a statement is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """Yield the dotted names a file imports; with `at_import_time`, only those its import runs."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.stmt) and is_typing_only(node):
            continue
        if not (lazy and at_import_time):
            todo.extend(ast.iter_child_nodes(node))


def ours(dotted: str) -> str | None:
    """Return the module of this package that a dotted import names, or None for a foreign one."""
    parts = dotted.removeprefix("cython.cimports.").split(".")
    if parts[0] != "unimeter":
        return None
    for length in range(len(parts), 1, -1):
        if ".".join(parts[1:length]) in MODULES:
            return ".".join(parts[1:length])
    return "__init__"


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_only_the_layers_below_it(name: str) -> None:
    layer = layer_of(name)
    for dotted in imports(MODULES[name]):
        target = ours(dotted)
        if target is None or (target == "__init__" and name == "__init__"):
            continue
        other = layer_of(target)
        assert other == layer or other in MAY_IMPORT[layer], (
            f"{name} is of layer '{layer}', which may import {sorted(MAY_IMPORT[layer])}, "
            f"and it imports {dotted} of layer '{other}'"
        )


@pytest.mark.parametrize("name", [name for name in MODULES if is_core(name)])
def test_core_module_imports_no_clock_disk_socket_thread_or_chance(name: str) -> None:
    for dotted in imports(MODULES[name]):
        top = dotted.split(".")[0]
        allowed = (name, top) in EXCEPTIONS
        assert top not in IMPURE or allowed, f"{name} is core and imports {dotted}"


@pytest.mark.parametrize("name", [name for name in MODULES if is_core(name)])
def test_core_module_reads_no_clock_and_opens_no_file(name: str) -> None:
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute):
            reads_clock = node.func.attr in CLOCK_CALLS and name not in CLOCK_EXCEPTIONS
            assert not reads_clock, f"{name}:{node.lineno} reads a clock: {ast.unparse(node)}"
        elif isinstance(node.func, ast.Name):
            # hash() and id() differ between processes: P4 forbids them in any decision.
            assert node.func.id not in {"open", "input", "hash", "id"}, (
                f"{name}:{node.lineno} calls {node.func.id}()"
            )


@pytest.mark.parametrize(
    "name", [n for n in MODULES if is_core(n) or layer_of(n) in ("storage", "client")]
)
def test_core_storage_and_client_need_nothing_but_the_standard_library(name: str) -> None:
    import sys

    for dotted in imports(MODULES[name]):
        top = dotted.split(".")[0]
        assert top in sys.stdlib_module_names or top in ("unimeter", "cython"), (
            f"{name} imports {dotted}, which is not in the standard library"
        )


def test_no_two_modules_import_each_other() -> None:
    graph = {
        name: sorted(
            {
                target
                for dotted in imports(path, at_import_time=True)
                if (target := ours(dotted)) not in (None, name)
            }
        )
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name in done:
            return
        for target in graph.get(name, []):
            walk(target, (*way, name))
        done.add(name)

    for name in graph:
        walk(name, ())


def test_every_exception_is_still_needed() -> None:
    for (name, top), reason in EXCEPTIONS.items():
        assert name in MODULES, f"exception for {name}, which is gone ({reason})"
        tops = {dotted.split(".")[0] for dotted in imports(MODULES[name])}
        assert top in tops, f"{name} no longer imports {top}: remove its exception ({reason})"


def test_only_kernels_are_left_out_of_the_type_check() -> None:
    # A kernel's types are declared to the C compiler, in words that mypy does not know.
    settings = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    unchecked = [
        module
        for override in settings["tool"]["mypy"]["overrides"]
        if override.get("ignore_errors")
        for module in override["module"]
    ]
    assert sorted(unchecked) == sorted(f"unimeter.engine.{name}" for name in KERNELS)


def test_every_module_says_what_it_owns() -> None:
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        if text.strip():
            assert ast.get_docstring(ast.parse(text)), f"{name} has no docstring"
