"""``unimeter bench``: the measurements, with the options they declare themselves."""

from __future__ import annotations

import click


class Measurements(click.Command):
    """Takes its help from the measurements' own parser: one place for each fact."""

    def get_help(self, ctx: click.Context) -> str:
        from unimeter.bench.__main__ import make_parser

        return make_parser().format_help().rstrip()


@click.command(
    cls=Measurements,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, /, arguments: tuple[str, ...]) -> None:
    """Measure this machine."""
    from unimeter.bench.__main__ import main

    ctx.exit(main(list(arguments)))
