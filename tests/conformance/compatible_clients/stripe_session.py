"""What a program with Stripe's published client does. Prints what it saw as JSON."""

from __future__ import annotations

import json
import sys

sys.path.insert(0, sys.argv[1])

import stripe


def main() -> None:
    seen: dict[str, object] = {}
    stripe.api_key, stripe.api_base = "sk_any", sys.argv[2]
    for _ in range(2):
        found = stripe.billing.MeterEvent.create(
            event_name="requests",
            payload={"stripe_customer_id": "cus_1", "value": "25", "model": "v1"},
            identifier="v1",
            timestamp=1793880000,
        )
    seen["v1"] = [found.object, found.event_name, found.identifier, found.timestamp]
    bases = {"api": sys.argv[2], "meter_events": sys.argv[2]}
    client = stripe.StripeClient("sk_any", base_addresses=bases)
    for _ in range(2):
        found = client.v2.billing.meter_events.create(
            {
                "event_name": "requests",
                "payload": {"stripe_customer_id": "cus_1", "value": "3", "model": "v2"},
                "identifier": "v2",
                "timestamp": "2026-11-05T12:00:00Z",
            }
        )
    seen["v2"] = [found.object, found.event_name, found.identifier, str(found.timestamp)]
    session = client.v2.billing.meter_event_session.create()
    stream = stripe.StripeClient(session.authentication_token, base_addresses=bases)
    events = [
        {
            "event_name": "requests",
            "payload": {"stripe_customer_id": "cus_1", "value": "1", "model": "stream"},
            "identifier": f"s{at}",
        }
        for at in range(100)
    ]
    for _ in range(2):
        stream.v2.billing.meter_event_stream.create({"events": events})
    refusals = []
    payload = {"stripe_customer_id": "cus_1", "value": "2.5"}
    for create in (
        lambda: stripe.billing.MeterEvent.create(event_name="requests", payload=payload),
        lambda: client.v2.billing.meter_events.create(
            {"event_name": "requests", "payload": payload}
        ),
    ):
        try:
            create()
        except stripe.StripeError as error:
            refusals.append([error.http_status, str(error), error.code])
    seen["refusals"] = refusals
    print(json.dumps(seen))


main()
