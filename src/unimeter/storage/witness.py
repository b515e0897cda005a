"""The witness: one small file that says which index was durable once, and what is committed.

Owns `synced`. It is written after each sync of the log and never synced itself, so
it costs a copy into the page cache. After a SIGKILL it names the last sync or the
one before, after a power cut an earlier one; whatever it says is true, and a log
that ends before it has lost acknowledged entries (`tail`).

The commit index goes along as a hint: it saves a start from waiting for a leader
before it applies what was committed long ago. It is never above the durable index.

Before a conflicting suffix is removed the witness says so (`begin_cut`), durably:
from then on nothing above its index belongs to the log, whatever a crash leaves of it,
and the next start goes on removing. Only this makes the removal one step. Without
it, half of a suffix would be left whose headers prove that the other half was durable.

Rejected: syncing it after each group (a second sync for each), and keeping the index
only in the entries (nothing would then speak for the last group).
"""

from __future__ import annotations

from unimeter.errors import CorruptionError
from unimeter.storage import layout
from unimeter.storage.disk import Disk, DiskFullError
from unimeter.storage.layout import Witnessed

_ADVICE = (
    "Nothing was changed. If the log is known to be complete, remove this file; it is made anew."
)


class Witness:
    """The open file."""

    def __init__(self, disk: Disk, path: str, index: int, commit: int = 0) -> None:
        """Open or make the file and have it say `index`, durably where it is new."""
        is_new = not disk.exists(path)
        self._file = disk.open(path, write=True, create=is_new)
        self._says = Witnessed(index, commit)
        self._write(self._says)
        if is_new:
            self._file.sync()
            disk.sync_directory(path.rpartition("/")[0])

    @property
    def commit(self) -> int:
        """The commit index in the file."""
        return self._says.commit

    def raise_to(self, index: int, commit: int = 0) -> None:
        """Say that `index` is durable (it must be) and that `commit` is committed."""
        assert index >= self._says.index and not self._says.is_cutting
        says = Witnessed(index, max(self._says.commit, min(commit, index)))
        if says == self._says:
            return
        try:
            self._write(says)
        except DiskFullError:
            return  # an older witness is as true as a newer one
        self._says = says

    def begin_cut(self, index: int) -> None:
        """Say, durably, that nothing above `index` belongs to the log any more."""
        assert self._says.commit <= index, "a committed entry would be cut"
        self._settle(Witnessed(index, self._says.commit, is_cutting=True))

    def end_cut(self) -> None:
        """The log is blank behind the index, durably: new entries may follow it."""
        self._settle(Witnessed(self._says.index, self._says.commit))

    def settle(self, index: int, commit: int) -> None:
        """Say this, durably: another log has taken the place of the one before."""
        self._settle(Witnessed(index, commit))

    def _settle(self, says: Witnessed) -> None:
        self._write(says)
        self._file.sync()
        self._says = says

    def _write(self, says: Witnessed) -> None:
        self._file.write(0, [layout.encode_witness(says.index, says.commit, says.is_cutting)])

    def close(self) -> None:
        self._file.close()


def read_witness(disk: Disk, path: str) -> Witnessed:
    """What the file says; zeros where there is none."""
    if not disk.exists(path):
        return Witnessed()
    file = disk.open(path)
    try:
        found = layout.decode_witness(file.read(0, layout.WITNESS_BYTES + 1))
    finally:
        file.close()
    if isinstance(found, str):
        raise CorruptionError(path, 0, "an index and its checksum", found, _ADVICE)
    return found
