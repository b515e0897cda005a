"""Which directories a node may be started on, alone or as a member."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.server.clusters import BOUNDS, PATH, World, members_for, world

import unimeter
from unimeter.errors import DataError, WrongDirectoryError
from unimeter.server.config import Config
from unimeter.server.hosts import InlineHost
from unimeter.server.opening import check_alone, open_member, open_node
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.recovery import open_directory
from unimeter.storage.superblock import Membership

PEERS = "1=127.0.0.1:7101,2=127.0.0.1:7102,3=127.0.0.1:7103"


def config(folder: Path, **options: Any) -> Config:
    given = {"peers": PEERS, "cluster_id": "billing", "cluster_secret": "x" * 32, **options}
    return Config(data_dir=str(folder), segment_bytes=2**20, bind="127.0.0.1", **given)


def open_and_close(made: Config) -> None:
    open_node(made, InlineHost(), say=lambda sentence: None).close()


ALONE = {"peers": "", "cluster_id": "", "cluster_secret": ""}


def test_a_member_starts_fresh_and_mute_and_does_not_elect_itself(tmp_path: Path) -> None:
    node = open_node(config(tmp_path / "data"), InlineHost(), say=lambda sentence: None)
    assert node.replica.is_mute and not node.leads and not node.is_alone
    assert node.opened.superblock.current.membership is Membership.FRESH
    node.close()


def test_all_members_make_the_same_first_entry(tmp_path: Path) -> None:
    states = []
    for n in (1, 2, 3):
        made = config(tmp_path / f"data-{n}", node_id=n)
        node = open_node(made, InlineHost(), say=lambda sentence: None)
        states.append(node.machine.state_hash())
        node.close()
    assert len(set(states)) == 1


def test_a_fresh_members_directory_started_alone_is_refused(tmp_path: Path) -> None:
    open_and_close(config(tmp_path / "data"))
    with pytest.raises(WrongDirectoryError, match="belongs to node 1 of a cluster"):
        open_and_close(config(tmp_path / "data", **ALONE))
    open_and_close(config(tmp_path / "data"))  # and the lock was given back


def test_a_voters_directory_started_alone_is_refused_with_the_names_of_the_others() -> None:
    with world() as w:
        w.crash(2, arrival=1.0)
        opened = open_directory(w.nodes[2].disk, PATH, node_id=2, bounds=BOUNDS)
        with pytest.raises(WrongDirectoryError, match=r"of a cluster with 1, 3.*with --peers"):
            check_alone(opened)
        assert w.nodes[2].disk.locked == set()


def test_a_members_directory_is_not_opened_by_the_embedded_api(tmp_path: Path) -> None:
    """It would commit, alone, what the others never saw."""
    open_and_close(config(tmp_path / "data"))
    with pytest.raises(DataError):
        unimeter.open(tmp_path / "data").close()


def test_a_directory_of_a_node_that_was_alone_is_no_members(tmp_path: Path) -> None:
    open_and_close(config(tmp_path / "data", **ALONE))
    with pytest.raises(WrongDirectoryError, match="belongs to cluster"):
        open_and_close(config(tmp_path / "data"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"node_id": 2}, "belongs to node 1, this is node 2"),
        ({"cluster_id": "other"}, "belongs to cluster"),
        ({"cluster_secret": "y" * 32}, "made with another cluster's secret"),
    ],
)
def test_a_directory_of_another_node_cluster_or_secret_is_refused(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    open_and_close(config(tmp_path / "data"))
    with pytest.raises(WrongDirectoryError, match=sentence):
        open_and_close(config(tmp_path / "data", **options))


def open_as(w: World, node: int, count: int, others: tuple[int, ...] = ()) -> None:
    members = members_for(node, count)
    if others:
        members.places.clear()
        members.places.update({n: (f"10.0.0.{n}", 7101) for n in (node, *others)})
    open_member(w.nodes[node].disk, PATH, members, BOUNDS, None, lambda sentence: None).close()


def test_another_number_of_members_is_refused() -> None:
    with world() as w:
        w.crash(2, arrival=1.0)
        with pytest.raises(WrongDirectoryError, match=r"\[1, 2, 3\].*membership is fixed"):
            open_as(w, 2, 5)
        assert w.nodes[2].disk.locked == set()
        open_as(w, 2, 3)


def test_other_members_of_the_same_number_are_refused() -> None:
    with world() as w:
        w.crash(2, arrival=1.0)
        with pytest.raises(WrongDirectoryError, match=r"\[1, 2, 3\], and peers names"):
            open_as(w, 2, 3, (1, 4))


def test_a_members_log_is_applied_only_as_far_as_it_is_known_to_be_committed() -> None:
    with world() as w:
        client = w.client(1)
        w.isolate(1)
        client.ingest(7, 2)
        w.settle()
        w.crash(1, arrival=1.0)
        member = w.start(1)
        assert member.node.wal.last_index > member.node.machine.applied
        assert member.total(7) == 0


def test_a_disk_in_memory_is_nowhere(tmp_path: Path) -> None:
    node = open_node(Config(data_dir=":memory:"), InlineHost())
    assert isinstance(node.opened.disk, MemoryDisk) and node.is_alone and node.leads
    node.close()
