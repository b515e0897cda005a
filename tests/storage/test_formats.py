"""The hex of docs/internals/formats.md is what the code writes."""

from __future__ import annotations

import re
from pathlib import Path

from tests.storage.meter import PATH, Meter

from unimeter.storage.memory_disk import MemoryDisk

PAGE = Path(__file__).parents[2] / "docs" / "internals" / "formats.md"


def test_the_entry_on_the_page_is_the_first_of_a_log() -> None:
    shown = re.search(r"```hex\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    expected = bytes.fromhex(shown[1])
    disk = Meter(MemoryDisk()).opened.disk
    assert isinstance(disk, MemoryDisk)
    log = disk.contents(f"{PATH}/log/0000000000000001.seg")
    assert log[4096 : 4096 + len(expected)] == expected
    assert not any(log[4096 + len(expected) :])
