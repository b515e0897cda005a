"""Prepaid credits: grants and spending on one signed metric, and a warning in time.

A grant is a positive value, spending a negative one, and the sum over a period
that never ends is what remains. A threshold that fires when the total falls to
it reaches every subscriber the moment the event that crossed it is stored.
While this runs: `unimeter watch acme credits --server ADDRESS`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from node import connect

from unimeter import (
    LIFETIME,
    AggType,
    AlertThreshold,
    Client,
    Direction,
    Event,
    MetricSchema,
)

ACCOUNT = "acme"
START = datetime(2025, 10, 1, 9, tzinfo=timezone.utc)
CREDITS = MetricSchema(
    "credits",
    AggType.SUM,
    period=LIFETIME,
    thresholds=[
        AlertThreshold("low", 1_000, recurring=True, direction=Direction.FALLING),
        AlertThreshold("empty", 0, recurring=True, direction=Direction.FALLING),
    ],
)


def book(client: Client, number: int, amount: int, reason: str) -> None:
    """Grant (positive) or spend (negative) credits; booking `number` again changes nothing."""
    moment = START + timedelta(hours=number)
    booking = Event(
        ACCOUNT, "credits", amount, moment, properties={"reason": reason}, id=f"booking-{number}"
    )
    client.ingest([booking])


def remaining(client: Client) -> int:
    """The balance: exact, and at least as new as the last booking of this client."""
    return client.query_realtime(ACCOUNT, "credits").sum


def main() -> None:
    """Grant, spend until the warning comes, top up."""
    with connect() as client:
        client.metrics.put(CREDITS)
        # Naming an account begins with its first alert: nothing is missed.
        with client.alerts.subscribe(account_ids=[ACCOUNT], metric_codes=["credits"]) as alerts:
            book(client, 0, 5_000, "purchase")
            for number in range(1, 10):
                book(client, number, -450, "render")
            print(f"remaining after nine renders: {remaining(client)}")
            alert = alerts.get(timeout=5)
            assert alert is not None
            print(f"alert {alert.threshold_code!r}: balance fell to {alert.value_at_cross}")
            print(f"crossed by the booking of {alert.triggered_at:%H:%M}")
            book(client, 10, 10_000, "top-up")
            print(f"remaining after the top-up: {remaining(client)}")
            book(client, 11, -10_500, "export")
            print(f"remaining after the export: {remaining(client)}")
            alert = alerts.get(timeout=5)
            assert alert is not None
            print(f"alert {alert.threshold_code!r}: balance fell to {alert.value_at_cross}")


if __name__ == "__main__":
    main()
