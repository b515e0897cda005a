"""Faults at rest: each does what it says, is seen by the real code, and can be undone."""

from __future__ import annotations

import pytest
from tests.storage.meter import CALLS, NOW, PATH, Meter

from unimeter.errors import CorruptionError
from unimeter.sim.chance import Chance
from unimeter.sim.disk import SimDisk
from unimeter.sim.disk_faults import KINDS, kind_of
from unimeter.storage.disk import SECTOR_BYTES
from unimeter.storage.verify import verify
from unimeter.types import Event


@pytest.fixture(scope="module")
def image() -> dict[str, bytes]:
    """The files of a small closed directory."""
    return contents(written())


def written(seed: int = 1) -> SimDisk:
    """A disk with several segments, two snapshots and outcomes, closed."""
    disk = SimDisk(Chance(seed))
    meter = Meter(disk.process())
    meter.create(CALLS)
    for number in range(1, 40):
        meter.ingest([Event(number % 9, "calls", 1, NOW, id=f"a{number % 15}") for _ in range(9)])
        if number % 12 == 0:
            meter.snapshot()
    meter.close()
    disk.power_cut(1.0)  # all of it is durable, the witness too
    return disk


def contents(disk: SimDisk) -> dict[str, bytes]:
    return {path: disk.contents(path) for path in disk.paths()}


def changes(disk: SimDisk, before: dict[str, bytes]) -> dict[str, list[int]]:
    """The changed places by path; what is read and what is durable must agree."""
    found = {}
    for path, old in before.items():
        now = disk.contents(path)
        assert now == disk.durable_bytes(path) and len(now) == len(old)
        if now != old:
            found[path] = [at for at in range(len(old)) if old[at] != now[at]]
    return found


def test_every_kind_of_file_is_there(image: dict[str, bytes]) -> None:
    assert {kind_of(path) for path in image} == set(KINDS)
    assert sum(kind_of(path) == "log" for path in image) >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_rot_changes_one_sector_of_that_kind_is_seen_and_can_be_undone(
    kind: str, image: dict[str, bytes]
) -> None:
    said = set()
    for seed in range(30):
        disk = SimDisk(Chance(seed))
        for path, data in image.items():
            disk.put(path, data)
        before = contents(disk)
        told = disk.rot(kinds=[kind])
        ((path, places),) = changes(disk, before).items()
        assert kind_of(path) == kind and path in told
        assert places[-1] - places[0] < SECTOR_BYTES
        said.add(told.rpartition(": ")[2].lstrip("123 "))
        assert is_noticed(disk), told
        assert disk.damaged_paths() == [path]
        assert [damage.told for damage in disk.standing_damage()] == [told]
        assert disk.undo_damage(1) and not disk.undo_damage(1)
        assert contents(disk) == before and disk.standing_damage() == []
    assert len(said) >= 2  # flips and sectors


def is_noticed(disk: SimDisk) -> bool:
    report = verify(PATH, disk=disk.clone())
    return bool(report.problems or report.notes)


def test_rot_never_hits_a_second_copy_of_a_superblock() -> None:
    faults = 0
    for seed in range(20):
        disk = written(seed)
        before = contents(disk)
        while disk.rot(kinds=["superblock"]) and disk.faults["rot"] < 20:
            pass
        (places,) = changes(disk, before).values()
        assert len({place // 4096 for place in places}) == 1
        assert disk.heal() == disk.faults["rot"] and contents(disk) == before
        faults += disk.faults["rot"]
    assert faults > 25  # in one copy there is often room for another


def newest(disk: SimDisk) -> str:
    return [path for path in disk.paths() if kind_of(path) == "log"][-1]


def last_group(disk: SimDisk, path: str) -> int:
    """Where the last synced write begins."""
    return disk._names.now[path].newest_start()


def test_the_last_group_of_a_log_is_not_blanked_unless_asked() -> None:
    blanked = {True: 0, False: 0}
    for seed in range(150):
        for but_newest in blanked:
            disk = written() if seed == 0 else again(seed)
            path = newest(disk)
            start = last_group(disk, path)
            assert start > 4096
            told = disk.rot(lambda name, path=path: name == path, but_newest=but_newest)
            if told.endswith("blank sector"):
                at = int(told.split(" at byte ")[1].partition(":")[0])
                blanked[but_newest] += at + SECTOR_BYTES > start
    assert blanked[True] == 0 < blanked[False]


KEPT: list[SimDisk] = []


def again(seed: int) -> SimDisk:
    """The same disk, healed, with other chances."""
    if not KEPT:
        KEPT.append(written())
    KEPT[0].heal()
    KEPT[0]._chance = Chance(seed)
    return KEPT[0]


def test_heads_of_segments_can_be_spared() -> None:
    hit = {True: 0, False: 0}
    for seed in range(60):
        for but_heads in hit:
            disk = again(seed)
            before = contents(disk)
            assert disk.rot(kinds=["log"], but_heads=but_heads)
            assert disk.misdirect(but_heads=but_heads)
            found = changes(disk, before)
            hit[but_heads] += any(min(places) < 4096 for places in found.values())
    assert hit[True] == 0 < hit[False]


def test_a_misdirected_write_is_missing_at_its_place_and_stands_elsewhere() -> None:
    others = 0
    for seed in range(60):
        disk = again(seed)
        before = contents(disk)
        told = disk.misdirect()
        words = told.split()
        size, offset, path = int(words[3]), int(words[7]), words[9]
        place, other = int(words[13]), words[15]
        assert told == (
            f"a write of {size} bytes at byte {offset} of {path} went to byte {place} of {other}"
        )
        assert path != newest(disk) or offset < last_group(disk, path)
        piece = before[path][offset : offset + size]
        assert any(piece) and not any(disk.contents(path)[offset : offset + size])
        assert place % SECTOR_BYTES == 0
        at = place + offset % SECTOR_BYTES
        assert disk.contents(other)[at : at + size] == piece
        assert set(changes(disk, before)) <= {path, other}
        others += path != other
        assert is_noticed(disk), told
        assert disk.heal() == 2 and contents(disk) == before
    assert 0 < others < 60


def losses(but_newest: bool) -> tuple[int, int]:
    """(starts that were refused, starts that lacked an acknowledged entry) after faults of logs.

    A power cut has taken the witness back to its beginning, which is the worst case.
    """
    refused = lost = 0
    for seed in range(120):
        disk = SimDisk(Chance(seed))
        meter = Meter(disk.process())
        meter.create(CALLS)
        for number in range(4 + seed % 30):
            meter.ingest([Event(number % 9, "calls", 1, NOW) for _ in range(9)])
        last = meter.wal.last_index
        disk.power_cut(0.0)
        if seed % 2:
            assert disk.rot(kinds=["log"], but_newest=but_newest)
        else:
            disk.misdirect(but_newest=but_newest)
        try:
            meter = Meter(disk.process())
            lost += meter.wal.last_index < last
            list(meter.wal.read(1))
        except CorruptionError:
            refused += 1
    return refused, lost


def test_no_fault_of_a_log_takes_an_acknowledged_entry_unseen_unless_asked() -> None:
    refused, lost = losses(but_newest=True)
    assert refused > 60 and lost == 0
    assert losses(but_newest=False)[1] > 0


def test_nothing_suitable_is_said_and_not_counted() -> None:
    disk = SimDisk(Chance(1))
    disk.put("data/log/0000000000000001.seg", bytes(8192))
    disk.put("data/other", b"x" * 100)
    assert disk.rot() == "" and disk.misdirect() == ""
    assert not any(disk.faults.values()) and disk.damaged_paths() == []


def test_damage_that_was_written_over_is_not_undone() -> None:
    disk = SimDisk(Chance(3))
    path = "data/log/0000000000000001.seg"
    disk.put(path, b"a" * 2048)
    assert disk.rot()
    file = disk.open(path, write=True)
    file.write(0, [b"b" * 2048])
    file.sync()
    assert disk.standing_damage() == [] and not disk.undo_damage(1)
    assert disk.contents(path) == b"b" * 2048

    assert disk.rot(but_newest=False)
    file.write(0, [b"c" * 2048])  # lost with the power: the damage still stands
    disk.power_cut(0.0)
    assert len(disk.standing_damage()) == 1 and disk.heal(path) == 1
    assert disk.contents(path) == b"b" * 2048


def test_a_write_beside_damage_in_its_sector_does_not_mend_it() -> None:
    disk = SimDisk(Chance(3))
    path = "data/log/0000000000000001.seg"
    disk.put(path, b"a" * 64 + bytes(448))
    assert disk.rot()
    damaged = disk.contents(path)
    file = disk.open(path, write=True)
    file.write_durably(300, [b"b" * 8])
    disk.power_cut(1.0)
    assert disk.contents(path)[:64] == damaged[:64] != b"a" * 64
    assert disk.heal(path) == 1
    assert disk.contents(path) == b"a" * 64 + bytes(236) + b"b" * 8 + bytes(204)


def test_a_name_that_a_power_cut_may_take_back_is_not_damaged() -> None:
    disk = SimDisk(Chance(3))
    disk.make_directory("data/log")
    file = disk.open("data/log/0000000000000001.seg", create=True)
    file.write_durably(0, [b"a" * 4096])
    assert disk.rot() == ""
    disk.sync_directory("data/log")
    assert disk.rot() != ""


def test_a_lost_disk_is_empty() -> None:
    disk = written()
    assert disk.lose() == f"lost a disk of {len(contents(written()))} files"
    assert disk.paths() == [] == disk.names("data") and not disk.exists("data")
    meter = Meter(disk.process())
    assert meter.wal.last_index <= 1


def test_the_same_seed_damages_the_same_place() -> None:
    def run(seed: int) -> tuple[str, str, bytes]:
        disk = written(seed)
        return disk.rot(), disk.misdirect(), disk.digest()

    assert run(5) == run(5)
    assert len({run(seed) for seed in range(4)}) == 4
