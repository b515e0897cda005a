"""Namespaces: a cut loses one direction, and nothing is left afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.jepsen import namespaces
from tests.jepsen.namespaces import NETNS, Namespaces, NotPermittedError, make_network
from tests.jepsen.networks import CLIENTS, Loopback, call_at

PORT = 5000
WAIT_SECONDS = 0.3


@pytest.fixture
def network() -> Iterator[Namespaces]:
    """Two nodes and the clients."""
    try:
        made = Namespaces(2)
    except NotPermittedError as error:
        pytest.skip(f"needs the right to make network namespaces: {error}")
    try:
        yield made
    finally:
        made.close()
        assert ours() == []


def ours() -> list[str]:
    """Return the namespaces that this process made and that are still there."""
    return [path.name for path in NETNS.glob(f"unimeter-jepsen-{os.getpid()}-*")]


def is_heard(network: Namespaces, source: int, target: int) -> bool:
    """Whether a datagram arrives; datagrams need no answer, so this looks one way only."""

    def listen() -> socket.socket:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((network.address(target), PORT))
        receiver.settimeout(WAIT_SECONDS)
        return receiver

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (network.address(target), PORT))

    with call_at(network, target, listen, 5) as receiver:
        call_at(network, source, send, 5)
        try:
            return receiver.recv(1) == b"x"
        except TimeoutError:
            return False


PAIRS = [(a, b) for a in (CLIENTS, 1, 2) for b in (CLIENTS, 1, 2) if a != b]


def test_cut_loses_one_direction_of_one_pair_until_it_is_mended(network: Namespaces) -> None:
    assert [pair for pair in PAIRS if not is_heard(network, *pair)] == []
    network.set_cuts({(1, 2)})
    assert [pair for pair in PAIRS if not is_heard(network, *pair)] == [(1, 2)]
    network.set_cuts({(2, 1), (CLIENTS, 2)})
    assert [pair for pair in PAIRS if not is_heard(network, *pair)] == [(CLIENTS, 2), (2, 1)]
    network.set_cuts(set())
    assert [pair for pair in PAIRS if not is_heard(network, *pair)] == []


def test_link_is_slowed_and_made_fast_again(network: Namespaces) -> None:
    if not network.can_slow:
        pytest.skip("this kernel can slow no link")
    for places in ({1}, {1, 2}, {2}, set()):
        network.set_slow(places)
        assert {place for place in (CLIENTS, 1, 2) if is_slow(network, place)} == places
        assert is_heard(network, 1, 2)


def is_slow(network: Namespaces, place: int) -> bool:
    """Whether a link has what slows it."""
    command = network.command(place, ["tc", "qdisc", "show", "dev", "eth0"])
    shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return network.slow_by[0] in shown.stdout


def test_command_runs_at_its_place_and_its_process_id_is_its_own(network: Namespaces) -> None:
    words = "import os, socket; s = socket.socket(); s.bind(('{}', 0)); print(os.getpid())"
    program = words.format(network.address(1))
    command = network.command(1, [sys.executable, "-c", program])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=20)
    assert int(output) == process.pid


def test_nothing_is_left_of_a_network_that_could_not_be_made(
    network: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.close()
    run, calls = namespaces.run, 0

    def fail_at_the_tenth(*command: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            assert ours() != []
            raise NotPermittedError("the tenth")
        run(*command)

    monkeypatch.setattr(namespaces, "run", fail_at_the_tenth)
    made = make_network(2)
    assert isinstance(made, Loopback)
    assert "the tenth" in made.notes[0]
    assert ours() == []


def test_loopback_gives_every_node_an_address_of_its_own() -> None:
    network = make_network(3, wants_namespaces=False)
    addresses = [network.address(place) for place in range(4)]
    assert len(set(addresses)) == 4
    for address in addresses:
        with socket.socket() as probe:
            probe.bind((address, 0))
