"""What a program with OpenMeter's published client does. Prints what it saw as JSON."""

from __future__ import annotations

import json
import sys

sys.path.insert(0, sys.argv[1])

from corehttp.exceptions import HttpResponseError
from openmeter import Client
from openmeter.models import Event


def event(ident: str, tokens: object) -> Event:
    return Event(
        id=ident,
        source="session",
        specversion="1.0",
        type="tokens",
        subject="openmeter",
        data={"tokens": tokens, "model": "gpt"},
    )


def main() -> None:
    seen: dict[str, object] = {}
    with Client(endpoint=sys.argv[2], token="any") as client:
        events = client.events
        for _ in range(2):
            seen["one"] = events.ingest_event(event("one", 10))
            seen["json"] = events.ingest_events_json([event("j1", "1"), event("j2", 2)])
            seen["batch"] = events.ingest_events([event(f"b{at}", at) for at in range(100)])
        try:
            events.ingest_events([event("good", 1000), event("half", 0.5)])
        except HttpResponseError as error:
            seen["status"] = error.status_code
            seen["detail"] = error.response.json()["detail"]
            seen["model"] = [error.model.title, error.model.status, error.model.detail]
    print(json.dumps(seen))


main()
