"""The options and arguments that several verbs share, declared once.

Decorators, to be stacked on a verb: `server_options` (which node, how long to
wait), `form_options` (table, JSON, NDJSON, CSV), `range_options` (which time)
and `scale_option`. The parameter types turn text into the library's nouns and
refuse with the words of `amounts` and `moments`.

An account written in digits is an integer account; anything else is a string
account. A string account that happens to look like a number is written with
the prefix ``str:``, because 42 and "42" are two accounts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar

import click

from unimeter.accounts import STRING_PREFIX as STRING_PREFIX
from unimeter.accounts import parse_account as parse_account
from unimeter.cli import moments
from unimeter.cli.amounts import SCALE_DECIMALS_MAX
from unimeter.errors import InvalidInputError
from unimeter.types import Account, to_ns

SERVER_DEFAULT = "localhost:7001"

Command = TypeVar("Command", bound=Callable[..., Any])


class AccountType(click.ParamType[Account]):
    """An account on the command line."""

    name = "account"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Account:
        return parse_account(value) if isinstance(value, str) else value  # type: ignore[return-value]


class PairType(click.ParamType[tuple[str, str]]):
    """``KEY=VALUE``."""

    name = "KEY=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, rest = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r} must be KEY=VALUE", param, ctx)
        return key, rest


ACCOUNT = AccountType()
PAIR = PairType()


def server_options(command: Command) -> Command:
    """Which node to talk to, how to be let in, and how long to wait for it."""
    for name, kind, words in (
        ("tls-key", str, "The private key of --tls-cert.  [default: it is in --tls-cert]"),
        ("tls-cert", str, "A certificate to show, PEM, where nodes ask clients for one."),
    ):
        command = click.option(f"--{name}", type=kind, metavar="PATH", help=words)(command)
    command = click.option(
        "--tls-ca",
        metavar="PATH",
        envvar="UNIMETER_TLS_CA",
        help="Who signs the nodes' certificates, PEM; implies --tls.  [default: the system's]",
    )(command)
    command = click.option(
        "--tls", is_flag=True, envvar="UNIMETER_TLS", help="The nodes speak TLS."
    )(command)
    command = click.option(
        "--key-file",
        metavar="PATH",
        envvar="UNIMETER_KEY_FILE",
        help="Holds the API key.  [default: the key in UNIMETER_KEY, if it is set]",
    )(command)
    command = click.option(
        "--server",
        "servers",
        multiple=True,
        metavar="HOST:PORT",
        envvar="UNIMETER_SERVER",
        help=f"A node to talk to; may be repeated.  [default: {SERVER_DEFAULT}]",
    )(command)
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        envvar="UNIMETER_TIMEOUT",
        help="How long a request may take, retries included.",
    )(command)


def form_options(command: Command) -> Command:
    """Whether data is printed as a table, JSON, NDJSON or CSV."""
    for form, words in (
        ("csv", "Print CSV with a head."),
        ("ndjson", "Print one JSON object per line."),
        ("json", "Print JSON."),
    ):
        command = click.option(f"--{form}", "form", flag_value=form, help=words)(command)
    return click.option(
        "--table", "form", flag_value="table", default="table", help="Print a table (the default)."
    )(command)


def scale_option(command: Command) -> Command:
    """How many decimals the metric's unit stands for."""
    return click.option(
        "--scale",
        type=click.IntRange(0, SCALE_DECIMALS_MAX),
        default=0,
        metavar="DECIMALS",
        help="The metric's unit is this many decimals: with 2, 1250 is 12.50. The SDK's "
        "scale() is 6.  [default: 0]",
    )(command)


def zone_option(command: Command) -> Command:
    """The zone of times written without an offset."""
    return click.option(
        "--zone",
        default="UTC",
        show_default=True,
        metavar="NAME",
        help="IANA zone of times written without an offset.",
    )(command)


def range_options(command: Command) -> Command:
    """Which time a query is about; `chosen_range` reads them."""
    for name, words in (
        ("to", "End of the range, itself not in it.  [default: now, when --from is given]"),
        ("from", "Start of the range: 2026-11-05 or 2026-11-05T10:30:00Z."),
    ):
        command = click.option(f"--{name}", f"{name}_text", metavar="TIME", help=words)(command)
    return click.option(
        "--period",
        metavar="NAME",
        help="this-month (the default), last-month, today, yesterday, this-week, last-week, "
        "this-hour, this-year, last-year, or a year 2026, a month 2026-11, a day 2026-11-05.",
    )(zone_option(command))


def chosen_range(
    period: str | None, from_text: str | None, to_text: str | None, zone: str
) -> moments.Range:
    """The range that --period or --from and --to name; this month if none is given."""
    local = moments.parse_zone(zone)
    now = datetime.now(timezone.utc)
    if from_text is None and to_text is None:
        return moments.parse_range(period or "this-month", local, now)
    if period is not None:
        raise InvalidInputError("give either --period or --from and --to, not both")
    if from_text is None:
        raise InvalidInputError("--to needs --from: a range has a start")
    start_ns = moments.parse_instant(from_text, local)
    end_ns = moments.parse_instant(to_text, local) if to_text else to_ns(now)
    if end_ns <= start_ns:
        raise InvalidInputError(
            f"the range ends ({to_text or 'now'}) before it starts ({from_text})"
        )
    if start_ns % 1_000 or (to_text and end_ns % 1_000):
        raise InvalidInputError("a range starts and ends at whole microseconds")
    return moments.Range(start_ns, end_ns)


def filters_of(pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Filters for the SDK; a key given more than once lets any of its values in."""
    grouped: dict[str, list[str]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in grouped.items()}
