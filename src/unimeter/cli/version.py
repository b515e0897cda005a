"""``unimeter version``: what is installed, and whether its kernels are compiled."""

from __future__ import annotations

import importlib.util
import platform

import click

from unimeter.cli.options import form_options
from unimeter.cli.output import Form, say, write_record
from unimeter.version import VERSION

EPILOG = """\b
Examples:
  unimeter version
  unimeter version --json
"""


@click.command(epilog=EPILOG)
@form_options
def command(form: Form) -> None:
    """Print the version and whether kernels are compiled.

    Interpreted kernels give the same bytes, far more slowly. They are used
    where no C compiler was found at installation, or with UNIMETER_PURE=1.
    """
    from unimeter.engine import COMPILED

    uvloop = importlib.util.find_spec("uvloop")
    record = {
        "version": VERSION,
        "kernels": "compiled" if COMPILED else "interpreted",
        "event_loop": "uvloop" if uvloop else "asyncio",
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    write_record(record, form)
    if not COMPILED:
        say("kernels run interpreted: with a C compiler, install again to have them compiled")
