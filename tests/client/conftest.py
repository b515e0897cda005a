"""A fake server for each test that asks for one, checked for broken promises at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.client.fake_server import FakeCluster, FakeServer


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server
    assert server.memory.broken == []


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as nodes:
        yield nodes
    assert nodes.memory.broken == []
