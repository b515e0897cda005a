"""A reader of a stream in a process of its own, to be killed: it says each thing as it comes.

    python stream_reader.py sse|watch PLACE SHIFT ADDRESS...

Prints a line for each alert (``A <position> <place>``) and for what else moves the stream on
(``P <place>``). Whoever kills it begins the next one with the place of the last whole line.
Where the node is lost it goes on at the next by itself, as a browser behind a balancer does.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator


def say(*words: object) -> None:
    """One line, in one write."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, str, str]]:
    """(event, id, data) of a response's server-sent events."""
    found = {"event": "", "id": "", "data": ""}
    for raw in response:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(":")
            found[name] = value.removeprefix(" ")
            continue
        yield found["event"], found["id"], found["data"]
        found = {"event": "", "id": "", "data": ""}


def read_sse(addresses: list[str], place: str) -> None:
    """Follow GET /v1/stream for ever."""
    at = 0
    while True:
        at += 1
        connection = http.client.HTTPConnection(addresses[at % len(addresses)], timeout=20)
        try:
            headers = {"Last-Event-ID": place} if place else {}
            connection.request("GET", "/v1/stream?metric=credits", headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                raise OSError(f"status {response.status}")
            for event, ident, data in events(response):
                if ident:
                    place = ident
                if event == "alert":
                    say("A", json.loads(data)["position"], ident)
                elif ident:
                    say("P", ident)
        except (OSError, http.client.HTTPException):
            connection.close()


def read_watch(addresses: list[str], place: str) -> None:
    """Follow ``client.watch`` for ever."""
    from unimeter import AlertRecord, Client

    with Client(addresses) as client, client.watch(metrics=["credits"], after=place) as watch:
        for item in watch:
            if isinstance(item, AlertRecord):
                say("A", item.position, watch.position)
            else:
                say("P", watch.position)


if __name__ == "__main__":
    kind, place, shift, *addresses = sys.argv[1:]
    addresses = addresses[int(shift) :] + addresses[: int(shift)]
    {"sse": read_sse, "watch": read_watch}[kind](addresses, place)
