"""Every bug of the catalogue can still be planted, and planting does what it says."""

from __future__ import annotations

import pytest
from tests.planted.bug import Bug
from tests.planted.catalogue import BUGS
from tests.planted.planting import Edit, StaleBug, planted_source

SOURCE = """
class Door:
    def open(self):
        if self.is_locked:
            return False
        return True

    def close(self):
        return True


def knock():
    return True
"""


def edit(function: str, old: str, new: str = "pass") -> Edit:
    return Edit("base", function, old, new)


def test_a_piece_of_one_function_is_replaced_and_nothing_else() -> None:
    found = planted_source(SOURCE, [edit("Door.close", "return True", "return False")])
    assert found == SOURCE.replace(
        "def close(self):\n        return True", "def close(self):\n        return False"
    )


def test_lines_take_the_place_of_lines_at_their_indentation() -> None:
    old = "if self.is_locked:\n    return False"
    found = planted_source(SOURCE, [edit("Door.open", old, "if 1:\n    pass\nelse:\n    pass")])
    assert "        if 1:\n            pass\n        else:\n            pass\n" in found
    compile(found, "door", "exec")


@pytest.mark.parametrize(
    ("function", "old"),
    [
        ("Door.open", "return None"),
        ("Door.open", "return"),
        ("Door.lock", "return True"),
        ("open", "return True"),
    ],
)
def test_what_is_not_there_exactly_once_is_a_stale_bug(function: str, old: str) -> None:
    with pytest.raises(StaleBug, match="can't be planted any more: adapt it"):
        planted_source(SOURCE, [edit(function, old)])


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_bug_can_still_be_planted(bug: Bug) -> None:
    for module in {one.module for one in bug.edits}:
        mine = [one for one in bug.edits if one.module == module]
        source = mine[0].path.read_text(encoding="utf-8")
        found = planted_source(source, mine)
        assert found != source
        compile(found, str(mine[0].path), "exec", dont_inherit=True)


def test_names_are_unique_and_stories_are_sentences() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 30
    for bug in BUGS:
        assert bug.story.endswith((".", ")")) and bug.story[0].isupper()
        assert bug.is_simulated or bug.test is not None, f"nobody looks for {bug.name}"
