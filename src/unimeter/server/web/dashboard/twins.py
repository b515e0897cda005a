"""The data of a view of the dashboard, and its two addresses ``.json`` and ``.csv``.

Owns the shape: a view's data is a body and a main table. The page's module asks for the JSON
twin and draws it, so what a page shows and what its twin says can't differ. A view is put
together from answers of ``/v1``: `answer_of` calls a handler of the API with parameters of the
view's own, as the same caller, so the numbers, the words and the refusals are those of the API.

    /ui/accounts/acme.json ─ Twin ─ body            /ui/accounts/acme.csv ─ columns and lines

A name that itself ends in ``.json`` or ``.csv`` has its page at ``?page=1``.

Rejected: the page asking for each part of the API by itself. A page would take several turns
to be whole, and there would be nothing that its twin could be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.responses import Response

from unimeter.keys import Scope
from unimeter.server.web import answers
from unimeter.server.web.call import Call
from unimeter.server.web.dashboard.pages import send_page, view_of
from unimeter.server.web.endpoint import Endpoint, Handler, Param


@dataclass(frozen=True)
class Twin:
    """A view's data: all of it, and its main table."""

    body: dict[str, Any]
    columns: Sequence[str]
    lines: Iterable[Sequence[Any]]
    position: int | None = None
    cursor: str = ""

    @classmethod
    def of(cls, found: dict[str, Any], columns: Sequence[str]) -> Twin:
        """A view that is one answer of the API, whose rows are its table."""
        lines = [[row[name] for name in columns] for row in found["rows"]]
        return cls(found, columns, lines, found.get("position"), found.get("cursor", ""))


_NONE: Final[Mapping[str, str]] = {}


class Asked(Call):
    """A request of a view to a handler of the API: the same caller, other parameters."""

    def __init__(self, call: Call, given: Mapping[str, str], path: Mapping[str, str]) -> None:
        super().__init__(call.site, call.request, call.principal)
        self._given, self._path = given, path

    def path(self, name: str) -> str:
        """A part of the path."""
        return self._path[name]

    def text(self, name: str, default: str | None = None) -> str:
        """A parameter of the query."""
        found = self._given.get(name, "") or default
        assert found is not None, f"a view leaves out the parameter {name}"
        return found

    def texts(self, name: str) -> list[str]:
        """Every value of a parameter."""
        return [self._given[name]] if self._given.get(name) else []


async def answer_of(
    call: Call, handler: Handler, given: Mapping[str, str] = _NONE, **path: str
) -> dict[str, Any]:
    """The JSON that a handler of the API answers to these parameters."""
    response = await handler(Asked(call, {**given, "format": "json"}, path))
    found: dict[str, Any] = msgspec.json.decode(response.body)
    return found


def table(
    columns: Sequence[str],
    lines: Iterable[Sequence[Any]],
    position: int | None = None,
    cursor: str = "",
    **more: Any,
) -> Twin:
    """A view that is a table: its body has the rows, and `more`."""
    kept = [list(line) for line in lines]
    body = {"rows": [dict(zip(columns, line, strict=True)) for line in kept], **more}
    if cursor:
        body["cursor"] = cursor
    return Twin(body, columns, kept, position, cursor)


Make = Callable[[Call], Awaitable[Twin]]


def twins(
    path: str,
    view: str,
    make: Make,
    scope: Scope = Scope.READ,
    asked: tuple[str, ...] = (),
    *,
    takes_portal: bool = False,
) -> list[Endpoint]:
    """The two routes of a view's data; `asked` are the parameters that it reads."""
    page, has_name = view_of(view), path.endswith("}")
    params = tuple(Param(name, "") for name in (*asked, *(("page",) if has_name else ())))

    def handler(form: str) -> Callable[[Call], Awaitable[Response]]:
        async def answer(call: Call) -> Response:
            if has_name and call.text("page", ""):
                return send_page(call, page)  # a name that ends like a twin
            twin = await make(call)
            if form == "csv":
                return answers.rows(
                    call, twin.columns, twin.lines,
                    position=twin.position, cursor=twin.cursor, form=form,
                )  # fmt: skip
            return answers.answer(twin.body, twin.position, headers={"Cache-Control": "no-store"})

        return answer

    return [
        Endpoint(
            "GET", f"{path}.{form}", handler(form), scope, f"{page.title}, as {form.upper()}",
            tag="dashboard", params=params, is_listed=False, takes_portal=takes_portal,
        )
        for form in ("json", "csv")
    ]  # fmt: skip
