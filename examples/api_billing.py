"""Bill an API: calls and tokens of a month, by endpoint, model and plan.

Two metrics. `api_calls` counts, `tokens` sums. Both are kept by tags, so any
question about a subset has an exact answer later: which model, which plan, which
of the two together. Every event has an id, so sending one twice counts it once;
this program can be run twice against one node and prints the same.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from node import connect

from unimeter import AggType, Client, DimensionFilter, Event, MetricSchema, Period, PeriodType

MONTH = Period(
    datetime(2025, 10, 1, tzinfo=timezone.utc), datetime(2025, 11, 1, tzinfo=timezone.utc)
)
ACME = 42
# Price of a million tokens, in cents: integers, as all money.
PRICES = {("large", "input"): 300, ("large", "output"): 1500}
PRICES |= {("small", "input"): 25, ("small", "output"): 125}


def create_metrics(client: Client) -> None:
    """Define what is counted. To put what is there already changes nothing."""
    by_call = [DimensionFilter("endpoint"), DimensionFilter("plan", ["free", "pro"])]
    by_token = [DimensionFilter("model"), DimensionFilter("kind", ["input", "output"])]
    month = PeriodType.CALENDAR
    client.metrics.put(MetricSchema("api_calls", AggType.COUNT, period_type=month, filters=by_call))
    client.metrics.put(MetricSchema("tokens", AggType.SUM, period_type=month, filters=by_token))


def usage() -> list[Event]:
    """A month of a customer who calls every ten minutes and upgrades on the 11th."""
    events = []
    for number in range(31 * 144):
        moment = MONTH.start + timedelta(minutes=10 * number)
        call = f"call-{number}"
        endpoint = "/embed" if number % 4 == 0 else "/chat"
        plan = "pro" if moment.day >= 11 else "free"
        tags = {"endpoint": endpoint, "plan": plan}
        events.append(Event(ACME, "api_calls", 1, moment, properties=tags, id=call))
        model = "large" if plan == "pro" and endpoint == "/chat" else "small"
        for kind, tokens in (("input", 200 + number % 300), ("output", number % 120 + 1)):
            tags = {"model": model, "kind": kind}
            events.append(
                Event(ACME, "tokens", tokens, moment, properties=tags, id=f"{call}-{kind}")
            )
    return events


def main() -> None:
    """Send a month of usage, send it again, and print the invoice."""
    with connect() as client:
        create_metrics(client)
        client.ingest(usage())
        again = client.ingest(usage())
        print(f"sent again: {again.n_stored} stored, {again.n_duplicates} duplicates")
        calls = client.query(ACME, "api_calls", MONTH).value.count
        pro = client.query(ACME, "api_calls", MONTH, filters={"plan": "pro"}).value.count
        print(f"API calls in October: {calls}, of these on the pro plan: {pro}")
        lines = client.query_breakdown(ACME, "tokens", MONTH, group_by=["model", "kind"])
        amount = 0
        for (model, kind), price in PRICES.items():
            tokens = lines[frozenset({("model", model), ("kind", kind)})].sum
            amount += tokens * price
            print(f"{model:6} {kind:7} {tokens:9} tokens at {price:5} cents a million")
        print(f"to pay: {amount // 1_000_000} cents")


if __name__ == "__main__":
    main()
