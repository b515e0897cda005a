"""Writes the routes of ``docs/reference/http.md`` from the list of endpoints.

    python -m unimeter.server.web.reference docs/reference/http.md

What stands above the mark is written by hand; below it is every route with its parameters, bodies
and answers, from the same OpenAPI document that the node serves. A test compares, so the page
can't be wrong for long.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from unimeter.server.web.docs_page import by_topic, shape_text
from unimeter.server.web.openapi import document
from unimeter.server.web.site import api_endpoints

MARK: Final = (
    "<!-- below: made by python -m unimeter.server.web.reference docs/reference/http.md -->"
)


def routes() -> str:
    """All that is made, as Markdown."""
    whole = document(api_endpoints())
    topics = by_topic(whole)
    parts = ["", "## Routes", "", "| route | needs | what it does |", "|---|---|---|"]
    for listed in topics.values():
        parts += [_line(*route) for route in listed]
    for tag, listed in topics.items():
        parts += ["", f"## {tag.capitalize()}"]
        for route in listed:
            parts += _route(whole, *route)
    return "\n".join(parts) + "\n"


def _line(method: str, path: str, operation: dict[str, Any]) -> str:
    return f"| `{method} {path}` | {operation.get('x-scope', '')} | {operation['summary']} |"


def _route(whole: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = ["", f"### {method} {path}", "", f"{operation['summary']}."]
    if "description" in operation:
        parts[-1] += f" {operation['description']}"
    if operation["parameters"]:
        parts += ["", "| parameter | in | |", "|---|---|---|"]
        parts += [
            f"| `{one['name']}` | {one['in']}{', required' if one.get('required') else ''} "
            f"| {one.get('description', '')} |"
            for one in operation["parameters"]
        ]
    parts += _shapes(whole, operation)
    refusals = [status for status in operation["responses"] if int(status) >= 400]
    return [*parts, "", f"Refusals: {', '.join(refusals)}."]


def _shapes(whole: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    for kind, one in content.items():
        yield from _shape(whole, f"Body `{kind}`", one.get("schema", {}))
    for status, answer in operation["responses"].items():
        if int(status) < 400:
            found: dict[str, Any] = answer.get("content", {})
            kinds = ", ".join(f"`{kind}`" for kind in found) or "no body"
            first: dict[str, Any] = next(iter(found.values()), {})
            yield from _shape(whole, f"Answer {status}: {kinds}", first.get("schema", {}))


def _shape(whole: dict[str, Any], title: str, schema: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{title}"
    if "{" in (text := shape_text(whole, schema)):
        yield from ("", "```text", text, "```")


def page(written: str) -> str:
    """The whole page: what was written by hand up to the mark, and the routes."""
    head, mark, _ = written.partition(MARK)
    assert mark, "the page has no mark"
    return head + mark + "\n" + routes()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
