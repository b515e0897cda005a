"""The witness: one small file that says which index was durable once.

Owns `synced`. It is written after each sync of the log and never synced itself, so
it costs a copy into the page cache. After a SIGKILL it names the last sync or the
one before, after a power cut an earlier one; whatever it says is true, and a log
that ends before it has lost acknowledged entries (`tail`).

Rejected: syncing it (a second sync for each group), and keeping the index only in
the entries (nothing would then speak for the last group).
"""

from __future__ import annotations

from unimeter.errors import CorruptionError
from unimeter.storage import layout
from unimeter.storage.disk import Disk, DiskFullError

_ADVICE = (
    "Nothing was changed. If the log is known to be complete, remove this file; it is made anew."
)


class Witness:
    """The open file."""

    def __init__(self, disk: Disk, path: str, index: int) -> None:
        """Open or make the file and have it say `index`."""
        is_new = not disk.exists(path)
        self._file = disk.open(path, write=True, create=is_new)
        self._index = index  # what the file says
        self._file.write(0, [layout.encode_witness(index)])
        if is_new:
            self._file.sync()
            disk.sync_directory(path.rpartition("/")[0])

    def raise_to(self, index: int) -> None:
        """Say that `index` is durable; it must be."""
        assert index >= self._index
        if index == self._index:
            return
        try:
            self._file.write(0, [layout.encode_witness(index)])
        except DiskFullError:
            return  # an older witness is as true as a newer one
        self._index = index

    def lower_to(self, index: int) -> None:
        """Say less, durably, before the log is cut: it may never claim more than there is."""
        self._file.write(0, [layout.encode_witness(index)])
        self._file.sync()
        self._index = index

    def close(self) -> None:
        self._file.close()


def read_witness(disk: Disk, path: str) -> int:
    """The index in the file; 0 where there is none."""
    if not disk.exists(path):
        return 0
    file = disk.open(path)
    try:
        found = layout.decode_witness(file.read(0, layout.WITNESS_BYTES + 1))
    finally:
        file.close()
    if isinstance(found, str):
        raise CorruptionError(path, 0, "an index and its checksum", found, _ADVICE)
    return found
