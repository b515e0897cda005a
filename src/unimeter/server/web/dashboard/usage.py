"""What one account uses: the account's page, and the view that a company shows its customers.

Owns the choice of one metric among the account's, of a step and of a tag, and puts the answers
of the API together: totals of the current period with thresholds, a series, a break-down,
who is active, the newest alerts. With a portal token it is the token's account and
metrics; the token is all that says so.

A part that can't be had (its events are no longer stored) is said in `problems` and the
others are shown.
"""

from __future__ import annotations

from typing import Any, Final

from unimeter.accounts import account_text, parse_account
from unimeter.errors import ForbiddenError, UnimeterError
from unimeter.instants import format_ns
from unimeter.server.web.answers import exact
from unimeter.server.web.api import accounts, totals
from unimeter.server.web.api.metrics import schema_of
from unimeter.server.web.api.schemas import TOTAL, metric_json
from unimeter.server.web.call import Call
from unimeter.server.web.dashboard.twins import Twin, answer_of, twins
from unimeter.server.web.dashboard.views import newest_alerts
from unimeter.server.web.problems import Problem, bad
from unimeter.types import Account

HOUR_NS: Final = 3600 * 10**9
STEPS: Final = {"hour": (HOUR_NS, 48), "day": (24 * HOUR_NS, 30)}  # how long, and how many
MEMBERS: Final = "500"
ALERTS: Final = 20
COLUMNS: Final = (*TOTAL, "thresholds")
CHOICES: Final = ("metric", "window", "group_by")


async def account(call: Call) -> Twin:
    """An account's page."""
    return await usage(call, parse_account(call.path("account")))


async def embedded(call: Call) -> Twin:
    """The account of a portal token, or of a key for one account."""
    if call.principal.account is None:
        raise ForbiddenError("this view is for a portal token, or for a key of one account")
    return await usage(call, call.principal.account)


async def usage(call: Call, who: Account) -> Twin:
    """All that is shown of an account."""
    name = account_text(who)
    shown = await answer_of(call, accounts.show, account=name)
    body: dict[str, Any] = {
        "account": who,
        "account_text": name,
        "time": format_ns(call.site.server.node.clock()),
        "totals": shown["rows"],
        "alerts": await _alerts(call, who),
        **_nothing(call),
    }
    codes = [row["metric"] for row in shown["rows"]]
    if codes:
        wanted = call.text("metric", "")
        await _detail(call, name, wanted if wanted in codes else codes[0], body)
    lines = [[row[column] for column in COLUMNS] for row in shown["rows"]]
    return Twin(body, COLUMNS, lines, shown.get("position"))


def _nothing(call: Call) -> dict[str, Any]:
    window = call.text("window", "day")
    if window not in STEPS:
        raise bad("window", f"is {window[:40]!r}", ", ".join(STEPS))
    return {
        "metric": "",
        "window": window,
        "dimensions": [],
        "group_by": "",
        "series": None,
        "breakdown": [],
        "members": None,
        "more_members": False,
        "problems": {},
    }


async def _alerts(call: Call, who: Account) -> list[dict[str, Any]]:
    """The newest alerts of an account, of the metrics that the caller may see."""
    metrics = call.principal.metrics
    if metrics is None:
        found = (await newest_alerts(call, who, None, 0, ALERTS))[0]
    else:
        found = []
        for code in sorted(metrics):
            found += (await newest_alerts(call, who, code, 0, ALERTS))[0]
        found.sort(key=lambda row: -int(row["position"]))
    return [exact(row) for row in found[:ALERTS]]


async def _detail(call: Call, name: str, code: str, body: dict[str, Any]) -> None:
    """The chosen metric: its series, its break-down by one tag, its members."""
    definition = metric_json(schema_of(call, code))
    body["metric"] = code
    body["dimensions"] = [one["key"] for one in definition["dimensions"]]
    asked = {"account": name, "metric": code}
    series = await _part(call, "series", totals.series, {**asked, **_span(call, body)}, body)
    body["series"] = series and [
        {key: row[key] for key in ("start", "end", "value", "count")} for row in series["rows"]
    ]
    if body["dimensions"]:
        wanted = call.text("group_by", "")
        body["group_by"] = wanted if wanted in body["dimensions"] else body["dimensions"][0]
        by = {**asked, "group_by": body["group_by"]}
        found = await _part(call, "breakdown", totals.breakdown, by, body)
        rows = found["rows"] if found else []
        rows.sort(key=lambda row: -abs(int(row["value"])))
        body["breakdown"] = rows
    if definition["type"] == "count-unique":
        asked["limit"] = MEMBERS
        found = await _part(call, "members", totals.members, asked, body)
        body["members"] = [row["member"] for row in found["rows"]] if found else None
        body["more_members"] = bool(found and found.get("cursor"))


def _span(call: Call, body: dict[str, Any]) -> dict[str, str]:
    """The last 48 hours or 30 days, to the end of the one that runs."""
    length, count = STEPS[body["window"]]
    end = (call.site.server.node.clock() // length + 1) * length
    return {"window": body["window"], "start": str(end - count * length), "end": str(end)}


async def _part(
    call: Call, name: str, handler: Any, given: dict[str, str], body: dict[str, Any]
) -> dict[str, Any] | None:
    """An answer of the API, or None and the reason in the body."""
    try:
        return await answer_of(call, handler, given)
    except (Problem, UnimeterError) as error:
        body["problems"][name] = str(error)
        return None


ENDPOINTS: Final = [
    *twins("/ui/accounts/{account:path}", "account", account, asked=CHOICES),
    *twins("/embed/usage", "embed", embedded, asked=CHOICES, takes_portal=True),
]
