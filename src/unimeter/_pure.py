"""A stand-in for Cython's ``cython`` module, so that the kernels run uncompiled.

The kernels are ordinary Python files with type annotations that Cython turns
into C. Where they were not compiled they still say ``import cython`` and
``from cython.cimports... import``. Cython's own stand-in is only there when
Cython is installed and does not wrap integers, so this one is always used:
decorators do nothing, ``cast`` wraps to the width it names, and a cimport is
an import. It is put into ``sys.modules`` while the kernels are imported and
taken away again, so that a host program's own Cython is not disturbed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

_PREFIX = "cython.cimports"


class _Integer:
    """A C integer type: calling it wraps a value to its width."""

    def __init__(self, bits: int, signed: bool) -> None:
        self._mask = (1 << bits) - 1
        self._top = 1 << (bits - 1) if signed else 1 << bits

    def __call__(self, value: int = 0) -> int:
        value &= self._mask
        return value - self._mask - 1 if value >= self._top else value

    def __getitem__(self, shape: object) -> _Integer:
        return self


class _NoGil:
    """``cython.nogil`` as a decorator and as a context manager."""

    def __call__(self, function: Any) -> Any:
        return function

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


def _same(function: Any) -> Any:
    return function


def _setting(*_args: object, **_kwargs: object) -> Callable[[Any], Any]:
    return _same


def _stand_in() -> ModuleType:
    module: Any = ModuleType("cython")
    module.__path__ = []
    module.compiled = False
    for name in ("cfunc", "ccall", "cclass", "final", "inline"):
        setattr(module, name, _same)
    for name in ("boundscheck", "wraparound", "cdivision", "initializedcheck", "exceptval"):
        setattr(module, name, _setting)
    for name, bits, signed in (
        ("ulonglong", 64, False),
        ("longlong", 64, True),
        ("uint", 32, False),
        ("int", 32, True),
        ("ushort", 16, False),
        ("uchar", 8, False),
        ("Py_ssize_t", 64, True),
        ("bint", 32, True),
    ):
        setattr(module, name, _Integer(bits, signed))
    module.nogil = _NoGil()
    module.cast = lambda kind, value: kind(value)
    module.declare = lambda kind, value=0: value
    stand_in: ModuleType = module
    return stand_in


class _CImports(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers ``cython.cimports.X`` with the attributes of module X."""

    def find_spec(self, name: str, path: object, target: object = None) -> Any:
        if name == _PREFIX or name.startswith(_PREFIX + "."):
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__[len(_PREFIX) + 1 :]
        if name:
            real = importlib.import_module(name)
            public = {k: v for k, v in vars(real).items() if not k.startswith("__")}
            vars(module).update(public)


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """While inside, ``import cython`` finds the stand-in."""
    hidden = {n: m for n, m in sys.modules.items() if n == "cython" or n.startswith("cython.")}
    finder = _CImports()
    for name in hidden:
        del sys.modules[name]
    sys.modules["cython"] = _stand_in()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n == "cython" or n.startswith("cython.")]:
            del sys.modules[name]
        sys.modules.update(hidden)
