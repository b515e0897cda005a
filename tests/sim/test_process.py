"""A process of the fake world: one time of its own, threads beside the loop, and an end."""

from __future__ import annotations

import asyncio

import pytest
from tests.sim.fake_hosts import Hosts, Pair

from unimeter.sim.process import Process, Workers
from unimeter.sim.scheduler import MILLISECOND, SECOND


def beats(hosts: Hosts, process: Process, every: float = 0.01) -> list[int]:
    """When a timer of the process rang, again and again."""
    seen: list[int] = []

    def beat() -> None:
        seen.append(process.now_ns)
        process.loop.call_later(every, beat)

    process.loop.call_soon(beat)
    return seen


# --- time --------------------------------------------------------------------------------


def test_what_the_loop_spends_holds_up_its_next_turn_and_what_it_sends() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    process = pair.near_process
    began = hosts.scheduler.now_ns
    turned: list[int] = []

    def work() -> None:
        process.spend(700 * MILLISECOND)
        assert process.now_ns >= began + 700 * MILLISECOND
        pair.near.transport.write(b"x")
        process.loop.call_soon(lambda: turned.append(hosts.scheduler.now_ns))

    process.loop.call_soon(work)
    hosts.until(lambda: bool(pair.far.chunks and turned))
    assert min(turned[0], hosts.scheduler.now_ns) >= began + 700 * MILLISECOND
    arrived = next(h for h in hosts.story.happenings if h.kind == "deliver")
    assert arrived.time_ns >= began + 700 * MILLISECOND


def test_a_job_of_a_thread_does_not_hold_up_the_loop() -> None:
    hosts = Hosts()
    process = hosts.process()
    seen, told = beats(hosts, process), list[int]()
    began = hosts.scheduler.now_ns

    def job() -> None:
        process.spend(2 * SECOND)
        process.loop.call_soon_threadsafe(lambda: told.append(hosts.scheduler.now_ns))

    process.thread("disk").put(job)
    hosts.run(1.5)
    assert len(seen) > 100 and not told
    hosts.run(1)
    assert len(told) == 1 and told[0] >= began + 2 * SECOND, "told when the job is over"


def test_jobs_of_one_thread_follow_one_another_and_threads_do_not_wait_for_each_other() -> None:
    hosts = Hosts()
    process = hosts.process()
    ended: dict[str, int] = {}

    def put(thread: str, name: str) -> None:
        def job() -> None:
            process.spend(SECOND)
            ended[name] = process.now_ns

        process.thread(thread).put(job)

    began = hosts.scheduler.now_ns
    put("one", "first")
    put("one", "second")
    put("other", "third")
    hosts.run(5)
    assert ended["second"] >= ended["first"] + SECOND
    assert ended["third"] < began + SECOND + 10 * MILLISECOND


def test_draining_a_thread_runs_what_was_put_and_takes_the_waiting_ones_time() -> None:
    hosts = Hosts()
    process, seen = hosts.process(), list[str]()

    def job(name: str) -> None:
        process.spend(SECOND)
        seen.append(name)

    thread = process.thread("sync")
    thread.put(lambda: job("a"))
    thread.put(lambda: job("b"))
    before = process.now_ns
    thread.drain()
    assert seen == ["a", "b"] and process.now_ns == before + 2 * SECOND
    hosts.run(5)
    assert seen == ["a", "b"]


def test_workers_give_results_and_exceptions_at_the_jobs_end() -> None:
    hosts = Hosts()
    process = hosts.process()
    workers = Workers(process, "pool")
    fine, broken = workers.submit(lambda: 7), workers.submit(lambda: 1 // 0)
    assert not fine.done()
    hosts.run(1)
    assert fine.result(0) == 7
    assert isinstance(broken.exception(0), ZeroDivisionError)


# --- a pause -----------------------------------------------------------------------------


def test_a_paused_process_does_nothing_and_then_all_that_was_due() -> None:
    hosts = Hosts()
    process = hosts.process()
    seen, jobs = beats(hosts, process), list[int]()
    hosts.run(1)
    count, until = len(seen), hosts.scheduler.now_ns + 3 * SECOND
    process.pause(until)
    process.thread("disk").put(lambda: jobs.append(hosts.scheduler.now_ns))
    hosts.run(2.9)
    assert len(seen) == count and not jobs
    hosts.run(1)
    assert len(seen) > count and seen[count] >= until and jobs[0] >= until


def test_others_go_on_while_one_is_paused() -> None:
    hosts = Hosts()
    one, other = hosts.process(1), hosts.process(2)
    seen = beats(hosts, other)
    one.pause(hosts.scheduler.now_ns + 10 * SECOND)
    hosts.run(1)
    assert len(seen) > 50


# --- the end -----------------------------------------------------------------------------


def test_nothing_of_a_dead_process_has_an_effect() -> None:
    hosts = Hosts()
    pair = Pair(hosts).made()
    process, loop = pair.near_process, pair.near_process.loop
    effects: list[str] = []
    task = hosts.task(process, _append_later(effects))
    hosts.run(0.1)
    loop.call_soon(effects.append, "ready")
    loop.call_later(1, effects.append, "timer")
    process.thread("disk").put(lambda: effects.append("job"))
    future = Workers(process, "pool").submit(effects.append, "work")
    pair.say(b"never")
    process.die()
    hosts.network.process_died(process, is_silent=True)
    loop.call_soon(effects.append, "after")
    loop.call_later(1, effects.append, "timer after")
    loop.call_soon_threadsafe(effects.append, "thread after")
    process.thread("disk").put(lambda: effects.append("job after"))
    pair.near.transport.write(b"never")
    hosts.run(20)
    assert effects == [] and task == [] and pair.far.chunks == [] and not future.done()


async def _append_later(effects: list[str]) -> None:
    await asyncio.sleep(1)
    effects.append("task")


def test_a_process_that_dies_in_a_callback_runs_none_of_those_behind_it() -> None:
    hosts = Hosts()
    process, seen = hosts.process(), list[str]()
    process.loop.call_soon(process.die)
    process.loop.call_soon(seen.append, "behind")
    hosts.run(1)
    assert seen == []


def test_a_thread_that_dies_in_its_job_tells_nobody() -> None:
    hosts = Hosts()
    process, told = hosts.process(), list[str]()

    def job() -> None:
        process.die()
        process.loop.call_soon_threadsafe(told.append, "told")
        raise RuntimeError("whatever unwinds its stack")

    process.thread("disk").put(job)
    hosts.run(1)
    assert told == [] and hosts.errors == []


def test_an_error_of_a_living_thread_is_told() -> None:
    hosts = Hosts()
    process = hosts.process()
    process.thread("disk").put(lambda: pytest.fail("broken"))
    hosts.run(1)
    assert len(hosts.errors) == 1
