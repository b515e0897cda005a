"""The sync thread: groups, a full disk, a failed disk, the end."""

from __future__ import annotations

import errno
import os
import threading
from queue import SimpleQueue

from unimeter.storage.disk import DiskFullError, FatalStorageError
from unimeter.storage.layout import Identity
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.wal import Wal, WalLimits
from unimeter.storage.writer import Writer

News = SimpleQueue[int | BaseException]


def start(disk: MemoryDisk) -> tuple[Wal, Writer, News]:
    bounds = WalLimits(65536, 65536, background=False)
    wal = Wal.open(disk, "d", Identity(b"w" * 16, 1), bounds)
    news: News = SimpleQueue()
    writer = Writer(wal, news.put, news.put)
    writer.start()
    return wal, writer, news


def put(wal: Wal, size: int = 10) -> None:
    wal.append(wal.last_index + 1, 1, 2, 1, b"x" * size)


def test_what_gathers_during_a_sync_goes_into_the_next() -> None:
    disk = MemoryDisk()
    wal, writer, news = start(disk)
    put(wal)
    writer.submit()
    assert news.get() == 1
    entered, go_on = threading.Event(), threading.Event()

    def hold(operation: str, path: str) -> None:
        if operation == "sync":
            entered.set()
            go_on.wait(10)

    disk.on_operation = hold
    put(wal)
    writer.submit()
    assert entered.wait(10) and writer.busy
    for _ in range(5):
        put(wal)
        writer.submit()
    go_on.set()
    assert news.get() == 2
    assert news.get() == 7
    writer.close()
    assert news.empty() and wal.synced_index == 7


def test_the_end_syncs_what_was_submitted() -> None:
    wal, writer, news = start(MemoryDisk())
    for _ in range(3):
        put(wal)
    writer.submit()
    writer.close()
    assert news.get() == 3
    writer.close()


def test_a_full_disk_is_told_and_the_thread_goes_on() -> None:
    disk = MemoryDisk(capacity=1_150_000)
    wal, writer, news = start(disk)
    put(wal)
    writer.submit()
    assert news.get() == 1
    put(wal, 60_000)
    put(wal, 60_000)
    writer.submit()
    found = news.get()
    assert isinstance(found, DiskFullError) and found.from_index == 3 == wal.synced_index + 1
    disk.capacity = None
    assert wal.try_resume()
    put(wal)
    writer.submit()
    assert news.get() == 3
    writer.close()


def test_a_failed_disk_ends_the_thread() -> None:
    disk = MemoryDisk()
    wal, writer, news = start(disk)

    def fail(operation: str, path: str) -> None:
        if operation == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.on_operation = fail
    put(wal)
    writer.submit()
    assert isinstance(news.get(), FatalStorageError)
    writer.close()
