"""`unimeter keys`, `webhooks` and `audit`, against an engine in this process."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import Result

import unimeter
from unimeter.cli.exit_codes import ExitCode
from unimeter.keys import parse_key

Run = Callable[..., Result]
URL = "https://example.com/hook"


class Kept:
    """An engine that a verb does not close."""

    def __init__(self, meter: unimeter.Embedded) -> None:
        self._meter = meter

    def __getattr__(self, name: str) -> object:
        return getattr(self._meter, name)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def ask(run: Run) -> Iterator[Run]:
    """Run a verb on one engine."""
    with unimeter.open(":memory:") as meter:
        yield lambda *arguments, **others: run(*arguments, client=Kept(meter), **others)


def rows(result: Result) -> list[dict[str, str]]:
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_create_prints_the_key_alone_and_never_again(ask: Run) -> None:
    made = ask("keys", "create", "operations", "--scope", "admin")
    assert made.exit_code == 0, made.stderr
    ident, secret = parse_key(made.stdout.strip())
    assert made.stdout.count("\n") == 1 and "not shown again" in made.stderr
    for form in ("--table", "--json", "--csv", "--ndjson"):
        listed = ask("keys", "list", form)
        assert ident in listed.stdout and secret not in listed.stdout
    assert secret not in ask("audit", "--json").stdout


def test_a_key_as_json_has_its_record_beside_it(ask: Run) -> None:
    ask("keys", "create", "operations", "--scope", "admin")
    made = ask(
        "keys", "create", "portal", "--scope", "read", "--scope", "ingest", "--account", "str:42",
        "--metric", "m", "--json",
    )  # fmt: skip
    found = json.loads(made.stdout)
    assert found["id"] == parse_key(found["key"])[0]
    assert (found["account"], found["metric"]) == ("str:42", "m")
    assert found["scopes"] == ["ingest", "read"]
    assert [row["account"] for row in rows(ask("keys", "list", "--csv"))] == ["", "str:42"]


def test_what_the_node_refuses_is_one_line_and_a_code(ask: Run) -> None:
    refused = ask("keys", "create", "reader", "--scope", "read")
    assert refused.exit_code == ExitCode.USAGE and "scope admin" in refused.stderr
    assert refused.stdout == ""
    assert ask("keys", "list").stderr.startswith("no keys")
    assert ask("keys", "revoke", "aaaaaaaaaaaa", "--yes").exit_code == ExitCode.NOT_FOUND
    assert ask("keys", "create", "x", "--scope", "root").exit_code == 2


def test_revoking_asks_first(ask: Run) -> None:
    ask("keys", "create", "one", "--scope", "admin")
    ask("keys", "create", "two", "--scope", "admin")
    ident = rows(ask("keys", "list", "--csv"))[0]["id"]
    assert ask("keys", "revoke", ident, stdin="n\n").exit_code != 0
    assert rows(ask("keys", "list", "--csv"))[0]["revoked"] == ""
    assert ask("keys", "revoke", ident, stdin="y\n").exit_code == 0
    assert rows(ask("keys", "list", "--csv"))[0]["revoked"] != ""


def test_the_life_of_a_webhook(ask: Run) -> None:
    made = ask("webhooks", "create", URL, "--metric", "m", "--account", "42", "--account", "acme")
    secret = made.stdout.strip()
    assert secret.startswith("whsec_") and "not shown again" in made.stderr
    (row,) = rows(ask("webhooks", "list", "--csv"))
    assert (row["url"], row["accounts"], row["state"]) == (URL, "42 acme", "active")
    ident = row["id"]
    assert ask("webhooks", "pause", ident, "--reason", "until noon").exit_code == 0
    shown = json.loads(ask("webhooks", "show", ident, "--json").stdout)
    assert (shown["state"], shown["paused_reason"]) == ("paused", "until noon")
    assert secret not in str(shown)
    assert ask("webhooks", "resume", ident).exit_code == 0
    assert ask("webhooks", "replay", ident, "--after", "0").exit_code == 0
    assert ask("webhooks", "replay", ident, "--after", "1").exit_code == ExitCode.USAGE
    assert ask("webhooks", "delete", ident, stdin="n\n").exit_code != 0
    assert ask("webhooks", "delete", ident, "--yes").exit_code == 0
    assert ask("webhooks", "show", ident).exit_code == ExitCode.NOT_FOUND
    assert "no webhooks yet" in ask("webhooks", "list").stderr


def test_a_webhook_as_json_has_its_secret_this_once(ask: Run) -> None:
    secret = "whsec_" + "A" * 44
    made = ask("webhooks", "create", URL, "--secret", secret, "--after", "0", "--json")
    found = json.loads(made.stdout)
    assert (found["secret"], found["start"], found["through"]) == (secret, 0, 0)
    assert ask("webhooks", "create", "ftp://x").exit_code == ExitCode.USAGE


def test_the_trail_is_paged(ask: Run) -> None:
    assert "nothing was changed yet" in ask("audit").stderr
    ask("webhooks", "create", URL)
    ask("metric", "create", "m", "sum")
    ask("keys", "create", "reader", "--scope", "read")
    told = rows(ask("audit", "--csv"))
    assert [row["action"] for row in told] == ["key.put", "metric.put", "webhook.put"]
    assert [row["result"] == "done" for row in told] == [False, True, True]
    assert {row["via"] for row in told} == {"embedded"}
    (last,) = rows(ask("audit", "--csv", "--before", told[1]["index"]))
    assert last == told[2]
    assert len(rows(ask("audit", "--csv", "--limit", "2"))) == 2
