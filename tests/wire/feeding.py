"""A connection without a socket: feed a byte stream to the kernel, write down what happens.

Run as a script it is the same, in a process of its own: streams come in on stdin
and transcripts go out on stdout, each after its length (u32). So one test process
can hold compiled and interpreted kernels against each other.
"""

from __future__ import annotations

import itertools
import subprocess
import sys

from unimeter.engine import decode

NOW_NS = 1_772_366_400_000_000_000
SLOT = 77
_HEADER_BYTES = 16


def transcript(stream: bytes, cuts: list[int] | None = None) -> list[tuple[object, ...]]:
    """Everything that a connection would notice while `stream` arrives in pieces."""
    builder = decode.EntryBuilder()
    builder.now_ns = NOW_NS
    log: list[tuple[object, ...]] = []
    edges = [0, *sorted(cuts or []), len(stream)]
    held = bytearray()
    skip = 0
    for start, end in itertools.pairwise(edges):
        held += stream[start:end]
        dropped = min(skip, len(held))
        skip -= dropped
        del held[:dropped]
        if skip:
            continue
        position, skip = _consume(builder, bytes(held), log)
        if position < 0:
            break
        del held[:position]
    _seal(builder, log)
    return log


def _consume(
    builder: decode.EntryBuilder, held: bytes, log: list[tuple[object, ...]]
) -> tuple[int, int]:
    """(bytes taken, bytes still to drain); -1 when the connection would be closed."""
    data = memoryview(bytearray(held or b"\0"))
    end = len(held)
    position = 0
    while True:
        before = position
        position = builder.feed(data, position, end, SLOT)
        stop = builder.stop
        assert before <= position <= end, "the kernel walks forward, and not beyond the data"
        if stop == decode.FEED_MORE:
            return position, 0
        if stop == decode.FEED_FULL:
            _seal(builder, log)
        elif stop == decode.FEED_MALFORMED:
            log.append(("malformed", builder.stop_version, builder.stop_request))
        elif stop == decode.FEED_OTHER:
            size = _HEADER_BYTES + builder.stop_length
            if end - position < size:
                return position, 0
            log.append(("other", builder.stop_type, bytes(data[position : position + size])))
            position += size
        elif stop == decode.FEED_TOO_LARGE:
            log.append(("too large", builder.stop_request, builder.stop_length))
            size = _HEADER_BYTES + builder.stop_length
            dropped = min(size, end - position)
            position += dropped
            if size > dropped:
                return position, size - dropped
        else:
            assert stop == decode.FEED_BAD_MAGIC
            log.append(("not our protocol",))
            return -1, 0


def _seal(builder: decode.EntryBuilder, log: list[tuple[object, ...]]) -> None:
    sealed = builder.seal(NOW_NS + 1, 1000)
    if sealed is not None:
        log.append(("entry", sealed.events, bytes(sealed.body), bytes(sealed.routes)))


class Twin:
    """The same in another process, where ``UNIMETER_PURE=1`` takes the interpreted kernels."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.wire.feeding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def transcript(self, stream: bytes) -> str:
        """What the other process noticed, as text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(len(stream).to_bytes(4, "little") + stream)
        self._process.stdin.flush()
        size = int.from_bytes(self._process.stdout.read(4), "little")
        return self._process.stdout.read(size).decode()

    def is_compiled(self) -> bool:
        """Which kernels it has: the answer to an empty stream says so."""
        return self.transcript(b"").startswith("compiled")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def main() -> None:
    from unimeter.engine import COMPILED

    while len(head := sys.stdin.buffer.read(4)) == 4:
        stream = sys.stdin.buffer.read(int.from_bytes(head, "little"))
        text = repr(transcript(stream)) if stream else f"{'compiled' if COMPILED else 'pure'}"
        answer = text.encode()
        sys.stdout.buffer.write(len(answer).to_bytes(4, "little") + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
