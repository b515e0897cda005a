"""The real disk: durable writes past the page cache, short files, full file systems, fork."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from random import Random

import pytest

from unimeter.storage import direct
from unimeter.storage.background import Child
from unimeter.storage.disk import (
    DiskFullError,
    FatalStorageError,
    OsDisk,
    OsFile,
    sorted_errors,
)

SIZE = 256 * 1024


def make(path: Path) -> OsFile:
    file = OsDisk().open(str(path), create=True)
    file.fill_zeros(0, SIZE)
    file.sync()
    return file


@pytest.mark.parametrize("seed", range(5))
def test_durable_writes_one_behind_the_other_read_back(tmp_path: Path, seed: int) -> None:
    """Groups of all sizes, plain writes between them: the bytes are those that were written."""
    random = Random(seed)
    file = make(tmp_path / "log")
    expected = bytearray(SIZE)
    position = random.randrange(0, 9000, 8)
    while True:
        pieces = [random.randbytes(random.choice((0, 8, 64, 500, 4096, 9000))) for _ in range(4)]
        group = b"".join(pieces)
        if position + len(group) > SIZE:
            break
        if random.random() < 0.2:
            file.write(position, pieces)
        else:
            file.write_durably(position, pieces)
        expected[position : position + len(group)] = group
        position += len(group)
        assert file.read(0, SIZE) == bytes(expected)
    file.close()
    assert (tmp_path / "log").read_bytes() == bytes(expected)


def test_a_durable_write_after_the_file_was_blanked_does_not_bring_old_bytes_back(
    tmp_path: Path,
) -> None:
    file = make(tmp_path / "log")
    file.write_durably(0, [b"a" * 1000])
    file.fill_zeros(500, 4096)
    file.sync()
    file.write_durably(600, [b"b" * 8])
    expected = b"a" * 500 + bytes(100) + b"b" * 8
    assert file.read(0, SIZE) == expected.ljust(SIZE, b"\0")
    file.close()


def test_where_direct_writes_are_not_possible_they_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, path: str) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(direct.DirectWriter, "__init__", refuse)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    file = make(tmp_path / "log")
    before = len(synced)
    file.write_durably(8, [b"x", b"y"])
    file.write_durably(10, [b"z"])
    assert len(synced) - before == 2
    assert file.read(8, 3) == b"xyz"
    file.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EIO, FatalStorageError),
        (errno.EROFS, FatalStorageError),
    ],
)
def test_errors_of_the_system_are_sorted(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="what was done"), sorted_errors("what was done"):
        raise OSError(number, os.strerror(number))


def test_a_failed_sync_is_fatal_even_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(tmp_path / "log")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(FatalStorageError, match="instead of trying again"):
        file.sync()
    file.close()


def test_reading_behind_the_end_gives_what_there_is(tmp_path: Path) -> None:
    file = make(tmp_path / "log")
    assert file.read(SIZE - 3, 10) == bytes(3)
    assert file.read(SIZE + 5, 10) == b""
    buffer = bytearray(b"x" * 10)
    assert file.read_into(SIZE - 4, memoryview(buffer)) == 4
    assert bytes(buffer) == bytes(4) + b"x" * 6
    file.close()


def test_a_child_can_be_forked_from_any_thread() -> None:
    words: list[str] = []
    thread = threading.Thread(target=lambda: words.append(Child.start(lambda: None).wait()))
    thread.start()
    thread.join()
    assert words == [""]
