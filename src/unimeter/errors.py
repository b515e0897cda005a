"""The exceptions of the package, as a tree.

    UnimeterError
    ├── ClientError                 the caller must change something; never retryable
    │   ├── InvalidInputError       a value, a schema, a frame that breaks a rule
    │   ├── NotFoundError           no such metric
    │   ├── AlreadyExistsError      a metric that exists and may not change this way
    │   ├── RangeUnavailableError   an exact answer needs events that retention removed
    │   ├── SessionExpiredError     the server forgot this session; outcome of a resend unknown
    │   ├── UnauthenticatedError    no key, or one that is not known or was revoked
    │   └── ForbiddenError          the key is good, and not for this
    ├── ConnectionError             no connection, or it was lost      (retryable)
    ├── DeadlineExceededError       the caller's deadline passed       (retryable)
    ├── BackpressureError           the server asks to wait            (retryable)
    │   └── DiskFullError           no space; the node goes on once there is
    ├── RedirectError               another node leads                 (retryable)
    ├── ServerError                 the server failed or refused without a better name
    └── DataError                   storage refused to open or read
        ├── CorruptionError         file, offset, expected, found
        │   └── RottenEntryError    one entry of the log; a peer's copy can repair it
        ├── WrongDirectoryError     other node, cluster or format version
        ├── DirectoryInUseError     another process owns the directory
        └── FatalStorageError       the disk failed while running: the process must stop

``retryable`` tells whether the same call may succeed later unchanged. Errors
of the data directory carry what was expected and what was found, because the
person who reads them has to decide what to do with real invoices.
"""

from __future__ import annotations

import builtins


class UnimeterError(Exception):
    """Base of all errors of this package."""

    retryable: bool = False


class ClientError(UnimeterError):
    """The request can't succeed as it is."""


class InvalidInputError(ClientError, ValueError):
    """A value breaks a documented rule; the message says which and how to mend it."""


class NotFoundError(ClientError):
    """The named thing does not exist."""


class AlreadyExistsError(ClientError):
    """A metric of that code exists with a definition this one can't replace."""


class RangeUnavailableError(ClientError):
    """The range cuts through a bucket whose events are no longer stored."""


class SessionExpiredError(ClientError):
    """The server no longer knows this session, so a resend can't be recognised."""


class UnauthenticatedError(ClientError):
    """No key was shown, or one that this node does not know or that was revoked."""


class ForbiddenError(ClientError):
    """The key is good, but its scope, account or metric does not cover the request."""


class ConnectionError(UnimeterError, builtins.ConnectionError):
    """No node could be reached, or the connection was lost before the reply."""

    retryable = True


class DeadlineExceededError(UnimeterError, TimeoutError):
    """The call's deadline passed; a resend with the same session or ids is safe."""

    retryable = True


class BackpressureError(UnimeterError):
    """The server is short of disk or memory; nothing of this request was stored."""

    retryable = True

    def __init__(self, message: str = "server asks to wait", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds


class DiskFullError(BackpressureError):
    """No space left: nothing of what was refused is stored; free space and go on.

    `from_index` is the first log index that was dropped, 0 when nothing had
    been accepted yet.
    """

    def __init__(self, message: str, from_index: int = 0) -> None:
        super().__init__(message, retry_after=1.0)
        self.from_index = from_index


class RedirectError(UnimeterError):
    """Another node leads; `new_addr` is its ``host:port``."""

    retryable = True

    def __init__(self, new_addr: str) -> None:
        super().__init__(f"redirect to {new_addr}")
        self.new_addr = new_addr


class ServerError(UnimeterError):
    """The server answered with an error that has no class of its own."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class DataError(UnimeterError):
    """The data directory can't be used as it is."""


class CorruptionError(DataError):
    """Stored bytes are not what was written.

    `path`, `offset` (bytes from the start of the file), `expected`, `found`.
    """

    def __init__(
        self, path: str, offset: int, expected: object, found: object, advice: str
    ) -> None:
        super().__init__(
            f"{path}: damaged at byte {offset}: expected {expected}, found {found}. {advice}"
        )
        self.path, self.offset, self.expected, self.found = path, offset, expected, found
        self.advice = advice


class RottenEntryError(CorruptionError):
    """An entry of the log was stored, acknowledged, and damaged later.

    `index` says which; `path` and `position` where it begins. Another node has it. `wants`
    is the entry that would help to prove what was here (0: none would).
    """

    wants = 0

    def __init__(
        self,
        path: str,
        offset: int,
        expected: object,
        found: object,
        advice: str,
        *,
        index: int,
        position: int,
    ) -> None:
        super().__init__(path, offset, expected, found, advice)
        self.index, self.position = index, position


class WrongDirectoryError(DataError):
    """The directory belongs to another node, cluster or format version."""


class DirectoryInUseError(DataError):
    """Another process has the data directory open."""


class FatalStorageError(DataError):
    """The disk failed while the node was running: the process must stop.

    Nothing that was not durable has been acknowledged, so a restart recovers
    exactly what clients were told.
    """
