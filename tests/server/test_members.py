"""The list of members, as an operator writes it: every mistake gets its sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unimeter.errors import InvalidInputError
from unimeter.server.config import Config
from unimeter.server.members import members_of, parse_peers

THREE = "1=a:7101,2=b:7101,3=c:7101"
SECRET = "x" * 32


def config(**options: Any) -> Config:
    given: dict[str, Any] = {
        "node_id": 2,
        "peers": THREE,
        "cluster_id": "billing",
        "cluster_secret": SECRET,
        "bind": "127.0.0.1",
        **options,
    }
    return Config(**given)


def test_a_list_gives_places_voters_and_a_majority() -> None:
    members = members_of(config())
    assert members is not None
    assert members.voters == (1, 2, 3)
    assert members.others == {1: ("a", 7101), 3: ("c", 7101)}
    assert members.majority == 2
    five = ",".join(f"{n}=h{n}:7101" for n in range(1, 6))
    members = members_of(config(peers=five))
    assert members is not None and members.majority == 3


def test_no_peers_is_no_cluster() -> None:
    assert members_of(Config()) is None


def test_addresses_may_be_of_version_6_and_spaces_do_no_harm() -> None:
    assert parse_peers(" 1 = [::1]:7101 , 2=b:7102") == {1: ("::1", 7101), 2: ("b", 7102)}


def test_every_node_makes_the_same_ids_and_keys_and_other_clusters_others() -> None:
    found = [members_of(config(node_id=n)) for n in (1, 2, 3)]
    assert len({one.cluster_id for one in found if one}) == 1
    assert len({one.genesis_key for one in found if one}) == 1
    other_name = members_of(config(cluster_id="other"))
    other_secret = members_of(config(cluster_secret="y" * 32))
    assert found[0] and other_name and other_secret
    assert other_name.cluster_id != found[0].cluster_id
    assert other_secret.cluster_id == found[0].cluster_id
    keys = {one.genesis_key for one in (found[0], other_name, other_secret)}
    assert len(keys) == 3
    assert SECRET.encode() not in found[0].genesis_key


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"peers": "1=a:7101,2=b,3=c:7101"}, r"'2=b' is not ID=HOST:PORT"),
        ({"peers": "1=a:7101,b:7101,3=c:7101"}, r"'b:7101' is not ID=HOST:PORT"),
        ({"peers": "1=a:7101,x=b:7101,3=c:7101"}, r"'x=b:7101' is not ID=HOST:PORT"),
        ({"peers": "1=a:7101,2=:7101,3=c:7101"}, r"'2=:7101' is not ID=HOST:PORT"),
        ({"peers": "1=a:7101,2=b:http,3=c:7101"}, r"'2=b:http' is not ID=HOST:PORT"),
        ({"peers": "1=a:7101,2=b:7101,"}, r"'' is not ID=HOST:PORT"),
        ({"peers": "0=a:7101,2=b:7101,3=c:7101"}, r"node ids are 1 to 255, and 0 is not"),
        ({"peers": "256=a:7101,2=b:7101,3=c:7101"}, r"node ids are 1 to 255, and 256 is not"),
        ({"peers": "1=a:0,2=b:7101,3=c:7101"}, r"port 0 of node 1 is not 1 to 65535"),
        ({"peers": "1=a:70000,2=b:7101,3=c:7101"}, r"port 70000 of node 1"),
        ({"peers": "2=a:7101,2=b:7101,3=c:7101"}, r"node id 2 is used twice"),
        ({"peers": "2=b:7101"}, r"peers names 1 node; a cluster has 3 or 5"),
        ({"peers": "1=a:7101,2=b:7101"}, r"peers names 2 nodes; a cluster has 3 or 5"),
        ({"peers": THREE + ",4=d:7101"}, r"peers names 4 nodes; .* survives no more"),
        (
            {"peers": ",".join(f"{n}=h{n}:7101" for n in range(1, 10))},
            r"peers names 9 nodes; .* up to 7",
        ),
        ({"node_id": 4}, r"node_id is 4, and peers names only 1, 2, 3"),
        ({"node_id": 0}, r"node_id must be 1 to 255, not 0"),
        ({"peers": "1=a:7101,2=a:7101,3=c:7101"}, r"two nodes have the same address"),
        ({"cluster_id": ""}, r"peers needs cluster_id"),
        ({"peers": ""}, r"cluster_id is given and peers is not"),
        ({"cluster_secret": ""}, r"peers needs cluster_secret_file"),
        ({"cluster_secret_file": "also"}, r"and not both"),
        ({"bind": "0.0.0.0"}, r"give --advertise HOST:PORT"),
        ({"bind": "::"}, r"give --advertise HOST:PORT"),
    ],
)
def test_a_list_that_can_not_be_meant_is_refused_with_its_sentence(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        config(**options)


def test_a_short_secret_and_one_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has 5 bytes; use at least 16"):
        members_of(config(cluster_secret="short"))
    absent = str(tmp_path / "absent")
    with pytest.raises(InvalidInputError, match=r"cluster_secret_file .*absent: No such file"):
        members_of(config(cluster_secret="", cluster_secret_file=absent))


def test_a_secret_file_counts_without_the_end_of_its_line(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    found = members_of(config(cluster_secret="", cluster_secret_file=str(file)))
    assert found is not None and found.secret == SECRET.encode()
