"""How far a file was ingested, so that a run goes on where the last one stopped.

Two things keep an event from being counted twice, and either is enough:

1. **Event ids.** A line without an id of its own gets one made from the file's
   identity and its line number. Sent again it is a duplicate, recognised by
   the node for 35 days at least.
2. **This file**, ``FILE.unimeter-progress``, written beside FILE as batches are
   acknowledged: which byte and line are next, and the hash of all bytes before.

The identity is the hash of the first `HEAD_BYTES` of the file as it was when
its first run began, and of the options that choose columns. It is kept here, so
it stays the same when the file grows or a bad line is mended after a stop.

    bytes     0 ................ offset ............ end of file
              acknowledged       may still be edited or grow
              hash must agree    read by the next run

If the bytes before `offset` are not those that were acknowledged, it may be
another file of that name or an edited one; nobody but the user knows, so the
run is refused until ``--restart`` says to count the file as a new one.

The progress file may be lost or old: then lines are sent again, and are
duplicates. It is written under another name and renamed, never in place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from unimeter.errors import InvalidInputError

SUFFIX = ".unimeter-progress"
VERSION = 1

HEAD_BYTES = 1024 * 1024
"""Bytes that tell files apart: exports of the same program differ long before."""


@dataclass
class Progress:
    """One run over one file: what is acknowledged. Counts are of all its runs together."""

    identity: str
    begun_ns: int  # the time of lines that have none; the same after a resume
    offset: int = 0
    line: int = 0
    digest: str = ""
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    skipped: int = 0


class ProgressFile:
    """The runs over one file, by the options and nodes they were made with."""

    def __init__(self, path: Path | None) -> None:
        self._path = path  # None: nothing is kept (standard input, a dry run)
        self._runs: dict[str, Any] = {}
        if path is not None and path.exists():
            self._runs = _read(path)

    def find(self, key: str) -> Progress | None:
        """The run with that key, if there was one."""
        found = self._runs.get(key)
        if found is None:
            return None
        try:
            return Progress(**found)
        except TypeError:
            raise _unreadable(self._path, "its fields are not those of this version") from None

    def save(self, key: str, progress: Progress) -> None:
        """Write atomically; after a crash the file is the old one or the new one."""
        if self._path is None:
            return
        self._runs[key] = asdict(progress)
        text = json.dumps({"version": VERSION, "runs": self._runs}, indent=1)
        beside = self._path.with_name(self._path.name + ".tmp")
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise InvalidInputError(
                f"progress file {self._path} can't be written ({error.strerror}); "
                "give --progress-file PATH, or --no-progress-file to rely on event ids alone"
            ) from None


class Seekable(Protocol):
    """A file that can be read again."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes."""
        ...

    def seek(self, offset: int, /) -> int:
        """Go to a byte."""
        ...

    def tell(self) -> int:
        """The byte to be read next."""
        ...


def identity_of(stream: Seekable, fields_digest: str, name: str = "") -> str:
    """The identity of a file as it is now; leaves the stream at its start."""
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    return named_identity(fields_digest, hashlib.blake2b(head).hexdigest() + name)


def named_identity(fields_digest: str, name: str) -> str:
    """The identity of a stream that has nothing but a name."""
    text = f"{fields_digest}\n{name}".encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def check_same(path: Path, progress: Progress, digest: str, offset: int) -> None:
    """Refuse to go on if the bytes before `progress.offset` changed."""
    if offset == progress.offset and digest == progress.digest:
        return
    raise InvalidInputError(
        f"{path} changed before line {progress.line + 1}, up to which it was ingested; "
        "if it is another file now, pass --restart to count it from its first line; "
        "if it was edited, undo that: what is counted can't be changed by editing"
    )


def prefix_digest(stream: Seekable, offset: int) -> str:
    """The hash of the first `offset` bytes, by reading them again; the place is kept."""
    hashed = hashlib.blake2b(digest_size=16)
    place = stream.tell()
    stream.seek(0)
    left = offset
    while left > 0 and (part := stream.read(min(left, HEAD_BYTES))):
        hashed.update(part)
        left -= len(part)
    stream.seek(place)
    assert left == 0, "the prefix was read before"
    return hashed.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from None
    if not isinstance(found, Mapping) or found.get("version") != VERSION:
        raise _unreadable(path, f"it is not of version {VERSION}")
    runs = found.get("runs")
    if not isinstance(runs, dict):
        raise _unreadable(path, "it names no runs")
    return runs


def _unreadable(path: Path | None, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"progress file {path} can't be used: {why}; delete it to send the file again: "
        "what was counted in the last 35 days is recognised by its ids"
    )
