"""A disk in memory, for ``:memory:`` and for tests that break things (skeleton)."""

from __future__ import annotations
