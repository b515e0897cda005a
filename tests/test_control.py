"""The trail as a table: each cell stands under its own name."""

from __future__ import annotations

from unimeter.control import AUDIT_COLUMNS, Actor, AuditRecord


def test_a_line_of_the_trail_is_a_row_in_the_order_of_its_columns() -> None:
    actor = Actor("abcdefghijkl", "ops", "http", "10.0.0.9:4711")
    record = AuditRecord(7, 1_700_000_000_000_000_001, actor, "key.put", "target", "done")
    assert dict(zip(AUDIT_COLUMNS, record.cells(), strict=True)) == {
        "index": 7,
        "time": "2023-11-14T22:13:20.000000001Z",
        "key": "abcdefghijkl",
        "name": "ops",
        "via": "http",
        "address": "10.0.0.9:4711",
        "action": "key.put",
        "target": "target",
        "result": "done",
    }
