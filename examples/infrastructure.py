"""Meter infrastructure: compute seconds by provider and region.

One metric and two dimensions. The allowed providers are listed, so a typing
mistake is refused with a reason instead of becoming a new line on an invoice;
regions are open. Then: one filter, several values in a filter, both dimensions
at once, and a series per day.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from node import connect

from unimeter import AggType, DimensionFilter, Event, MetricSchema, Period, PeriodType

START = datetime(2025, 10, 6, tzinfo=timezone.utc)
WEEK = Period(START, START + timedelta(days=7))
ACCOUNT = "team-blue"
# Machines: name, provider, region, and the hours of the day they run.
MACHINES = [
    ("web-1", "aws", "eu-west", range(24)),
    ("web-2", "aws", "us-east", range(24)),
    ("batch", "gcp", "eu-west", range(2, 5)),
    ("train", "azure", "us-east", range(9, 17)),
]


def usage() -> list[Event]:
    """An event per machine and running hour; training rests at the weekend."""
    events = []
    for day in range(7):
        for name, provider, region, hours in MACHINES:
            for hour in hours:
                if name == "train" and day >= 5:
                    continue
                moment = START + timedelta(days=day, hours=hour)
                tags = {"provider": provider, "region": region}
                identity = f"{name}-{moment:%Y%m%d%H}"
                events.append(
                    Event(ACCOUNT, "compute_seconds", 3600, moment, properties=tags, id=identity)
                )
    return events


def main() -> None:
    """Meter a week and look at it from four sides."""
    providers = DimensionFilter("provider", ["aws", "azure", "gcp"])
    schema = MetricSchema(
        "compute_seconds",
        AggType.SUM,
        period_type=PeriodType.CALENDAR,
        filters=[providers, DimensionFilter("region")],
    )
    with connect() as client:
        client.metrics.put(schema)
        client.ingest(usage())
        wrong = Event(ACCOUNT, "compute_seconds", 3600, START, properties={"provider": "asw"})
        for refusal in client.ingest([wrong]).refusals:
            print(f"refused: {refusal.outcome.name}")

        def seconds(filters: dict[str, str | list[str]] | None = None) -> int:
            return client.query(ACCOUNT, "compute_seconds", WEEK, filters=filters).value.sum

        print(f"all           {seconds():8}")
        print(f"in eu-west    {seconds({'region': 'eu-west'}):8}")
        print(f"not on aws    {seconds({'provider': ['azure', 'gcp']}):8}")
        print(f"aws, us-east  {seconds({'provider': 'aws', 'region': 'us-east'}):8}")
        for point in client.series(ACCOUNT, "compute_seconds", WEEK, window="day"):
            print(f"{point.start:%a %d %b}  {point.value.sum // 3600:3} machine hours")


if __name__ == "__main__":
    main()
