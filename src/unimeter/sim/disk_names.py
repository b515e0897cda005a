"""The names of the fake disk's files: as they are, as durable, and the changes in between.

Owns which file has which name, and what a power cut leaves of names. A creation, a
rename or a removal is durable by `sync` of its directory. A power cut draws for each
unsynced change whether it happened, later ones without earlier ones; a rename happens
whole or not at all, as on every file system with a journal, and a file has one name.

Refuses to make directories lose anything: the real disk syncs the parent of each one it
makes, before it goes on.

Names are told and ordered by `shown`, so that a pid in a temporary name decides nothing.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from unimeter.errors import WrongDirectoryError
from unimeter.sim.chance import Chance
from unimeter.sim.disk_content import Content
from unimeter.storage.disk import FatalStorageError

_PID: Final = re.compile(r"\.\d+\.tmp\b")

Change = tuple[str, str, Content]  # (name that goes or "", name that comes or "", file)


def shown(path: str) -> str:
    """A path, or a sentence with paths in it, as it may be told and sorted by.

    A pid in a temporary name is `pid`: it differs from process to process.
    """
    return _PID.sub(".pid.tmp", path)


def in_order(path: str) -> tuple[str, str]:
    """The key to sort paths by."""
    return shown(path), path


class Names:
    """The tree of one disk."""

    def __init__(self) -> None:
        self.now: dict[str, Content] = {}
        self.durable: dict[str, Content] = {}
        self.directories: dict[str, None] = {}
        self._unsynced: list[Change] = []  # in order

    def find(self, path: str) -> Content:
        """The file of that name; FileNotFoundError."""
        if path not in self.now:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.now[path]

    def create(self, path: str) -> Content:
        """A new empty file takes the name."""
        parent = os.path.dirname(path)
        if parent not in ("", "/") and parent not in self.directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        content = self.now[path] = Content()
        self._unsynced.append(("", path, content))
        return content

    def rename(self, old: str, new: str) -> None:
        if old not in self.now:
            raise FatalStorageError(f"{old}: rename to {new}: {os.strerror(errno.ENOENT)}")
        content = self.now[new] = self.now.pop(old)
        self._unsynced.append((old, new, content))

    def remove(self, path: str) -> None:
        if path not in self.now:
            raise FatalStorageError(f"{path}: remove: {os.strerror(errno.ENOENT)}")
        self._unsynced.append((path, "", self.now.pop(path)))

    def put(self, path: str, content: Content) -> None:
        """The file has that name durably, whatever had it before."""
        self._unsynced = [change for change in self._unsynced if path not in change[:2]]
        self.now[path] = self.durable[path] = content
        self.add_directory(os.path.dirname(path))

    def add_directory(self, path: str) -> None:
        """It and its parents are there."""
        while path not in ("", "/"):
            self.directories[path] = None
            path = os.path.dirname(path)

    def below(self, directory: str) -> list[str]:
        """The names of files and folders in `directory`, sorted."""
        if directory in self.now:
            raise WrongDirectoryError(f"{directory}: is a file, not a directory")
        start = directory.rstrip("/") + "/"
        found = {
            path[len(start) :].partition("/")[0]: None
            for path in (*self.now, *self.directories)
            if path.startswith(start)
        }
        return sorted(found, key=in_order)

    def durable_below(self, directory: str) -> list[str]:
        """The paths of durably named files anywhere under `directory`, sorted."""
        start = directory.rstrip("/") + "/"
        return sorted((path for path in self.durable if path.startswith(start)), key=in_order)

    def sync(self, directory: str) -> None:
        """Every change in that directory is durable."""
        left = []
        for change in self._unsynced:
            if os.path.dirname(change[1] or change[0]) == directory:
                _apply(self.durable, change)
            else:
                left.append(change)
        self._unsynced = left

    def survive(self, chance: Chance, arrival: float) -> None:
        """What a power cut leaves: each unsynced change happened that often."""
        for change in self._unsynced:
            if chance.hit(arrival):
                _apply(self.durable, change)
        self._unsynced.clear()
        self.now = {path: self.durable[path] for path in sorted(self.durable, key=in_order)}

    def lose(self) -> None:
        """Nothing is left."""
        for names in (self.now, self.durable, self.directories, self._unsynced):
            names.clear()


def _apply(names: dict[str, Content], change: Change) -> None:
    """One change takes place; one that depends on another that did not leaves one name."""
    gone, comes, content = change
    for name in [name for name, found in names.items() if found is content]:
        if comes or name == gone:
            del names[name]
    if comes:
        names[comes] = content
