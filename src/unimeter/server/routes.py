"""The partition map: which addresses a client is told, row by row.

Owns one choice. There is one shard, so every partition has the same leader; its row also
names replicas, and the published client sends all queries to a row's first one. So
the replicas are the followers, rotated from row to row: queries spread over them, and all
rows together name every node, which is what that client subscribes to.
"""

from __future__ import annotations

from collections.abc import Mapping

from unimeter.wire.messages import PartitionRoute

REPLICAS_PER_ROW = 2  # v1's row has room for two


def rows_of(addresses: Mapping[int, str], lead: int, count: int) -> list[PartitionRoute]:
    """`count` rows from the addresses of the nodes that are there; `lead` 0 = none is known."""
    leader = addresses.get(lead, "")
    others = [address for node, address in sorted(addresses.items()) if node != lead and address]
    if not others:
        return [PartitionRoute(leader, [leader] if leader else [])] * count
    rows = [
        PartitionRoute(
            leader,
            [others[(row + at) % len(others)] for at in range(min(REPLICAS_PER_ROW, len(others)))],
        )
        for row in range(len(others))
    ]
    return [rows[row % len(rows)] for row in range(count)]
