"""JSON of a bounded depth for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

DEPTH = 3
SHORT = st.text(max_size=8)


def json_values(
    leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[str] = SHORT
) -> st.SearchStrategy[Any]:
    """Leaves, and lists and objects of them, and of those."""
    found = leaves
    for _ in range(DEPTH):
        found = leaves | st.lists(found, max_size=4) | st.dictionaries(keys, found, max_size=4)
    return found
