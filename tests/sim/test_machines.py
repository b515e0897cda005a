"""A machine of the fake world: its node lives, dies, comes back, and its disk takes time."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator

import pytest

from unimeter.errors import DataError, FatalStorageError
from unimeter.raft.messages import LEADER
from unimeter.sim.chance import Chance
from unimeter.sim.machines import Machine
from unimeter.sim.network import Weather
from unimeter.sim.options import Options, draw
from unimeter.sim.platform import DATA_DIR
from unimeter.sim.scheduler import SECOND
from unimeter.sim.story import Story
from unimeter.sim.tuning import tuned
from unimeter.sim.world import World


def quiet_options(nodes: int) -> Options:
    """A world in which nothing goes wrong by itself."""
    options = draw("lite", Chance(1))
    options.nodes, options.faults, options.weather, options.skew_ns = nodes, {}, Weather(), 0
    options.retention_bytes = 0
    return options


class Quiet:
    """A world of machines without clients and without faults."""

    def __init__(self, nodes: int) -> None:
        options = quiet_options(nodes)
        self.world = World(Chance(7), options, Story(keep=True))
        self.machines = list(self.world.machines.values())

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        over: list[bool] = []
        self.world.scheduler.after(int(seconds * SECOND), over.append, True)
        self.until(lambda: bool(over), seconds + 1)

    def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Let time pass until it holds; raises what broke in the world."""
        end = self.world.scheduler.now_ns + int(seconds * SECOND)
        while not condition():
            assert self.world.scheduler.now_ns <= end, "it took too long"
            assert self.world.scheduler.step(), "nothing is going to happen any more"
            if self.world.failure is not None:
                raise self.world.failure

    def start(self) -> None:
        """Start all and wait until all are ready and one leads."""
        for machine in self.machines:
            machine.start()
        self.until(lambda: self.all_ready and self.leaders)

    def forget(self) -> None:
        """Let the dead go now: tasks of killed processes complain when they are finalised."""
        for machine in self.machines:
            machine.__dict__.clear()
        self.machines.clear()
        self.world.__dict__.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()

    @property
    def all_ready(self) -> bool:
        return all(machine.is_ready for machine in self.machines)

    @property
    def leaders(self) -> list[Machine]:
        ready = [machine for machine in self.machines if machine.is_ready]
        return [machine for machine in ready if machine.node.replica.raft.role is LEADER]

    def kinds(self, name: str) -> list[str]:
        """What the story says of somebody, without the messages."""
        quiet = ("send", "deliver", "drop", "said")
        return [
            one.kind
            for one in self.world.story.happenings
            if one.who == name and one.kind not in quiet
        ]


def made(nodes: int) -> Iterator[Quiet]:
    gc.disable()
    try:
        with tuned(quiet_options(nodes)):
            quiet = Quiet(nodes)
            quiet.start()
            yield quiet
            quiet.forget()
    finally:
        gc.enable()


@pytest.fixture
def alone() -> Iterator[Quiet]:
    yield from made(1)


@pytest.fixture
def three() -> Iterator[Quiet]:
    yield from made(3)


# --- life ----------------------------------------------------------------------------------


def test_three_machines_start_and_elect_one_leader(three: Quiet) -> None:
    three.run(2)
    assert len(three.leaders) == 1
    terms = {machine.node.replica.raft.term for machine in three.machines}
    assert len(terms) == 1
    assert three.world.failure is None


def test_a_killed_node_keeps_its_page_cache_and_comes_back_when_it_is_started(
    alone: Quiet,
) -> None:
    (machine,) = alone.machines
    term = machine.node.replica.raft.term
    files = machine.disk.digest()
    machine.kill()
    assert machine.disk.digest() == files
    assert not machine.is_running and not machine.is_ready and machine.is_powered
    alone.run(5)
    assert not machine.is_running, "nobody started it"
    machine.start()
    machine.start()
    alone.until(lambda: machine.is_ready)
    assert machine.starts == 2 and machine.node.replica.raft.term >= term
    assert alone.kinds("n1")[-1] != "kill" and alone.kinds("n1").count("kill") == 1


def test_a_leader_that_is_killed_is_replaced(three: Quiet) -> None:
    (leader,) = three.leaders
    leader.kill()
    three.until(lambda: bool(three.leaders))
    assert three.leaders[0] is not leader


def test_a_machine_without_power_starts_nothing_until_the_power_is_back(alone: Quiet) -> None:
    (machine,) = alone.machines
    machine.power_cut(0.0)
    machine.power_cut(0.0)
    assert machine.ip in alone.world.network.dark and machine.disk.faults["power_cut"] == 1
    machine.start()
    alone.run(5)
    assert not machine.is_running
    machine.power_on()
    machine.start()
    alone.until(lambda: machine.is_ready)
    assert alone.world.failure is None


def test_a_node_that_is_stopped_in_order_ends_without_failure_and_is_started_again(
    alone: Quiet,
) -> None:
    (machine,) = alone.machines
    machine.stop()
    alone.until(lambda: machine.starts == 2 and machine.is_ready)
    assert alone.world.reached["a node was stopped in order"] == 1
    kinds = alone.kinds("n1")
    assert kinds.index("stop") < kinds.index("stopped") and "failed" not in kinds


def test_what_a_killed_process_leaves_behind_has_no_effect(alone: Quiet) -> None:
    (machine,) = alone.machines
    process, node = machine.process, machine.node
    assert process is not None
    machine.kill()
    before, count = machine.disk.digest(), alone.world.story.count
    process.loop.call_soon(node.tick)
    process.loop.call_later(0.1, node.tick)
    machine.ended(process, None)
    alone.run(1)
    assert machine.disk.digest() == before and alone.world.story.count == count


# --- the disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("operations", [0, 1, 3])
def test_a_cut_comes_before_the_so_manieth_operation_of_the_disk(
    alone: Quiet, operations: int
) -> None:
    (machine,) = alone.machines
    done: list[str] = []
    usual = machine.disk.on_operation
    assert usual is not None

    def watch(operation: str, path: str, size: int) -> None:
        usual(operation, path, size)  # raises where the cut is
        if operation in ("write", "sync"):
            done.append(operation)

    machine.disk.on_operation = watch
    machine.cut_in(operations, machine.kill, ("write", "sync"))
    for _ in range(5):
        if machine.is_running:
            _propose(machine)
            alone.run(1)
    assert not machine.is_running and len(done) == operations


def _propose(machine: Machine) -> None:
    """Have the node write to its log and its superblock."""
    from unimeter.engine.entries import METRIC_DELETE

    assert machine.process is not None
    machine.process.loop.call_soon(machine.node.propose, METRIC_DELETE, b"nothing", lambda *_: None)


def test_a_slow_disk_takes_longer(alone: Quiet) -> None:
    (machine,) = alone.machines

    process = machine.process
    assert process is not None

    def takes(slow: int) -> int:
        machine.slow_disk = slow
        alone.run(1)
        began, index = process.now_ns, machine.node.machine.applied
        _propose(machine)
        alone.until(lambda: machine.node.machine.applied > index)
        return process.now_ns - began

    usual = sum(takes(1) for _ in range(5))
    assert sum(takes(300) for _ in range(5)) > 20 * usual


def test_a_failed_sync_ends_the_process_and_is_excused_by_the_disks_error(alone: Quiet) -> None:
    (machine,) = alone.machines

    def fails(path: str) -> bool:
        machine.disk.fail_sync = None
        machine.disk_erred = True
        return True

    machine.disk.fail_sync = fails
    _propose(machine)
    alone.until(lambda: machine.starts == 2 and machine.is_ready)
    assert alone.world.reached["a node stopped because its disk failed"] == 1
    assert "failed" in alone.kinds("n1")


@pytest.mark.parametrize(
    "error", [FatalStorageError("a disk that is fine"), DataError("damage that is none")]
)
def test_a_node_that_stops_itself_without_an_excuse_fails_the_run(
    alone: Quiet, error: Exception
) -> None:
    (machine,) = alone.machines
    assert machine.process is not None
    machine.process.loop.call_soon(machine.node.fail, error)
    with pytest.raises(type(error)) as caught:
        alone.run(5)
    assert caught.value is error


def test_an_exception_that_nobody_takes_fails_the_run(alone: Quiet) -> None:
    (machine,) = alone.machines
    assert machine.process is not None

    def broken() -> None:
        raise ZeroDivisionError("nobody takes it")

    machine.process.loop.call_soon(broken)
    with pytest.raises(ZeroDivisionError):
        alone.run(1)


def test_damage_at_a_start_is_refused_and_named_and_no_failure_of_the_run(alone: Quiet) -> None:
    (machine,) = alone.machines
    for _ in range(20):
        _propose(machine)
        alone.run(0.05)
    machine.kill()
    told = machine.disk.rot(lambda path: path.startswith(f"{DATA_DIR}/log"), Chance(3))
    assert told and machine.damage
    machine.start()
    alone.until(lambda: alone.world.reached["damage was refused at a start"] > 0, 10)
    assert alone.world.failure is None


def test_a_lost_disk_is_recovered_and_the_node_votes_again(three: Quiet) -> None:
    machine = three.machines[2]
    three.run(2)
    machine.kill()
    machine.lose_disk()
    assert machine.is_recovering and not machine.was_ready
    machine.start()
    three.until(lambda: machine.is_ready and not machine.is_recovering, 60)
    three.until(
        lambda: len({one.node.machine.state_hash() for one in three.machines if one.is_ready}) == 1
    )
    assert three.world.failure is None


def test_an_entry_is_asked_for_only_of_a_machine_that_can_be_reached(three: Quiet) -> None:
    one, other, third = three.machines
    index = other.node.wal.last_index
    entry = one.ask_peer_for_entry(2, index)
    assert entry is not None and entry.index == index
    three.world.network.cuts.add((other.ip, one.ip))
    assert one.ask_peer_for_entry(2, index) is None
    third.kill()
    assert one.ask_peer_for_entry(3, index) is None
