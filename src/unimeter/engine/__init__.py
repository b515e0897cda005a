"""WHAT the data means: catalog, decode, keys, totals, uniques, alerts, query, snapshot.

Everything here is pure. State and one log entry go in; state, outcomes and
alerts come out. There is no clock, disk, socket, thread or randomness, so that
every replica reaches the same bytes from the same log.

The kernels (modules that ``import cython``) are loaded here, compiled where
they were compiled and interpreted otherwise, or when ``UNIMETER_PURE=1`` asks
for it. Both ways give the same bytes; a test compares them.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

from unimeter import _pure

KERNELS: tuple[str, ...] = (
    "hashing",
    "tables",
    "keys",
    "totals",
    "thresholds",
    "fold",
    "decode",
    "count",
    "touched",
    "records",
    "replies",
)
"""In import order: a kernel may cimport only those before it."""


def _load_interpreted(name: str) -> None:
    full = f"{__name__}.{name}"
    path = Path(__file__).with_name(name + ".py")
    loader = importlib.machinery.SourceFileLoader(full, str(path))
    spec = importlib.util.spec_from_file_location(full, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    loader.exec_module(module)
    setattr(sys.modules[__name__], name, module)


def _load() -> bool:
    """Import all kernels; tell whether they are compiled."""
    forced = os.environ.get("UNIMETER_PURE", "") not in ("", "0")
    compiled = not forced
    with _pure.importable():
        for name in KERNELS:
            if forced:
                _load_interpreted(name)
            else:
                module = importlib.import_module(f"{__name__}.{name}")
                compiled = compiled and not str(module.__file__).endswith(".py")
    return compiled


COMPILED = _load()
"""Whether every kernel runs as compiled code."""
