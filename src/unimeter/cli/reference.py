"""Writes ``docs/reference/cli.md`` from the help texts and the exit codes.

    python -m unimeter.cli.reference docs/reference/cli.md

A test compares the page with what this module makes, so the page can't be
wrong for long. Help is rendered at a fixed width, whatever the terminal is;
its layout still differs between releases of click and Python, so the page says
which made it, and with others the test compares the options only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click

from unimeter.cli import exit_codes
from unimeter.cli.main import VERBS, cli

WIDTH = 90

HEAD = """# The command line

Made from `--help` by `python -m unimeter.cli.reference docs/reference/cli.md`;
a test checks that it is fresh.

Data goes to stdout, words go to stderr. Where data is printed it is a table, or
with `--json`, `--ndjson` or `--csv` that form, with the same names for the same
columns. Integers are printed in full, decimals (with `--scale`) exactly, times in
UTC. What fails is one line on stderr and one of these exit codes:
"""


def page() -> str:
    """The whole page."""
    # argparse, which the bench uses, looks at the terminal's width.
    os.environ["COLUMNS"] = str(WIDTH)
    parts = [HEAD, exit_codes.table(), "", f"<!-- {made_with()} -->", ""]
    for heading, words in _helps():
        parts += [f"## {heading}", "", "```text", words, "```", ""]
    return "\n".join(parts).rstrip() + "\n"


def made_with() -> str:
    """The releases that decide how a help text is laid out."""
    click_release = ".".join(metadata.version("click").split(".")[:2])
    return f"made with click {click_release}, Python {sys.version_info[0]}.{sys.version_info[1]}"


def _helps() -> Iterator[tuple[str, str]]:
    root = _context(cli, "unimeter", None)
    yield "unimeter", cli.get_help(root)
    for verb in VERBS:
        command = cli.get_command(root, verb)
        assert command is not None, verb
        context = _context(command, verb, root)
        yield f"unimeter {verb}", command.get_help(context)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                part = command.get_command(context, name)
                assert part is not None, name
                yield f"unimeter {verb} {name}", part.get_help(_context(part, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )


def main() -> None:
    """Write the page to the path given, or print it."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main()
