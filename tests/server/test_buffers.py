"""Half-received frames: copied back, grown as they arrive, bounded together."""

from __future__ import annotations

from unimeter.server.buffers import SMALL_BYTES, Held, ReadBuffers


def test_a_small_part_is_plain_bytes() -> None:
    buffers = ReadBuffers()
    held = buffers.hold(memoryview(b"abc"), 16 * 2**20)
    assert held == b"abc"
    assert buffers.held_bytes == 3, "the declared length reserves nothing"
    buffers.release(held)
    assert buffers.held_bytes == 0


def test_a_large_part_doubles_and_never_exceeds_the_frame() -> None:
    buffers = ReadBuffers()
    data = memoryview(bytes(SMALL_BYTES))
    held = buffers.hold(data, 16 * 2**20)
    assert isinstance(held, Held)
    assert (len(held.view), held.filled) == (2 * SMALL_BYTES, SMALL_BYTES)
    nearly = buffers.hold(data, SMALL_BYTES + 100)
    assert isinstance(nearly, Held)
    assert len(nearly.view) == SMALL_BYTES + 100
    assert buffers.held_bytes == 3 * SMALL_BYTES + 100


def test_the_bound_covers_all_connections() -> None:
    buffers = ReadBuffers(held_bytes_max=10)
    first = buffers.hold(memoryview(b"12345678"), 100)
    assert first is not None
    assert buffers.hold(memoryview(b"123"), 100) is None
    buffers.release(first)
    assert buffers.hold(memoryview(b"123"), 100) is not None
