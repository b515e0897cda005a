"""Bill seats: who joined, who left, who is active now, how many to pay this month.

A COUNT_UNIQUE metric whose values are user numbers. ADD joins, REMOVE leaves.
`recurring=True` carries members into the next month until they leave; a month's
count is everyone who was a member in it at its end.
"""

from __future__ import annotations

from datetime import datetime, timezone

from node import connect

from unimeter import AggType, Client, Event, MetricSchema, OperationType, Period, PeriodType

ACCOUNT = "acme"
JOIN, LEAVE = OperationType.ADD, OperationType.REMOVE
# Day, what happened, to which user.
HISTORY = [
    ("2025-08-01", JOIN, 1),
    ("2025-08-01", JOIN, 2),
    ("2025-08-20", JOIN, 3),
    ("2025-09-05", LEAVE, 2),
    ("2025-09-10", JOIN, 4),
    ("2025-10-02", LEAVE, 1),
    ("2025-10-03", JOIN, 1),
    ("2025-10-15", JOIN, 5),
    ("2025-10-20", JOIN, 6),
    ("2025-10-31", LEAVE, 4),
]


def day(text: str) -> datetime:
    """The beginning of a day, UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def events() -> list[Event]:
    """The history as events; the id makes a repeated message harmless."""
    return [
        Event(ACCOUNT, "seats", user, day(when), operation, id=f"{when}-{operation.name}-{user}")
        for when, operation, user in HISTORY
    ]


def print_active(client: Client, when: str) -> None:
    """Who held a seat at the beginning of a day."""
    members = client.members(ACCOUNT, "seats", at=day(when))
    print(f"active on {when}: {', '.join(f'user {member}' for member in members)}")


def main() -> None:
    """Replay three months and print seats per month and members at moments."""
    with connect() as client:
        client.metrics.put(
            MetricSchema(
                "seats", AggType.COUNT_UNIQUE, recurring=True, period_type=PeriodType.CALENDAR
            )
        )
        client.ingest(events())
        for first, after in (("08", "09"), ("09", "10"), ("10", "11")):
            month = Period(day(f"2025-{first}-01"), day(f"2025-{after}-01"))
            seats = client.query(ACCOUNT, "seats", month).value.count
            print(f"2025-{first}: {seats} seats")
        print_active(client, "2025-09-01")
        print_active(client, "2025-10-03")
        print_active(client, "2025-11-01")


if __name__ == "__main__":
    main()
