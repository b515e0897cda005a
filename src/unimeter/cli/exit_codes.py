"""The exit codes of every verb, once, and which error becomes which code.

A script can tell three things apart without reading words: what it asked was
wrong (2-5: asking again will not help), the node was not there (6: ask again
later) and the data itself is in question (7 and 8: a person must look).

The documentation prints `MEANINGS`, `code_of` decides; nothing else in the
command line names a number.
"""

from __future__ import annotations

import enum

from unimeter import errors


class ExitCode(enum.IntEnum):
    """What a process of this command ends with."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    NOT_COUNTED = 5
    UNAVAILABLE = 6
    DATA = 7
    DIFFERENT = 8
    LISTEN = 9
    DEGRADED = 10
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "Done. For `ingest`: every line is counted, now or by an earlier run.",
    ExitCode.INTERNAL: "A defect of this program, or an error without a code of its own. `serve`: "
    "the node stopped itself. `bench`: a measurement failed. `simulate`: a promise was broken, or "
    "a sweep never came into a situation that it must come into.",
    ExitCode.USAGE: "A wrong option, argument, value or range; the message says how to mend it.",
    ExitCode.NOT_FOUND: "No such metric, file or directory.",
    ExitCode.REFUSED: "The node refused: the metric exists with another definition, or an exact "
    "answer needs events that retention removed.",
    ExitCode.NOT_COUNTED: "`ingest`: some lines are not counted; each was named on stderr.",
    ExitCode.UNAVAILABLE: "No node answered in time, or it asked to wait. Try again later.",
    ExitCode.DATA: "The data directory is damaged, in use, or belongs to another node or version.",
    ExitCode.DIFFERENT: "`verify`: totals differ from the stored events, or a checksum is wrong. "
    "`status`: the replicas' states differ.",
    ExitCode.LISTEN: "`serve`: the port or address can't be used.",
    ExitCode.DEGRADED: "`status`: no leader, or a node is missing or has no vote yet. What is "
    "acknowledged is safe, and with a leader the cluster works.",
    ExitCode.INTERRUPTED: "Stopped by Ctrl-C; `ingest` goes on from there when run again. "
    "(`watch` and `alerts --follow` end with 0: for them it is the end.)",
}

# The first class that fits wins, so a subclass stands before its base.
_BY_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (errors.InvalidInputError, ExitCode.USAGE),
    (errors.NotFoundError, ExitCode.NOT_FOUND),
    (errors.ClientError, ExitCode.REFUSED),
    (errors.ConnectionError, ExitCode.UNAVAILABLE),
    (errors.DeadlineExceededError, ExitCode.UNAVAILABLE),
    (errors.BackpressureError, ExitCode.UNAVAILABLE),
    (errors.RedirectError, ExitCode.UNAVAILABLE),
    (errors.DataError, ExitCode.DATA),
    (errors.UnimeterError, ExitCode.INTERNAL),
    (FileNotFoundError, ExitCode.NOT_FOUND),
    (OSError, ExitCode.USAGE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)


def code_of(error: BaseException) -> ExitCode:
    """The exit code for an error that ends a verb."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return ExitCode.INTERNAL


def table() -> str:
    """The exit codes as a Markdown table, for the reference page."""
    rows = [f"| {code.value} | {MEANINGS[code]} |" for code in ExitCode]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])
