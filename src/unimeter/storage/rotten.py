"""An entry that was found damaged while the node ran, noted for the next start.

Owns the file `rotten`: one index. Opening a directory checks the end of the log and what it
replays; damage in older entries is met only by who reads them, a follower that is far
behind or a query. Whoever meets it may repair it at once (`Wal.repair`), or stop: with
the note the next start of a member of a cluster looks at that entry, once, refuses with
its index, and the entry can be had from a peer. Without it a node could stop, start
and stop again. A node that is alone has nobody to ask.

The file is a hint. One that can't be read is removed.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from typing import Final

from unimeter.storage.disk import Disk, DiskFullError

NAME: Final = "rotten"
_MAGIC: Final = b"UNIMROT\n"
_NOTE = struct.Struct("<8sIIQ")  # magic crc 0 index


def encode_note(index: int) -> bytes:
    crc = zlib.crc32(_NOTE.pack(_MAGIC, 0, 0, index))
    return _NOTE.pack(_MAGIC, crc, 0, index)


def note_rotten(disk: Disk, path: str, index: int) -> None:
    """Have the next start look at this entry first."""
    with suppress(DiskFullError):
        file = disk.open(f"{path}/{NAME}.tmp", create=True)
        try:
            file.write(0, [encode_note(index)])
            file.sync()
        finally:
            file.close()
        disk.rename(f"{path}/{NAME}.tmp", f"{path}/{NAME}")
        disk.sync_directory(path)


def noted_rotten(disk: Disk, path: str) -> int:
    """The index in the file; 0 where there is none, or none that can be read."""
    if not disk.exists(f"{path}/{NAME}"):
        return 0
    file = disk.open(f"{path}/{NAME}")
    try:
        data = file.read(0, _NOTE.size + 1)
    finally:
        file.close()
    index = int.from_bytes(data[16:24], "little")
    return index if data == encode_note(index) else 0


def forget_rotten(disk: Disk, path: str) -> None:
    """The entry is whole, or gone."""
    if disk.exists(f"{path}/{NAME}"):
        disk.remove(f"{path}/{NAME}")
