"""A receiver of webhooks: check each message, drop repeats by id, handle the rest.

It is made of the standard library, and one process plays both sides. In production the receiver
is a route of your own program, behind TLS, and `handled` is a table of your database, written
in the same transaction as what an alert leads to.
"""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue

from node import connect

from unimeter import LIFETIME, AggType, AlertRecord, AlertThreshold, Direction, Event, MetricSchema
from unimeter.webhooks import VerificationError, verify

SECRET = "whsec_b25seSBmb3IgdGhpcyBleGFtcGxl"  # `unimeter webhooks create` makes a good one
LOW = AlertThreshold("low", 1_000, recurring=True, direction=Direction.FALLING)
BALANCE = MetricSchema("balance", AggType.SUM, period=LIFETIME, thresholds=[LOW])
START = datetime(2025, 10, 1, tzinfo=timezone.utc)

handled: set[str] = set()
news: Queue[tuple[str, AlertRecord]] = Queue()


class Receiver(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        """Answer 2xx once the message is safe: only then is it never sent again."""
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            message = verify(body, self.headers, SECRET)
        except VerificationError as error:
            self.send_error(400, str(error))
            return
        news.put(("repeat" if message.id in handled else "new", message.alert))
        handled.add(message.id)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


def tell() -> None:
    """Print the next message."""
    kind, alert = news.get(timeout=30)
    print(f"{kind}: {alert.account_id} is at {alert.value_at_cross} ({alert.threshold_code!r})")


def main() -> None:
    """Cross a threshold, hear of it, and have it sent once more."""
    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    with connect() as client:
        client.metrics.put(BALANCE)
        url = f"http://127.0.0.1:{receiver.server_port}/hooks"
        webhook = client.webhooks.create(url, metrics=["balance"], secret=SECRET, after=0)
        client.ingest([Event("acme", "balance", 5_000, START, id="purchase")])
        client.ingest([Event("acme", "balance", -4_050, START, id="render")])
        tell()
        client.webhooks.replay(webhook.id, after=0)
        tell()
        client.webhooks.delete(webhook.id)
    receiver.shutdown()
    receiver.server_close()


if __name__ == "__main__":
    main()
