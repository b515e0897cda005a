"""A mistake gives the same exception here and over the wire."""

from __future__ import annotations

import pytest

from unimeter import errors
from unimeter.wire.failures import error_of, exception_of, status_of
from unimeter.wire.messages import Done, ErrorCode, ErrorReply, ProtocolError, Status


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidInputError("end before start"),
        errors.NotFoundError("no metric 'x'"),
        errors.AlreadyExistsError("'x' exists"),
        errors.RangeUnavailableError("events were removed"),
        errors.SessionExpiredError("not known"),
        errors.RedirectError("10.0.0.2:7001"),
        errors.BackpressureError("disk is full", 1.5),
        ProtocolError("too short"),
    ],
)
def test_an_exception_survives_the_wire(error):
    twin = exception_of(error_of(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.retryable == error.retryable
    assert getattr(twin, "retry_after", None) == getattr(error, "retry_after", None)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_an_exception_and_a_status(code):
    reply = ErrorReply(code)
    assert isinstance(exception_of(reply), errors.UnimeterError)
    assert (status_of(reply) == Status.OK) == (code == ErrorCode.NONE)


def test_the_words_of_an_unexpected_exception_stay_here():
    reply = error_of(KeyError("account of a customer"))
    assert reply.code == ErrorCode.INTERNAL
    assert "customer" not in reply.text


def test_a_retryable_refusal_stays_retryable():
    for code in (ErrorCode.BACKPRESSURE, ErrorCode.SHUTTING_DOWN, ErrorCode.NOT_LEADER):
        assert exception_of(ErrorReply(code, "", 20)).retryable


def test_a_response_that_is_no_refusal_is_ok():
    assert status_of(Done()) == Status.OK


def test_version_one_is_told_to_wait_where_it_would_take_not_leader_for_success():
    reply = ErrorReply(ErrorCode.NOT_LEADER)
    assert status_of(reply) == status_of(reply, 2) == Status.NOT_LEADER
    assert status_of(reply, 1) == Status.BACKPRESSURE
    assert status_of(Done(), 1) == Status.OK
    assert status_of(ErrorReply(ErrorCode.REDIRECT, "a:1"), 1) == Status.REDIRECT
