"""CloudEvents 1.0 in their three HTTP forms: structured, batch and binary.

Owns the form of a CloudEvent and how it becomes an item of the mapping:

    application/cloudevents+json        one event, attributes and data in one object
    application/cloudevents-batch+json  an array of those
    ce-* headers                        attributes in headers, the body is the data

Without a mapping the type is the metric, the subject the account, the id the event's key and
the time its time; the value is ``data.<field_name>`` of the metric, else ``data.value``, else 1,
and tags are the metric's dimensions that `data` has.

An event that is no CloudEvent (no id, no type) makes the request a 400 with nothing stored: the
program that sent it is wrong. Of a batch, one that the mapping or the meter refuses is named, and
the others count. One that is refused alone is a 400 too: those who pass CloudEvents on look at
the status only, and put what was refused where somebody finds it.

Rejected: the key `source` + `id`, which the specification calls unique. Producers that fill
`source` with a host would make a resend from another host a second event; a mapping may say
``id = ["source", "id"]``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import unquote

import msgspec
from starlette.responses import Response

from unimeter.server.web.answers import answer
from unimeter.server.web.call import Call
from unimeter.server.web.compatible.amounts import checked, exact_json
from unimeter.server.web.compatible.arrivals import Receipt, receive
from unimeter.server.web.compatible.drafts import Item, Shape
from unimeter.server.web.problems import Problem, bad

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
PREFIX: Final = "ce-"
SHAPE: Final = Shape("cloudevents", ("subject",), ("id",), "time", ("data",))
_ESCAPED: Final = re.compile(r"\\(.)")

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class CloudEvent(msgspec.Struct):
    """The attributes that are known; others (extensions) may be there for the mapping."""

    id: _Text
    source: _Text
    specversion: Annotated[str, msgspec.Meta(pattern=r"^1\.[0-9]+$")]
    type: _Text
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: Any = None
    data_base64: str | None = None


def kind_of(call: Call) -> str:
    """The content type without its parameters."""
    kind: str = call.request.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


def is_cloud_event(call: Call) -> bool:
    """Whether a request is a CloudEvent in one of the three forms."""
    headers = call.request.headers
    return kind_of(call).startswith("application/cloudevents") or "ce-specversion" in headers


async def cloud_events(call: Call) -> Response:
    """Store the CloudEvents of a request: an outcome for each."""
    receipt = await take(call)
    if receipt.refusals and kind_of(call) != BATCH:
        raise receipt.problem("$")
    return answer(receipt.body(), receipt.position)


async def take(call: Call) -> Receipt:
    """Have the CloudEvents of a request counted."""
    kind = kind_of(call)
    if not kind.startswith("application/cloudevents"):
        view = _binary(call, kind, await call.tree_body())
        return await receive(call, SHAPE, [item_of(view, checked(view, CloudEvent), 0)])
    if kind not in (STRUCTURED, BATCH):
        text = f"CloudEvents are read as JSON ({STRUCTURED}, {BATCH}), not as {kind[:60]!r}"
        raise Problem(415, "unsupported", text)
    sent = exact_json(await call.tree_body())
    if kind == BATCH and not isinstance(sent, list):
        raise bad("$", "is not an array", "an array of CloudEvents")
    return await receive(call, SHAPE, items_of(sent))


def items_of(sent: Any) -> list[Item]:
    """One CloudEvent, or an array of them, checked."""
    if not isinstance(sent, list):
        return [item_of(sent, checked(sent, CloudEvent), 0)]
    events: list[CloudEvent] = checked(sent, list[CloudEvent])
    return [item_of(sent[index], event, index, f"$[{index}]") for index, event in enumerate(events)]


def item_of(sent: Mapping[str, Any], event: CloudEvent, index: int, place: str = "$") -> Item:
    """What the mapping is given of a CloudEvent, which stands at `place` of the body."""
    if event.data_base64 is not None:
        sent = {**sent, "data": _unpacked(event, index, f"{place}.data_base64")}
    return Item(index, event.type, sent)


def _unpacked(event: CloudEvent, index: int, path: str) -> Any:
    """The data of an event whose producer wrote it as bytes."""
    assert event.data_base64 is not None
    try:
        data = base64.b64decode(event.data_base64, validate=True)
    except (binascii.Error, ValueError):
        raise bad(path, "is not base64", "JSON in base64", index) from None
    if not _is_json(event.datacontenttype or ""):
        text = f"holds {event.datacontenttype!r}"
        raise bad(path, text, "JSON, with datacontenttype application/json", index)
    try:
        return exact_json(data)
    except Problem as problem:
        said = problem.faults[0].reason
        raise bad(path, f"holds what {said}", "JSON in base64", index) from None


def _binary(call: Call, kind: str, body: bytes) -> dict[str, Any]:
    """The object that the headers and the body of the binary form stand for."""
    view: dict[str, Any] = {
        name[len(PREFIX) :]: _header(value)
        for name, value in call.request.headers.items()
        if name.startswith(PREFIX)
    }
    if body:
        if not _is_json(kind):
            raise Problem(415, "unsupported", f"the data is {kind[:60]!r}; send application/json")
        view["data"] = exact_json(body)
    view.pop("data_base64", None)
    return view | {"datacontenttype": kind or None}


def _header(value: str) -> str:
    """An attribute as a header has it: percent-encoded, and quoted by those who like to."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    return unquote(value)


def _is_json(kind: str) -> bool:
    kind = kind.partition(";")[0].strip().lower()
    return kind in ("", "application/json", "text/json") or kind.endswith("+json")
