"""Code written for the published client runs unchanged against a node of this project.

One session (``session.py``) does everything that the client can do; each test here
judges one part of what it saw.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

NOON_NS = int(datetime(2026, 3, 1, 12, tzinfo=timezone.utc).timestamp()) * 10**9
MINUTE_NS = 60 * 10**9
SOFT, HARD = 1, 2  # bits of the alert flags: the first and the second threshold


def test_the_client_is_the_published_one_and_not_ours(seen, client_folder):
    assert seen["version"] == "0.2.0"
    assert Path(seen["file"]).is_relative_to(client_folder)


def test_metrics_of_every_type_are_created_and_listed(seen):
    assert seen["metrics"]["list"] == [
        ["calls", 0],
        ["tokens", 1],
        ["peak", 2],
        ["level", 3],
        ["seats", 4],
        ["spend", 1],
    ]


def test_creating_the_same_metric_again_changes_nothing_and_another_one_is_refused(seen):
    assert seen["metrics"]["again"] is None
    assert seen["metrics"]["other"] == "AlreadyExistsError"


def test_both_modes_store_and_the_total_has_it_at_once(seen):
    count = seen["count"]
    assert count["async"][:2] == [10, 0]
    assert count["sync"][:2] == [1, 0]
    assert count["march"]["count"] == 11
    assert count["sync"][2] > count["async"][2] > 0


def test_a_batch_sent_twice_is_counted_once(seen):
    assert seen["count"]["again"][:2] == [0, 10]
    assert seen["count"]["half"][:2] == [0, 6]


def test_events_without_a_time_are_never_duplicates(seen):
    assert seen["count"]["untimed"][:2] == [2, 0]
    assert seen["count"]["this_month"]["count"] == 2
    assert seen["count"]["realtime"]["count"] == 2


def test_an_account_without_events_has_a_total_of_nothing(seen):
    assert set(seen["count"]["nobody"].values()) == {0}


def test_filters_pick_what_was_tagged(seen):
    found = seen["breakdown"]
    assert found["all"]["sum"] == sum(100 + i for i in range(12))
    assert found["large"]["sum"] == sum(100 + i for i in range(0, 12, 2))
    assert found["large_in"]["sum"] == 100 + 106
    assert found["none"]["count"] == 0


def test_a_dimension_value_outside_the_list_is_refused_and_the_rest_is_counted(seen):
    assert seen["breakdown"]["ingest"][:2] == [12, 0]


def test_a_breakdown_has_every_combination_that_has_events(seen):
    expected: dict[tuple[str, str], list[int]] = {}
    for i in range(12):
        expected.setdefault((["large", "small"][i % 2], ["in", "out", "cached"][i % 3]), []).append(
            100 + i
        )
    assert seen["breakdown"]["by_both"] == sorted(
        [[["kind", kind], ["model", model]], sum(values), len(values)]
        for (model, kind), values in expected.items()
    )
    assert [row[2] for row in seen["breakdown"]["by_model"]] == [6, 6]
    assert seen["breakdown"]["undeclared"] == "ServerError"


def test_max_latest_and_unique_totals(seen):
    other = seen["other"]
    assert other["peak"]["max"] == 9
    assert other["level"]["last_value"] == 3
    assert other["level"]["last_timestamp"] == NOON_NS + 2 * MINUTE_NS
    assert other["seats"]["count"] == 2, "1 and 3: 2 was removed"
    assert other["seats_month"]["count"] == 2


def test_alerts_are_pushed_once_per_crossing_and_name_their_event(seen, published_node):
    soft, hard = seen["alerts"]["pushed"]
    last = seen["alerts"]["crossing"][2]
    assert (soft["threshold"], soft["value"], soft["offset"]) == ("soft", 100, last - 2)
    assert (hard["threshold"], hard["value"], hard["offset"]) == ("hard", 250, last - 1)
    for each in (soft, hard):
        assert (each["account"], each["metric"]) == (1000, "spend")
        assert each["node"] == published_node.address
    assert soft["at"] == "2026-03-01T12:00:01+00:00"
    assert seen["alerts"]["dropped"] == 0


def test_alerts_are_listed_by_account_and_from_an_offset(seen):
    alerts = seen["alerts"]
    assert alerts["listed"] == alerts["pushed"]
    assert alerts["listed_after"] == alerts["pushed"][1:]
    assert alerts["listed_all"] == 4
    assert alerts["flags"] == SOFT | HARD


def test_a_subscription_resumes_from_a_saved_offset(seen, published_node):
    assert seen["alerts"]["caught_up"] == seen["alerts"]["pushed"][1]
    assert seen["alerts"]["offsets"][published_node.address] > seen["alerts"]["pushed"][1]["offset"]


def test_the_largest_batch_is_taken_whole(seen):
    assert seen["batches"]["largest"][:2] == [8192, 0]
    assert seen["batches"]["one_of_many"]["count"] == 1


def test_a_batch_over_the_limit_is_refused_and_the_connection_stays_usable(seen):
    assert seen["batches"]["too_large"] == "ServerError"
    assert seen["batches"]["together"] == 200


def test_an_unknown_metric_costs_only_its_own_events(seen):
    assert seen["batches"]["unknown"][:2] == [1, 0]
    assert seen["batches"]["only_unknown"][:2] == [0, 0]
    assert seen["batches"]["empty"] == [0, 0, 0]


@pytest.mark.parametrize("what", ["unknown_query", "backwards"])
def test_a_query_that_makes_no_sense_is_refused(seen, what):
    assert seen["batches"][what] == "ServerError"


def test_listing_events_is_answered(seen):
    assert seen["batches"]["events"] == [], "0.2.0 reads the rows and returns none of them"


def test_a_metric_changes_only_compatibly(seen):
    assert seen["changes"]["update"] is None
    assert seen["changes"]["bad_update"] == "ServerError"


def test_a_deleted_metric_is_gone_and_its_code_starts_anew(seen):
    changes = seen["changes"]
    assert changes["delete"] is None
    assert changes["delete_again"] == "ServerError"
    assert changes["query_deleted"] == "ServerError"
    assert "calls" not in changes["left"]
    assert changes["anew"]["count"] == 0
