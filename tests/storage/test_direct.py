"""Durable writes past the page cache: the file holds what a plain write would have left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from unimeter.storage import direct, disk
from unimeter.storage.direct import BLOCK_BYTES, DirectWriter
from unimeter.storage.disk import DiskFullError, FatalStorageError, OsDisk, OsFile

FILE_BYTES = 64 * BLOCK_BYTES


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OsFile]:
    """A file filled with zeros, where the file system can write directly."""
    path = tmp_path / "segment"
    path.write_bytes(bytes(FILE_BYTES))
    try:
        DirectWriter(str(path)).close()
    except OSError as error:
        pytest.skip(f"no direct writes on this file system: {error.strerror}")
    opened = OsDisk().open(str(path), write=True)
    yield opened
    opened.close()


def pieces(random: Random, count: int) -> list[bytes]:
    return [random.randbytes(random.choice((8, 64, 200, 4096, 9000))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(10))
def test_groups_behind_one_another_are_all_there(file: OsFile, seed: int) -> None:
    random = Random(seed)
    expected, position = bytearray(FILE_BYTES), random.randrange(BLOCK_BYTES)
    while position < FILE_BYTES - 60_000:
        group = pieces(random, random.randrange(1, 6))
        file.write_durably(position, group)
        joined = b"".join(group)
        expected[position : position + len(joined)] = joined
        position += len(joined)
        if random.random() < 0.2:  # what recovery and a full disk do in between
            file.fill_zeros(position, 100)
        if random.random() < 0.2:
            file.write(position, [b"torn"])
            expected[position : position + 4] = b"torn"
            position += 4
    assert file.read(0, FILE_BYTES) == expected
    assert Path(file.path).read_bytes() == expected, "another reader sees the same"


def test_a_file_opened_again_goes_on_in_the_middle_of_a_block(file: OsFile) -> None:
    file.write_durably(0, [b"a" * 5000])
    again = OsDisk().open(file.path, write=True)
    again.write_durably(5000, [b"b" * 10])
    assert file.read(4990, 30) == b"a" * 10 + b"b" * 10 + bytes(10)
    again.close()


def test_what_does_not_fit_is_written_plainly(
    file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "GROUP_BYTES_MAX", 2 * BLOCK_BYTES)
    file.write_durably(10, [b"x" * 20_000])
    file.write_durably(20_010, [b"y" * 100])
    file.write_durably(FILE_BYTES - 10, [b"z" * 10])
    assert file.read(0, 20_111) == bytes(10) + b"x" * 20_000 + b"y" * 100 + b"\0"
    assert file.read(FILE_BYTES - 11, 20) == b"\0" + b"z" * 10
    assert file.size() == FILE_BYTES


def test_a_file_that_ends_inside_a_block_keeps_its_size(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(bytes(1000))
    opened = OsDisk().open(str(path), write=True)
    opened.write_durably(100, [b"abc"])
    opened.close()
    assert path.read_bytes() == bytes(100) + b"abc" + bytes(897)


def test_a_file_system_without_direct_writes_gets_write_and_sync(
    file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    def refused(path: str) -> DirectWriter:
        nonlocal tried
        tried += 1
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    monkeypatch.setattr(disk, "DirectWriter", refused)
    for n in range(3):
        file.write_durably(n, [b"%d" % n])
    assert file.read(0, 3) == b"012"
    assert tried == 1, "asked once, not for every group"


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EIO, FatalStorageError), (errno.ENOSPC, DiskFullError)]
)
def test_errors_are_sorted_like_those_of_a_sync(
    file: OsFile, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    def failing(*_: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(DirectWriter, "write", failing)
    with pytest.raises(expected):
        file.write_durably(0, [b"x"])


def test_zeros_past_the_page_cache_replace_what_was_there(file: OsFile, tmp_path: Path) -> None:
    before = Random(1).randbytes(FILE_BYTES)
    file.write(0, [before])
    assert direct.fill_zeros_directly(str(tmp_path / "segment"), 2 * BLOCK_BYTES, 8 * BLOCK_BYTES)
    expected = bytearray(before)
    expected[2 * BLOCK_BYTES : 10 * BLOCK_BYTES] = bytes(8 * BLOCK_BYTES)
    assert file.read(0, FILE_BYTES) == expected


@pytest.mark.parametrize(("offset", "length"), [(1, BLOCK_BYTES), (0, 100), (0, 0)])
def test_zeros_that_are_no_whole_blocks_are_left_to_a_plain_write(
    file: OsFile, tmp_path: Path, offset: int, length: int
) -> None:
    assert not direct.fill_zeros_directly(str(tmp_path / "segment"), offset, length)
    file.write(0, [b"x" * 9000])
    file.fill_zeros(offset, length)
    assert file.read(0, 9000) == b"x" * offset + bytes(min(length, 9000 - offset)) + b"x" * max(
        0, 9000 - offset - length
    )


def test_zeros_go_the_plain_way_where_the_file_system_has_no_direct_one(
    file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "no direct writes")

    file.write(0, [b"x" * BLOCK_BYTES])
    real, calls = os.pwrite, []

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        return refuse() if len(calls) == 1 else real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    file.fill_zeros(0, BLOCK_BYTES)
    assert len(calls) == 2
    assert file.read(0, BLOCK_BYTES) == bytes(BLOCK_BYTES)


def test_zeros_on_a_full_disk_are_told_as_such(
    file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFullError):
        file.fill_zeros(0, BLOCK_BYTES)
