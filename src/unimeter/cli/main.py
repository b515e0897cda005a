"""The command ``unimeter``: its verbs, and what becomes of an error.

A verb is imported when it is asked for. Errors are caught in one place, the
group, and become one line on stderr with a code from `exit_codes`: the SDK's
messages already say what was wrong and what to do, so nothing is added to them.
A defect of our own is one line too; ``UNIMETER_TRACEBACK=1`` shows the rest.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from unimeter.cli.exit_codes import ExitCode, code_of

VERBS: dict[str, str] = {
    "serve": "Run a node.",
    "dev": "Run a whole cluster on this machine, for trying things out.",
    "metric": "Create, list, show or delete metrics.",
    "ingest": "Send events from CSV or NDJSON files or from stdin.",
    "query": "Print an account's total.",
    "series": "Print an account's total per hour, day, week or month.",
    "top": "List a metric's accounts, largest total first.",
    "events": "List an account's stored events.",
    "members": "List who is active in a COUNT_UNIQUE metric.",
    "watch": "Show an account's totals and remaining credits live.",
    "alerts": "List alerts, or follow them as they happen.",
    "status": "Show the nodes of a cluster: who leads, who lags, who is missing.",
    "transfer-leader": "Let another node lead.",
    "keys": "Make, list or revoke API keys.",
    "webhooks": "Have alerts delivered to URLs.",
    "audit": "List who changed what: keys, webhooks, metrics.",
    "recover": "Prepare an empty directory for a node that lost its disk.",
    "verify": "Check a data directory and recompute its totals.",
    "inspect": "Explain a data directory record by record.",
    "simulate": "Run a whole cluster on a fake clock, disk and network, and check it.",
    "bench": "Measure this machine.",
    "version": "Print the version and whether kernels are compiled.",
}
"""Each verb and its one line; the module has the verb's name, with _ for -."""


class CommandFailed(click.ClickException):
    """An error that already is one clear line; carries the exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """What the process ends with."""
        return int(self.code)


class Verbs(click.Group):
    """A group that imports a verb only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"unimeter.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command), cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run a verb; turn whatever it raises into one line and a code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            _end_quietly()
            return None
        except (Exception, KeyboardInterrupt) as error:
            raise failure(error) from error


def failure(error: BaseException) -> CommandFailed:
    """The one line and the code that `error` ends a verb with."""
    code = code_of(error)
    if code == ExitCode.INTERNAL and os.environ.get("UNIMETER_TRACEBACK"):
        raise error
    words = " ".join(str(error).split()) or type(error).__name__
    if code == ExitCode.INTERRUPTED:
        words = "interrupted"
    elif code == ExitCode.INTERNAL:
        words = (
            f"internal error: {type(error).__name__}: {words} (UNIMETER_TRACEBACK=1 shows where)"
        )
    return CommandFailed(words, code)


def _end_quietly() -> None:
    """The reader of our output left (``| head``): nothing is wrong."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    # Otherwise the interpreter complains when it flushes stdout at exit.
    os.dup2(devnull, sys.stdout.fileno())


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  unimeter serve
  unimeter metric create api_calls count
  echo '{"account": 42, "metric": "api_calls"}' | unimeter ingest -
  unimeter query 42 api_calls

Every verb explains itself: unimeter VERB --help.
""",
)
def cli() -> None:
    """Unimeter: meter usage, read totals, bill from them.

    Data goes to stdout, words go to stderr. Most verbs talk to a node
    (--server, or the environment variable UNIMETER_SERVER; localhost:7001 if
    neither is given); verify and inspect read a data directory without one.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process."""
    cli.main(args=None if arguments is None else list(arguments), prog_name="unimeter")
