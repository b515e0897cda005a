"""Redis and PostgreSQL doing the same exactly-once work, on the same disk.

The same work: count an event once by its key, add it to the account's total,
both in one atomic step, and answer after ``fdatasync``. For Redis that is a Lua
script with ``SET NX`` on the event's key and ``HINCRBY`` on the total, under
``appendfsync always``; for PostgreSQL one prepared statement per batch, an
``INSERT ... ON CONFLICT DO NOTHING`` feeding an upsert of totals. Both are
driven by the same load generator over a Unix socket (cheaper for them than
TCP), with preencoded requests, and both must end with all totals right.

Runs are small and bounded by requests. The servers are Debian's, started here
in a temporary directory under our own configuration and ended by process id.
Where one is missing it is skipped in one line, or installed with apt when
asked to and root. These are comparisons of defaults for one job, not of
products: neither is tuned and neither keeps the events readable.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unimeter.bench.frames import shuffled_pairs
from unimeter.bench.load import LoadError, LoadResult, run_load
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import Settings, quantile, temporary_directory

START_SECONDS_MAX: Final = 20.0
KEY_SECONDS: Final = 35 * 86_400

Event = tuple[int, int, int, int]  # account, metric, timestamp_ns, value


class RivalMissingError(Exception):
    """The other server is not installed."""


@dataclass(frozen=True)
class Shape:
    """One load: requests of `batch` events over `connections`, `depth` in flight on each."""

    batch: int
    connections: int
    depth: int
    requests: int


def shapes(settings: Settings) -> list[Shape]:
    """The loads measured, scaled to the run."""
    scale = max(1, round(settings.seconds * 20))
    return [
        Shape(settings.batch, 8, settings.depth_batches, 4 * scale),
        Shape(1, 64, settings.depth_singles, 500 * scale),
        Shape(1, 64, 1, 500 * scale),
        Shape(1, 1, 1, 20 * scale),
    ]


def unique_events(settings: Settings, first_ns: int, count: int) -> list[Event]:
    """`count` events over the pairs of the bench, each with its own timestamp."""
    pairs = shuffled_pairs(settings.accounts, settings.metrics)
    return [
        (*pairs[number % len(pairs)], first_ns + number * 1_000, 1 + number % 1000)
        for number in range(count)
    ]


class PreparedSource:
    """Requests encoded before the run; replies counted by a function of the protocol."""

    def __init__(
        self, requests: list[bytes], events: int, count: Callable[[bytes], tuple[int, int]]
    ) -> None:
        self.events_per_request = events
        self._requests = iter(requests)
        self._count = count

    def take(self, requests: int) -> tuple[memoryview, int]:
        """The next request, whatever number was asked for."""
        data = next(self._requests, b"")
        return memoryview(data), 1 if data else 0

    def count(self, data: memoryview) -> tuple[int, int]:
        """Whole replies in `data` and their bytes."""
        return self._count(bytes(data))


def connect_unix(path: Path, count: int) -> list[socket.socket]:
    """`count` connections to a Unix socket."""
    sockets = []
    for _ in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sockets.append(sock)
        sock.settimeout(START_SECONDS_MAX)
        try:
            sock.connect(str(path))
        except OSError:
            close_all(sockets)
            raise
    return sockets


def close_all(sockets: list[socket.socket]) -> None:
    """Close every socket."""
    for sock in sockets:
        sock.close()


def measure(
    name: str,
    settings: Settings,
    encode: Callable[[list[Event]], bytes],
    count: Callable[[bytes], tuple[int, int]],
    open_sockets: Callable[[int], list[socket.socket]],
) -> tuple[list[Figure], int]:
    """Run every shape; (figures, events that the totals must hold)."""
    figures: list[Figure] = []
    sent = 0
    first_ns = time.time_ns()
    for shape in shapes(settings):
        events = unique_events(settings, first_ns, shape.requests * shape.batch)
        first_ns += len(events) * 1_000
        requests = [
            encode(events[at : at + shape.batch]) for at in range(0, len(events), shape.batch)
        ]
        source = PreparedSource(requests, shape.batch, count)
        result = run_load(source, open_sockets(shape.connections), shape.depth, 600.0)
        sent += result.requests_total * shape.batch
        figures.append(_figure(name, shape, result))
    return figures, sent


def _figure(name: str, shape: Shape, result: LoadResult) -> Figure:
    title = f"{name}: batch {shape.batch} x {shape.connections}, depth {shape.depth}"
    if shape.connections == 1:
        p99 = quantile(result.latencies, 0.99)
        return Figure(f"{title}: p50", result.percentile(0.5), "s", note=f"p99 {p99 * 1e3:.2f} ms")
    unit = "events/s" if shape.batch > 1 else "requests/s"
    return Figure(title, result.events_per_second, unit)


@contextlib.contextmanager
def child(words: list[str], directory: Path, user: str | None = None) -> Iterator[int]:
    """Run a server as a child; SIGTERM it at the end, then SIGKILL if it lingers."""
    with (directory / "words.log").open("ab") as log:
        process = subprocess.Popen(
            words, cwd=directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=user
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(path: Path, try_once: Callable[[], None]) -> None:
    """Repeat `try_once` until it does not raise OSError."""
    deadline = time.perf_counter() + START_SECONDS_MAX
    while True:
        try:
            return try_once()
        except OSError as error:
            if time.perf_counter() > deadline:
                raise LoadError(f"no answer at {path.name}: {error}") from None
            time.sleep(0.02)


def find_program(program: str, package: str, install: bool) -> str:
    """The program's path, after installing its package if asked to; RivalMissingError if not."""
    candidates = [
        shutil.which(program),
        *sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}")),
    ]
    found = next((str(path) for path in candidates if path), "")
    if found:
        return found
    if not install or os.geteuid() != 0:
        raise RivalMissingError(
            f"{program} is not installed (apt-get install {package}, or --install-rivals as root)"
        )
    words = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:  # a new machine has no list of packages yet
        subprocess.run(["apt-get", "update"], capture_output=True, check=False)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RivalMissingError(
            f"apt-get could not install {package}: {done.stderr.strip()[-200:]}"
        )
    return find_program(program, package, False)


# --- Redis ---------------------------------------------------------------------------------

REDIS_SCRIPT: Final = f"""
local stored = 0
for i = 1, #ARGV, 3 do
  if redis.call('SET', ARGV[i], 1, 'NX', 'EX', {KEY_SECONDS}) then
    redis.call('HINCRBY', ARGV[i + 1], 'sum', ARGV[i + 2])
    redis.call('HINCRBY', ARGV[i + 1], 'count', 1)
    stored = stored + 1
  end
end
return stored
"""


def encode_resp(words: list[bytes]) -> bytes:
    """One Redis command."""
    return b"*%d\r\n" % len(words) + b"".join(
        b"$%d\r\n%s\r\n" % (len(word), word) for word in words
    )


def redis_reply(sock: socket.socket, words: list[bytes]) -> bytes:
    """One short command and its reply."""
    sock.sendall(encode_resp(words))
    return sock.recv(4096)


def count_redis(data: bytes) -> tuple[int, int]:
    """Integer replies in `data`, each ``:n``; LoadError on anything else."""
    used = data.rfind(b"\r\n") + 2
    if used < 2:
        return 0, 0
    if data[:1] != b":":
        raise LoadError(f"Redis answered {data[:200]!r}")
    return data.count(b"\r\n"), used


def run_redis(settings: Settings, install: bool) -> list[Figure]:
    """Redis with ``appendfsync always``."""
    program = find_program("redis-server", "redis-server", install)
    with temporary_directory(settings) as directory:
        path = directory.resolve() / "redis.sock"
        words = [program, "--port", "0", "--unixsocket", str(path), "--save", ""]
        words += [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--dir",
            str(directory.resolve()),
        ]
        with child(words, directory):
            wait_for(path, lambda: connect_unix(path, 1)[0].close())
            return _measure_redis(settings, path)


def _measure_redis(settings: Settings, path: Path) -> list[Figure]:
    with connect_unix(path, 1)[0] as control:
        digest = redis_reply(control, [b"SCRIPT", b"LOAD", REDIS_SCRIPT.encode()]).split()[1]

        def encode(events: list[Event]) -> bytes:
            words = [b"EVALSHA", digest, b"0"]
            for account, metric, stamp, value in events:
                words.append(b"e:%d:%d:%d" % (account, metric, stamp))
                words.append(b"t:%d:%d" % (account, metric))
                words.append(b"%d" % value)
            return encode_resp(words)

        figures, sent = measure(
            "Redis", settings, encode, count_redis, lambda count: connect_unix(path, count)
        )
        summing = b"""local n = 0; for _, k in ipairs(redis.call('KEYS', 't:*')) do
                      n = n + redis.call('HGET', k, 'count') end; return n"""
        found = int(redis_reply(control, [b"EVAL", summing, b"0"])[1:])
        if found != sent:
            raise LoadError(f"Redis holds {found} events of {sent}")
    return figures


# --- PostgreSQL ----------------------------------------------------------------------------

POSTGRES_TABLES: Final = """
CREATE TABLE events (account bigint, metric bigint, stamp bigint, value bigint,
                     PRIMARY KEY (account, metric, stamp));
CREATE TABLE totals (account bigint, metric bigint, sum numeric, count bigint,
                     PRIMARY KEY (account, metric));
"""
POSTGRES_INGEST: Final = """
WITH fresh AS (
    INSERT INTO events
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
    ON CONFLICT DO NOTHING RETURNING account, metric, value)
INSERT INTO totals AS t
SELECT account, metric, sum(value), count(*) FROM fresh GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (account, metric)
DO UPDATE SET sum = t.sum + excluded.sum, count = t.count + excluded.count
"""
READY: Final = b"Z\x00\x00\x00\x05I"


def pg_message(kind: bytes, body: bytes) -> bytes:
    """One frontend message."""
    return kind + struct.pack(">I", len(body) + 4) + body


def encode_postgres(events: list[Event]) -> bytes:
    """Bind, Execute and Sync of the prepared statement with four text arrays."""
    columns = [
        b"{%s}" % b",".join(b"%d" % item for item in column) for column in zip(*events, strict=True)
    ]
    values = b"".join(struct.pack(">I", len(column)) + column for column in columns)
    bind = b"\0ingest\0" + struct.pack(">HH", 0, 4) + values + struct.pack(">H", 0)
    return (
        pg_message(b"B", bind)
        + pg_message(b"E", b"\0" + struct.pack(">I", 0))
        + pg_message(b"S", b"")
    )


def count_postgres(data: bytes) -> tuple[int, int]:
    """Completed statements in `data`, told by ReadyForQuery; LoadError on an error message."""
    if data[:1] == b"E":
        raise LoadError(f"PostgreSQL answered {data[5:300]!r}")
    used = data.rfind(READY) + len(READY)
    return (data.count(READY), used) if used >= len(READY) else (0, 0)


def pg_exchange(sock: socket.socket, message: bytes) -> bytes:
    """Send and read until the server is ready for the next query."""
    sock.sendall(message)
    data = b""
    while not data.endswith(READY):
        part = sock.recv(65_536)
        if not part:
            raise ConnectionResetError(f"PostgreSQL closed: {data[-300:]!r}")
        data += part
    return data


def pg_connect(path: Path, count: int) -> list[socket.socket]:
    """`count` sessions; raises an OSError while the server still starts."""
    sockets = connect_unix(path, count)
    body = struct.pack(">I", 196_608) + b"user\0postgres\0database\0postgres\0\0"
    try:
        for sock in sockets:
            pg_exchange(sock, struct.pack(">I", len(body) + 4) + body)
    except OSError:
        close_all(sockets)
        raise
    return sockets


def pg_prepare(sock: socket.socket) -> None:
    """Prepare the statement under the name ``ingest``."""
    parse = b"ingest\0" + POSTGRES_INGEST.encode() + b"\0" + struct.pack(">H", 0)
    reply = pg_exchange(sock, pg_message(b"P", parse) + pg_message(b"S", b""))
    if reply[:1] != b"1":
        raise LoadError(f"PostgreSQL refused the statement: {reply[:300]!r}")


def run_postgres(settings: Settings, install: bool) -> list[Figure]:
    """PostgreSQL with its defaults: fsync and synchronous_commit on."""
    server = find_program("postgres", "postgresql", install)
    initdb = Path(server).resolve().parent / "initdb"
    user = "postgres" if os.geteuid() == 0 else None
    with temporary_directory(settings) as made:
        directory = made.resolve()
        data = directory / "data"
        data.mkdir(0o700)
        if user:
            _give_to(user, directory)
        words = [str(initdb), "--pgdata", str(data), "--username=postgres", "--auth=trust"]
        done = subprocess.run(words, cwd=directory, user=user, capture_output=True, check=False)
        if done.returncode:
            raise LoadError(f"initdb: {done.stderr.decode(errors='replace').strip()[-300:]}")
        words = [server, "-D", str(data), "-k", str(directory), "-c", "listen_addresses="]
        path = directory / ".s.PGSQL.5432"
        with child(words, directory, user):
            wait_for(path, lambda: pg_connect(path, 1)[0].close())
            return _measure_postgres(settings, path)


def _give_to(user: str, directory: Path) -> None:
    """Let the unprivileged user own the directory; its parents must let it pass."""
    owner = pwd.getpwnam(user)
    for path in (directory, directory / "data"):
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _measure_postgres(settings: Settings, path: Path) -> list[Figure]:
    with pg_connect(path, 1)[0] as control:
        pg_exchange(control, pg_message(b"Q", POSTGRES_TABLES.encode() + b"\0"))

        def open_sockets(count: int) -> list[socket.socket]:
            sockets = pg_connect(path, count)
            for sock in sockets:
                pg_prepare(sock)
            return sockets

        figures, sent = measure(
            "PostgreSQL", settings, encode_postgres, count_postgres, open_sockets
        )
        reply = pg_exchange(control, pg_message(b"Q", b"SELECT sum(count) FROM totals\0"))
        found = int(reply[reply.index(b"D", reply.index(b"T") + 1) + 11 :].split(b"C")[0])
        if found != sent:
            raise LoadError(f"PostgreSQL holds {found} events of {sent}")
    return figures


RIVALS: Final[dict[str, Callable[[Settings, bool], list[Figure]]]] = {
    "redis": run_redis,
    "postgres": run_postgres,
}
