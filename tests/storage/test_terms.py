"""The terms of a log, remembered as runs."""

from __future__ import annotations

from random import Random

import pytest

from unimeter.storage.terms import Terms


def test_an_index_between_two_of_one_term_has_it_and_one_in_a_gap_is_unknown() -> None:
    terms = Terms()
    terms.note(1, 1)
    terms.note(40, 1)
    terms.note(120, 7)
    assert [terms.find(index) for index in (1, 20, 40, 41, 119, 120, 121)] == [
        1, 1, 1, None, None, 7, None,
    ]  # fmt: skip
    terms.note(60, 3)
    assert [terms.find(index) for index in (41, 60, 61)] == [None, 3, None]


def test_what_is_gone_is_forgotten_on_both_sides() -> None:
    terms = Terms()
    for index, term in ((1, 1), (9, 1), (10, 2), (19, 2), (20, 5), (29, 5)):
        terms.note(index, term)
    terms.forget_after(14)
    assert (terms.find(14), terms.find(15), terms.find(20)) == (2, None, None)
    terms.note(15, 4)
    terms.forget_before(5)
    assert (terms.find(4), terms.find(5), terms.find(15)) == (None, 1, 4)
    terms.forget_before(12)
    assert (terms.find(9), terms.find(11), terms.find(12)) == (None, None, 2)


@pytest.mark.parametrize("seed", range(10))
def test_terms_answer_as_a_list_would_or_not_at_all(seed: int) -> None:
    random = Random(seed)
    terms, model = Terms(), [1]
    terms.note(0, 1)
    for _ in range(400):
        step = random.random()
        if step < 0.5:
            model.append(model[-1] + (random.random() < 0.2) * random.randrange(1, 4))
            terms.note(len(model) - 1, model[-1])
        elif step < 0.6 and len(model) > 1:
            del model[random.randrange(1, len(model)) :]
            terms.forget_after(len(model) - 1)
        else:
            index = random.randrange(len(model))
            found = terms.find(index)
            assert found in (None, model[index])
            terms.note(index, model[index])
            assert terms.find(index) == model[index]
        assert terms.find(len(model)) is None


def test_a_term_that_goes_back_stops_the_process() -> None:
    terms = Terms()
    terms.note(5, 3)
    with pytest.raises(AssertionError, match="terms went back"):
        terms.note(6, 2)
