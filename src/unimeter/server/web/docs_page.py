"""GET /docs: the OpenAPI document as a page to read.

Owns one page, made once from the same document that programs read: by topic, each route with its
parameters, bodies and answers. No script, no style in the page and no request to anywhere but this
node's own style sheets, so the content policy can be the strictest there is.

Rejected: one of the viewers of OpenAPI. They are megabytes of script that want a looser policy.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any, Final

from starlette.responses import Response

from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint

_ORDER: Final = ("events", "metrics", "totals", "accounts", "alerts", "live", "webhooks", "keys")
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_CODE: Final = re.compile(r"`([^`]+)`")


def page(document: dict[str, Any], static: str) -> str:
    """The HTML of the whole document; `static` is where the style sheets are."""
    topics = by_topic(document)
    menu = "".join(
        f'<li><a href="#{escape(tag)}">{escape(tag.capitalize())}</a></li>' for tag in topics
    )
    body = "".join(_topic(document, tag, topics[tag]) for tag in topics)
    info = document["info"]
    about = "".join(f"<p>{_prose(part)}</p>" for part in info["description"].split("\n\n"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(info['title'])} HTTP API</title>\n"
        f'<link rel="icon" href="{static}/icon.svg">\n'
        f'<link rel="stylesheet" href="{static}/app.css">\n'
        f'<link rel="stylesheet" href="{static}/docs.css">\n'
        '</head>\n<body class="bare docs">\n'
        f"<header><h1>{escape(info['title'])} HTTP API</h1>{about}"
        '<p><a href="/openapi.json">openapi.json</a> &middot; <a href="/">dashboard</a></p>'
        f'</header>\n<nav aria-label="Topics"><ul>{menu}</ul></nav>\n'
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )


def by_topic(document: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """(method, path, operation) by tag, in the order of the page."""
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    known = [tag for tag in _ORDER if tag in found]
    return {tag: found[tag] for tag in [*known, *(tag for tag in found if tag not in known)]}


def _topic(document: dict[str, Any], tag: str, routes: list[tuple[str, str, Any]]) -> str:
    parts = "".join(_route(document, *route) for route in routes)
    title = escape(tag.capitalize())
    return f'<section id="{escape(tag)}">\n<h2>{title}</h2>\n{parts}</section>\n'


def _route(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    ident = escape(operation["operationId"])
    scope = operation.get("x-scope", "")
    needs = f' <span class="scope">{escape(scope)}</span>' if scope else ""
    text = (
        f"<p>{_prose(operation.get('description', ''))}</p>" if "description" in operation else ""
    )
    return (
        f'<article id="{ident}">\n<h3><a href="#{ident}"><span class="method {method.lower()}">'
        f"{method}</span> <code>{escape(path)}</code></a>{needs}</h3>\n"
        f'<p class="summary">{_prose(operation["summary"])}</p>{text}\n'
        f"{_parameters(operation['parameters'])}{_body(document, operation)}"
        f"{_answers(document, operation)}</article>\n"
    )


def _parameters(given: list[dict[str, Any]]) -> str:
    if not given:
        return ""
    lines = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(_where(one))}</td>"
        f"<td>{_prose(one.get('description', ''))}{_example(one)}</td></tr>"
        for one in given
    )
    return f'<table><tbody aria-label="Parameters">{lines}</tbody></table>\n'


def _where(one: dict[str, Any]) -> str:
    return f"{one['in']}, required" if one.get("required") else str(one["in"])


def _example(one: dict[str, Any]) -> str:
    if "example" not in one:
        return ""
    value = one["example"]
    text = value if isinstance(value, str) else json.dumps(value)
    return f" <code>{escape(text)}</code>"


def _body(document: dict[str, Any], operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    return "".join(
        f"<h4>Body <code>{escape(kind)}</code></h4>{_shape(document, one.get('schema', {}))}"
        for kind, one in content.items()
    )


def _answers(document: dict[str, Any], operation: dict[str, Any]) -> str:
    parts = []
    for status, answer in operation["responses"].items():
        if int(status) >= 400:
            continue
        kinds = ", ".join(answer.get("content", {})) or "no body"
        first: dict[str, Any] = next(iter(answer.get("content", {}).values()), {})
        head = f"<h4>{status} {escape(answer['description'])} <code>{escape(kinds)}</code></h4>"
        parts.append(head + _shape(document, first.get("schema", {})))
    refusals = ", ".join(status for status in operation["responses"] if int(status) >= 400)
    return "".join(parts) + (f'<p class="refusals">Refusals: {refusals}</p>\n' if refusals else "")


def _shape(document: dict[str, Any], schema: dict[str, Any]) -> str:
    text = shape_text(document, schema)
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>\n' if text else ""


def shape_text(
    document: dict[str, Any], schema: dict[str, Any], indent: str = "", deep: int = 0
) -> str:
    """A schema as an object with a type in the place of each value."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    for word in ("anyOf", "oneOf"):
        if word in schema:
            options = [shape_text(document, one, indent, deep) for one in schema[word]]
            return f"\n{indent}| ".join(options) if "{" in "".join(options) else " | ".join(options)
    if schema.get("type") == "array":
        return f"[{shape_text(document, schema.get('items', {}), indent, deep)}, ...]"
    members = schema.get("properties")
    if members and deep < 5:
        inner = indent + "  "
        lines = ",\n".join(
            f'{inner}"{name}": {shape_text(document, one, inner, deep + 1)}'
            for name, one in members.items()
        )
        return f"{{\n{lines}\n{indent}}}"
    if "enum" in schema:
        return " | ".join(json.dumps(one) for one in schema["enum"])
    kind = schema.get("type", "any")
    words = " | ".join(kind) if isinstance(kind, list) else kind
    return words


def _prose(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))


async def _docs(call: Call) -> Response:
    headers = {**_HEADERS, "Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(call.site.docs(), 200, headers, "text/html; charset=utf-8")


ENDPOINTS = [
    Endpoint(
        "GET",
        "/docs",
        _docs,
        None,
        "This description as a page",
        tag="about",
        answers={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    ),
]
