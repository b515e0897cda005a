"""The raw disk: what one durable write costs here, before any figure is judged.

Writes to a file that was zero-filled and synced first, as the log's segments
are, so that no figure includes file-system metadata. What a node can reach for
a single event is bounded from below by the first of these numbers plus the
network's round trip.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SMALL_BYTES: Final = 4096
LARGE_BYTES: Final = 256 * 1024
FILE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class DiskFacts:
    """Seconds of write plus fdatasync, and seconds of a loopback round trip."""

    small_p50: float
    small_p99: float
    large_p50: float
    loopback_p50: float
    filesystem: str


def probe_disk(directory: Path, rounds: int = 400) -> DiskFacts:
    """Measure in `directory`; the file is removed afterwards."""
    path = directory / "probe.tmp"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(FILE_BYTES), 0)
        os.fdatasync(descriptor)
        small = _time_writes(descriptor, SMALL_BYTES, rounds)
        large = _time_writes(descriptor, LARGE_BYTES, max(10, rounds // 4))
    finally:
        os.close(descriptor)
        path.unlink()
    return DiskFacts(
        small_p50=statistics.median(small),
        small_p99=sorted(small)[int(len(small) * 0.99)],
        large_p50=statistics.median(large),
        loopback_p50=probe_loopback(rounds),
        filesystem=filesystem_of(directory),
    )


def _time_writes(descriptor: int, size: int, rounds: int) -> list[float]:
    data = os.urandom(size)
    seconds = []
    for number in range(rounds):
        begin = time.perf_counter()
        os.pwrite(descriptor, data, number * size % FILE_BYTES)
        os.fdatasync(descriptor)
        seconds.append(time.perf_counter() - begin)
    return seconds


def probe_loopback(rounds: int) -> float:
    """Median seconds of one byte to another thread's blocking socket and back."""
    near, far = _loopback_pair()

    def echo() -> None:
        while data := far.recv(64):
            far.sendall(data)

    thread = threading.Thread(target=echo)
    thread.start()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        near.sendall(b"x")
        near.recv(64)
        seconds.append(time.perf_counter() - begin)
    near.close()
    thread.join()
    far.close()
    return statistics.median(seconds)


def _loopback_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def filesystem_of(directory: Path) -> str:
    """Type and device of the file system that holds `directory`."""
    resolved = directory.resolve()
    best, found = -1, "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        device, place, kind, *_ = line.split()
        mount = Path(place.replace("\\040", " "))
        if resolved.is_relative_to(mount) and len(mount.parts) > best:
            best, found = len(mount.parts), f"{kind} on {device}"
    return found
