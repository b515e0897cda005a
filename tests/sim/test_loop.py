"""The fake loop: turns, timers, tasks and threads as asyncio's, at times that are drawn."""

from __future__ import annotations

import asyncio

import pytest
from tests.sim.fake_hosts import Hosts

from unimeter.sim.scheduler import MILLISECOND, SECOND


def test_callbacks_run_in_their_order_and_those_of_callbacks_in_the_next_turn() -> None:
    hosts = Hosts()
    process, seen = hosts.process(), list[object]()
    loop = process.loop
    loop.call_soon(lambda: (seen.append(("a", loop.turns)), loop.call_soon(later)))
    loop.call_soon(lambda: seen.append(("b", loop.turns)))

    def later() -> None:
        seen.append(("later", loop.turns))

    hosts.run(1)
    assert seen == [("a", 1), ("b", 1), ("later", 2)]


def test_a_timer_is_never_early_and_a_cancelled_one_never_rings() -> None:
    hosts = Hosts()
    loop, seen = hosts.process().loop, list[tuple[float, float]]()
    for delay in (0.0, 0.001, 1.0, 1 / 3, 10.0):
        due = loop.time() + delay
        loop.call_later(delay, lambda due=due: seen.append((due, loop.time())))
    loop.call_later(0.5, pytest.fail, "it was cancelled").cancel()
    hosts.run(20)
    assert len(seen) == 5
    assert all(due <= rang <= due + 0.001 for due, rang in seen)


def test_coroutines_sleep_wait_and_time_out_in_virtual_time() -> None:
    hosts = Hosts()
    process = hosts.process()

    async def body() -> tuple[float, str]:
        began = process.loop.time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(1800))
        try:
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        except TimeoutError:
            return process.loop.time() - began, "timeout"
        return 0.0, "none"

    found = hosts.task(process, body())
    hosts.run(4000)
    ((took, how),) = found
    assert how == "timeout" and 3605 <= took < 3606


def test_the_running_loop_is_the_processs_own_and_none_between_turns() -> None:
    hosts = Hosts()
    one, other = hosts.process(1), hosts.process(2)
    seen = [hosts.task(p, _running_loop()) for p in (one, other)]
    hosts.run(1)
    assert seen == [[one.loop], [other.loop]]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


async def _running_loop() -> object:
    return asyncio.get_running_loop()


def test_a_job_of_a_thread_gives_its_result_or_its_exception() -> None:
    hosts = Hosts()
    process = hosts.process()

    def divide(by: int) -> float:
        process.spend(5 * MILLISECOND)
        return 1 / by

    fine = hosts.task(process, _in_thread(process.loop, divide, 4))
    broken = hosts.task(process, _in_thread(process.loop, divide, 0))
    hosts.run(1)
    assert fine == [0.25] and isinstance(broken[0], ZeroDivisionError)


async def _in_thread(loop: asyncio.AbstractEventLoop, work: object, *given: int) -> object:
    return await loop.run_in_executor(None, work, *given)  # type: ignore[arg-type]


def test_what_nobody_takes_is_told() -> None:
    hosts = Hosts()
    process = hosts.process()
    error = ValueError("nobody takes it")

    def broken() -> None:
        raise error

    process.loop.call_soon(broken)
    seen: list[str] = []
    process.loop.call_soon(seen.append, "and the loop goes on")
    hosts.run(1)
    assert hosts.errors == [error] and seen


def test_two_processes_meet_in_many_orders_and_a_seed_in_one() -> None:
    def order(seed: int) -> str:
        hosts, seen = Hosts(seed), list[str]()
        for number in (1, 2, 3):
            loop = hosts.process(number).loop
            loop.call_soon(seen.append, str(number))
        hosts.run(1)
        return "".join(seen)

    orders = [order(seed) for seed in range(100)]
    assert len(set(orders)) == 6
    assert orders == [order(seed) for seed in range(100)]


def test_what_the_loop_does_not_know_is_refused() -> None:
    loop = Hosts().process().loop
    with pytest.raises(NotImplementedError):
        loop.add_reader(0, lambda: None)


def test_time_is_that_of_the_process_in_seconds() -> None:
    hosts = Hosts()
    process = hosts.process()
    assert process.loop.time() == 1.0
    process.spend(SECOND)
    assert process.loop.time() == 2.0
