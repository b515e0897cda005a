"""Work in a forked child: a consistent copy of memory for the price of a page table.

Owns fork, the child's file descriptors and its end. A child sees the memory of
the moment of the fork while the parent goes on changing its own, which is how a
snapshot of gigabytes is taken without stopping ingest and without a second copy.

What a child inherits and must not keep: the directory's lock (it would outlive a
killed parent), listening sockets (a restart would find its port in use), client
connections (they would never look closed). So its first act is to close all of
them. It writes what it was asked to, tells the result through a pipe, and leaves by
`os._exit`, so that no `finally`, `atexit` or buffered output of the parent's runs
twice.

No SIGCHLD handler is set and no stranger's child is waited for: the pipe says when
the child has ended, and only its own pid is reaped. If the host program reaps
it first, or ignores SIGCHLD, the pipe has said what is needed.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

_DONE = b"done\n"
_NICENESS = 10  # below ingest, which must not wait for it
_STANDARD = 3  # descriptors 0, 1, 2


class Child:
    """A forked child and the pipe that tells its result."""

    def __init__(self, pid: int, pipe: int) -> None:
        """Use `start`."""
        self.pid, self.pipe = pid, pipe
        self.said = ""  # what the work returned, a line at most, once it has ended
        self._heard = b""

    @classmethod
    def start(cls, work: Callable[[], str | None]) -> Child:
        """Fork; the child runs `work` and ends; what that returns is in `said` afterwards.

        Raises OSError where there is no memory for it.
        """
        reading, writing = os.pipe()
        try:
            with warnings.catch_warnings():
                # Python 3.12 warns of fork in a process with threads, because a lock that
                # another thread holds stays locked in the child. The child takes no such lock:
                # it runs this module, zlib, hashlib and system calls, writes no log, imports
                # nothing, allocates through malloc (which the C library makes safe across
                # fork), and never returns.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if pid == 0:
            _run_child(work, writing)
        os.close(writing)
        os.set_blocking(reading, False)
        return cls(pid, reading)

    def poll(self) -> str | None:
        """None while it runs; then "" for success or the words of its failure. Never blocks."""
        ended = self._listen()
        if not ended:
            ended = self._reap(os.WNOHANG)
            if ended:
                self._listen()
        if not ended:
            return None
        return self._finish()

    def wait(self) -> str:
        """Block until it has ended."""
        os.set_blocking(self.pipe, True)
        self._listen()
        return self._finish()

    def kill(self) -> None:
        """End it now."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def _listen(self) -> bool:
        """Read what it said; return whether it has said all it will."""
        try:
            while part := os.read(self.pipe, 4096):
                self._heard += part
        except BlockingIOError:
            return self._heard.endswith(_DONE)
        return True

    def _reap(self, options: int) -> bool:
        try:
            return os.waitpid(self.pid, options)[0] == self.pid
        except ChildProcessError:  # the host program reaped it
            return True

    def _finish(self) -> str:
        self._reap(0)  # it has closed its pipe, so this takes microseconds
        os.close(self.pipe)
        if self._heard.endswith(_DONE):
            self.said = self._heard.removesuffix(_DONE).decode()
            return ""
        words = self._heard.decode("utf-8", "replace").strip()
        return words or "the process that wrote it was killed"


def _run_child(work: Callable[[], str | None], pipe: int) -> NoReturn:
    """Everything the child does. Never returns."""
    status = 1
    try:
        gc.disable()  # a collection would touch, and so copy, every page
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        _close_inherited(pipe)
        os.nice(_NICENESS)
        said = work()
        os.write(pipe, (said or "").encode() + _DONE)
        status = 0
    except BaseException as error:  # told through the pipe; the child ends here
        with suppress(OSError):
            os.write(pipe, f"{type(error).__name__}: {error}".encode()[:4000])
    finally:
        os._exit(status)


def _close_inherited(pipe: int) -> None:
    """Close every descriptor but `pipe`; the standard ones lead to nowhere.

    They are replaced and not closed, or the next file opened would be number 2
    and get whatever a library writes to standard error.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(_STANDARD):
        os.dup2(nowhere, number)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    end = soft if soft != resource.RLIM_INFINITY else 1 << 20
    os.closerange(_STANDARD, pipe)
    os.closerange(pipe + 1, max(end, pipe + 1))
