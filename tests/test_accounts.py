"""Accounts as text and in JSON: 42 and "42" stay two accounts, whoever reads them."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unimeter.accounts import (
    EXACT_MAX,
    account_of_json,
    account_text,
    json_account,
    parse_account,
)
from unimeter.keys import same
from unimeter.types import Account

ACCOUNTS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.text(max_size=64),
    st.integers(0, 2**66).map(str),
    st.text(max_size=8).map("str:".__add__),
)


@given(ACCOUNTS)
@example("9007199254740993")
@example(9007199254740993)
@example("str:9007199254740993")
@example("007")
def test_text_and_json_give_the_account_back(account: Account) -> None:
    assert same(parse_account(account_text(account)), account)
    assert same(account_of_json(json.loads(json.dumps(json_account(account)))), account)


@pytest.mark.parametrize(
    ("account", "written"),
    [
        (42, 42),
        ("42", "42"),
        (EXACT_MAX, EXACT_MAX),
        (EXACT_MAX + 1, str(EXACT_MAX + 1)),
        (str(EXACT_MAX), str(EXACT_MAX)),
        (str(EXACT_MAX + 1), f"str:{EXACT_MAX + 1}"),
        ("str:x", "str:str:x"),
        (str(2**64), str(2**64)),
    ],
)
def test_no_integer_of_json_is_one_that_a_reader_rounds(account: Account, written: object) -> None:
    assert json_account(account) == written
