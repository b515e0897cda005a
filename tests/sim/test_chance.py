"""The draws: the same for ever, spread as they should be, and independent by name."""

from __future__ import annotations

from collections import Counter

import pytest

from unimeter.sim.chance import Chance


def test_the_generator_is_the_published_one() -> None:
    """SplitMix64 from state 0: its first outputs, as in the authors' reference code."""
    chance = Chance(1)
    chance._state = 0
    first = [chance.bits64() for _ in range(3)]
    assert first == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_a_seed_means_the_same_draws_in_every_release() -> None:
    """Whoever changes these numbers makes every seed ever written down mean another run."""
    chance = Chance(8714)
    assert [chance.below(1000) for _ in range(8)] == [918, 331, 512, 622, 911, 964, 910, 150]
    assert Chance(8714).fork("disk").below(10**6) == 733896
    assert Chance(8714).bytes(5).hex() == "172398b59e"


def test_another_seed_means_other_draws() -> None:
    firsts = {Chance(seed).bits64() for seed in range(2000)}
    assert len(firsts) == 2000


def test_a_fork_depends_on_its_name_and_does_not_move_the_one_it_came_from() -> None:
    chance, same = Chance(5), Chance(5)
    forks = [chance.fork(name).bits64() for name in ("a", "b", "a")]
    assert forks[0] == forks[2] != forks[1]
    assert chance.bits64() == same.bits64()
    assert chance.fork("a").bits64() != forks[0], "it goes on from where this one stands"


def test_draws_of_a_fork_do_not_shift_those_of_another() -> None:
    one = Chance(9)
    kill, rot = one.fork("kill"), one.fork("rot")
    for _ in range(1000):
        kill.bits64()
    assert rot.bits64() == Chance(9).fork("rot").bits64()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 17])
def test_numbers_below_a_bound_are_all_drawn_about_as_often(count: int) -> None:
    chance, draws = Chance(3), 2000 * count
    found = Counter(chance.below(count) for _ in range(draws))
    assert sorted(found) == list(range(count))
    assert all(1700 < times < 2300 for times in found.values())


def test_between_includes_both_ends_and_negative_numbers() -> None:
    chance = Chance(4)
    assert {chance.between(-2, 2) for _ in range(500)} == {-2, -1, 0, 1, 2}
    assert chance.between(7, 7) == 7


def test_a_probability_hits_that_often_and_its_ends_always_or_never() -> None:
    chance = Chance(6)
    assert not any(chance.hit(0.0) for _ in range(1000))
    assert all(chance.hit(1.0) for _ in range(1000))
    assert 2700 < sum(chance.hit(0.3) for _ in range(10_000)) < 3300


def test_a_rate_changed_to_nothing_does_not_shift_what_is_drawn_later() -> None:
    one, other = Chance(8), Chance(8)
    one.hit(0.0)
    other.hit(0.9)
    assert one.bits64() == other.bits64()


def test_real_numbers_are_from_0_up_to_1() -> None:
    chance = Chance(2)
    found = [chance.real() for _ in range(10_000)]
    assert min(found) >= 0 and max(found) < 1
    assert 0.48 < sum(found) / len(found) < 0.52


def test_a_sample_has_each_place_once_and_a_shuffle_loses_nothing() -> None:
    chance = Chance(11)
    choices = [1, 1, 2, 3, 4]
    for count in range(6):
        drawn = chance.sample(choices, count)
        assert len(drawn) == count and not Counter(drawn) - Counter(choices)
    orders = set()
    for _ in range(300):
        items = list(range(4))
        chance.shuffle(items)
        assert sorted(items) == [0, 1, 2, 3]
        orders.add(tuple(items))
    assert len(orders) == 24, "every order comes"


def test_weights_are_kept_and_nothing_of_no_weight_is_drawn() -> None:
    chance = Chance(12)
    found = Counter(chance.weighted({"never": 0, "one": 1, "three": 3}) for _ in range(8000))
    assert set(found) == {"one", "three"}
    assert 2.6 < found["three"] / found["one"] < 3.4


def test_bytes_are_as_many_as_asked_for() -> None:
    chance = Chance(13)
    assert [len(chance.bytes(count)) for count in (0, 1, 7, 8, 9, 100)] == [0, 1, 7, 8, 9, 100]
    assert len(set(chance.bytes(4000))) == 256
