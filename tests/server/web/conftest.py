"""One server for the tests of a module that do not mind each other's accounts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.web.running import Running, running


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """A server with three metrics: api_calls (sum), requests (count), seats (count-unique)."""
    with running() as found:
        found.metric("api_calls", dimensions=[{"key": "model"}])
        found.metric("requests", "count")
        found.metric("seats", "count-unique")
        yield found
