"""Thousands of requests made from the OpenAPI document: none may break the node or its promises.

Every route of every module is in the document, so every route is tried: with what its description
allows and with what it forbids. A status, a content type or a body that the document does not
announce is a failure, and so is any 5xx.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from tests.server.web.running import Running, running
from tests.server.web.test_ingest import put_key

from unimeter.keys import new_key
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.openapi import document, shown_path
from unimeter.server.web.site import api_endpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CASES = 40  # of each route and each way: some thousands in all
ENDLESS = "/v1/stream"  # has tests of its own: a stream does not end
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    missing_required_header,
    unsupported_method,
]
"""Those that the command line makes by default, but three: what a description allows may be refused
by the state of the node (`positive_data_acceptance`); an empty value is none, an unknown header is
nobody's fault and a position may be the first thing that is wrong (`negative_data_rejection`); and
twenty wrong keys are a 429 and no 401 (`ignored_auth`)."""
ROUTES = [one for one in api_endpoints() if one.is_listed and one.path != ENDLESS]


@pytest.fixture(scope="module")
def node() -> Iterator[Running]:
    """A node of its own, with a key, so that no case can lock the others out."""
    with running() as found:
        key = new_key(random.Random(1).randbytes)
        put_key(found, key, "tester", ["admin"], None)
        found.http.headers["Authorization"] = f"Bearer {key}"
        found.metric("api_calls", dimensions=[{"key": "model"}], period="month")
        found.metric("seats", "count-unique")
        found.send([{"account": "acme", "metric": "api_calls", "value": 5}])
        yield found


@cache
def described() -> Any:
    """The document of every route, as schemathesis reads it."""
    return schemathesis.openapi.from_dict(document(api_endpoints()))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("route", ROUTES, ids=lambda one: f"{one.method} {shown_path(one)}")
def test_no_request_breaks_what_the_document_promises(
    node: Running, route: Endpoint, mode: GenerationMode
) -> None:
    operation = described()[shown_path(route)][route.method]

    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def look(case: Any) -> None:
        check(node, case)

    try:
        look()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "nothing could be made"  # nothing is forbidden


def check(node: Running, case: Any) -> None:
    """Send a case; its answer must be one that the document announces."""
    key = node.http.headers["Authorization"]
    response = case.call(base_url=node.url, timeout=20, headers={"Authorization": key})
    assert "Traceback" not in response.text
    case.validate_response(response, checks=CHECKS)
    if response.status_code in (412, 413, 429):
        assert int(response.headers["retry-after"][0]) > 0


def test_the_checks_can_fail(node: Running) -> None:
    """A document that promises less than the node gives is found out."""
    whole = node.get("/openapi.json")
    del whole["paths"]["/v1/totals"]["get"]["responses"]["400"]
    operation = schemathesis.openapi.from_dict(whole)["/v1/totals"]["GET"]
    with pytest.raises(FailureGroup, match="Undocumented status code"):
        check(node, operation.Case(query={"account": "acme"}))
