"""Refusals on the wire and exceptions in a program: one table, both directions.

Owns which exception stands for which ``ErrorCode`` and which status byte goes
with it. The server turns what a handler raised into an ``ErrorReply``; the
client turns an ``ErrorReply`` into what it raises; so an embedded program and
a remote one see the same exception for the same mistake.

Refuses to invent detail: an exception of no listed class becomes INTERNAL with
its class name only, because a traceback's words may hold someone's data.
"""

from __future__ import annotations

from unimeter import errors
from unimeter.wire.framer import VERSION_1, VERSION_2
from unimeter.wire.messages import ErrorCode, ErrorReply, ProtocolError, Response, Status

_CODE_OF_CLASS: tuple[tuple[type[Exception], ErrorCode], ...] = (
    # Subclasses first: the first match wins.
    (errors.NotFoundError, ErrorCode.NOT_FOUND),
    (errors.AlreadyExistsError, ErrorCode.ALREADY_EXISTS),
    (errors.RangeUnavailableError, ErrorCode.RANGE_UNAVAILABLE),
    (errors.SessionExpiredError, ErrorCode.SESSION_EXPIRED),
    (errors.UnauthenticatedError, ErrorCode.UNAUTHENTICATED),
    (errors.ForbiddenError, ErrorCode.FORBIDDEN),
    (errors.InvalidInputError, ErrorCode.INVALID_INPUT),
)

_STATUS_OF_CODE = {
    ErrorCode.NONE: Status.OK,
    ErrorCode.REDIRECT: Status.REDIRECT,
    ErrorCode.NOT_LEADER: Status.NOT_LEADER,
    ErrorCode.BACKPRESSURE: Status.BACKPRESSURE,
    # v1 has no word for a node that stops; "wait and come again" is what to do.
    ErrorCode.SHUTTING_DOWN: Status.BACKPRESSURE,
}


def status_of(response: Response, version: int = VERSION_2) -> Status:
    """The status byte of a response (v1 ingest replies, which count, aside).

    Version 1 is never told NOT_LEADER: its published client takes that for success,
    and reports events as stored that nobody has. It understands "wait".
    """
    if not isinstance(response, ErrorReply):
        return Status.OK
    status = _STATUS_OF_CODE.get(response.code, Status.ERROR)
    if version == VERSION_1 and status == Status.NOT_LEADER:
        return Status.BACKPRESSURE
    return status


def error_of(error: Exception) -> ErrorReply:
    """The reply that tells a peer about `error`."""
    if isinstance(error, ProtocolError):
        return ErrorReply(error.code, str(error))
    if isinstance(error, errors.BackpressureError):
        milliseconds = max(0, round(error.retry_after * 1000))
        return ErrorReply(ErrorCode.BACKPRESSURE, str(error), milliseconds)
    if isinstance(error, errors.RedirectError):
        return ErrorReply(ErrorCode.REDIRECT, error.new_addr)
    for error_class, code in _CODE_OF_CLASS:
        if isinstance(error, error_class):
            return ErrorReply(code, str(error))
    return ErrorReply(ErrorCode.INTERNAL, f"the node failed: {type(error).__name__}")


def exception_of(reply: ErrorReply) -> errors.UnimeterError:
    """The exception a caller should see for `reply`."""
    text = reply.text or reply.code.name.lower().replace("_", " ")
    match reply.code:
        case ErrorCode.BACKPRESSURE | ErrorCode.SHUTTING_DOWN | ErrorCode.NOT_LEADER:
            return errors.BackpressureError(text, reply.retry_after_ms / 1000)
        case ErrorCode.OUTCOME_UNKNOWN:
            return errors.ConnectionError(text)
        case ErrorCode.REDIRECT:
            return errors.RedirectError(reply.text)
        case ErrorCode.NOT_FOUND:
            return errors.NotFoundError(text)
        case ErrorCode.ALREADY_EXISTS:
            return errors.AlreadyExistsError(text)
        case ErrorCode.RANGE_UNAVAILABLE:
            return errors.RangeUnavailableError(text)
        case ErrorCode.SESSION_EXPIRED | ErrorCode.SEQUENCE_TOO_OLD:
            return errors.SessionExpiredError(text)
        case ErrorCode.UNAUTHENTICATED:
            return errors.UnauthenticatedError(text)
        case ErrorCode.FORBIDDEN:
            return errors.ForbiddenError(text)
        case ErrorCode.INVALID_INPUT | ErrorCode.TOO_LARGE | ErrorCode.UNSUPPORTED:
            return errors.InvalidInputError(text)
        case ErrorCode.MALFORMED:
            return ProtocolError(text)
        case _:
            return errors.ServerError(text, int(reply.code))
