"""The page and the trace of a run: everything is there, once, escaped, and nothing is fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from tests.sim import stand_ins

from unimeter.sim import page as page_module
from unimeter.sim.page import page
from unimeter.sim.picture import Picture
from unimeter.sim.result import Result
from unimeter.sim.story import Happening
from unimeter.sim.trace import SENTENCES, lanes, quiet_numbers, sentence, trace_lines

SVG = "{http://www.w3.org/2000/svg}"


def failed() -> Result:
    return stand_ins.sometimes_fails(7, keep=True)


def shapes(happenings: list[Happening], first: int = 0, ending: str = "") -> ElementTree.Element:
    text = Picture(happenings, first, ending).svg()
    return ElementTree.fromstring(text.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


def of_class(svg: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [one for one in svg.iter() if name in one.get("class", "").split()]


def number(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name])


class Tags(HTMLParser):
    """Checks that what is opened is closed, in order."""

    VOID = ("meta", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_fetches_nothing() -> None:
    text = page(failed(), "unimeter 1")
    tags = Tags(text)
    assert tags.open == []
    assert not [name for name, _ in tags.attributes if name in ("src", "href", "srcset", "action")]
    assert "@import" not in text and "url(http" not in text and "fetch(" not in text


def test_whatever_a_run_says_is_escaped() -> None:
    result = failed()
    result.failure = "<img src=x onerror=alert(1)>"
    result.options = {"<b>": "</style><script>"}
    result.happenings.append(Happening(10**9, 'ki"nd<', 'n1"><script>', ("</svg><script>",)))
    text = page(result)
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert Tags(text).open == []


def test_head_says_seed_verdict_failure_and_how_to_see_it_again() -> None:
    text = page(failed(), "unimeter 1")
    for words in (
        "<h1>seed 7 <b>FAILED</b></h1>", "NothingLost", "event 7 was acknowledged and is gone",
        "unimeter simulate --seed 7", "unimeter 1", "kill, rot",
    ):  # fmt: skip
        assert words in text
    assert "<b>PASSED</b>" in page(stand_ins.passes(1, keep=True))


def test_rows_and_shapes_carry_the_numbers_of_the_trace() -> None:
    result = failed()
    text = page(result)
    for place, line in enumerate(list(trace_lines(result))[1:]):
        assert line.startswith(f"#{place} ")
        assert f'id="h{place}"' in text
    drawn = {int(n) for n in re.findall(r'data-h="(\d+)"', text)}
    # A send is drawn by the line to its delivery; resume and reply end a box; alert has none.
    kinds = {result.happenings[place].kind for place in set(range(len(result.happenings))) - drawn}
    assert kinds <= {"send", "resume", "reply", "something new"}


def test_a_story_too_long_keeps_its_end_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "HAPPENINGS_MAX", 10)
    result = failed()
    text = page(result)
    left_out = len(result.happenings) - 10
    assert f"The first {left_out} happenings are left out" in text
    assert f'id="h{left_out}"' in text and f'id="h{left_out - 1}"' not in text


def test_a_run_without_happenings_has_a_page() -> None:
    assert Tags(page(stand_ins.passes(1))).open == []


def test_lanes_are_the_world_then_nodes_then_clients_by_number() -> None:
    assert lanes(stand_ins.story().happenings) == ["world", "n1", "n2", "n3", "c1", "c10"]


def test_a_box_lasts_from_start_to_the_end_of_the_process() -> None:
    happenings = stand_ins.story().happenings
    picture = Picture(happenings, 0, "")
    svg = shapes(happenings)
    boxes = {box.attrib["data-w"]: box for box in of_class(svg, "b-start")}
    ends = {"n1": "kill", "n2": "power", "n3": "power"}  # of the world: all lose it
    for who, kind in ends.items():
        end = next(n for n, one in enumerate(happenings) if one.kind == kind)
        bottom = number(boxes[who], "y") + number(boxes[who], "height")
        assert bottom == pytest.approx(picture.place(end), abs=0.2)


def test_a_box_that_began_before_the_picture_is_drawn_from_its_top() -> None:
    happenings = stand_ins.story().happenings
    killed = next(n for n, one in enumerate(happenings) if one.kind == "kill")
    svg = shapes(happenings, first=killed)
    assert {box.attrib["data-w"] for box in of_class(svg, "b-start")} == {"n1", "n2", "n3"}
    assert {number(box, "y") for box in of_class(svg, "b-start")} == {0.0}
    assert of_class(svg, "b-pause") == []  # was over


def test_a_pause_lies_over_the_leader_and_both_over_the_process() -> None:
    happenings = [
        Happening(0, "start", "n1", ()),
        Happening(1, "lead", "n1", (1,)),
        Happening(2, "pause", "n1", ("1",)),
        Happening(3, "resume", "n1", ()),
        Happening(4, "lead", "n2", (2,)),
        Happening(5, "kill", "n1", ()),
    ]
    classes = [one.get("class", "") for one in shapes(happenings).iter()]
    boxes = [name for name in classes if name.startswith("b-")]
    assert boxes == ["b-start", "b-lead", "b-lead", "b-pause"]


def test_a_pause_that_nobody_ends_lasts_as_long_as_it_said() -> None:
    happenings = [
        Happening(0, "start", "n1", ()),
        Happening(0, "pause", "n1", ("0.200",)),
        *(Happening(n * 10**8, "said", "n2", ("still here",)) for n in (1, 2, 3)),
    ]
    (pause,) = of_class(shapes(happenings), "b-pause")
    bottom = number(pause, "y") + number(pause, "height")
    assert bottom == pytest.approx(Picture(happenings, 0, "").place(3), abs=0.2)


def test_hosts_have_the_lanes_of_what_runs_on_them() -> None:
    cut = Happening(0, "cut", "10.0.0.2", ("10.0.1.12",))
    assert lanes([cut]) == ["n2"]
    assert sentence(cut) == "can't reach c12 any more"
    text = page(Result(1, "swarm", happenings=[cut]))
    assert "10.0." not in text and 'data-w="n2"' in text


def test_a_message_is_a_line_between_its_lanes_and_a_lost_one_ends_on_the_way() -> None:
    svg = shapes(stand_ins.story().happenings)
    arrived, quiet = of_class(svg, "m")
    (lost,) = of_class(svg, "drop")
    across = number(arrived, "x2") - number(arrived, "x1")
    assert across > 0 and number(arrived, "y2") > number(arrived, "y1")
    assert number(lost, "x2") - number(lost, "x1") == pytest.approx(across * 0.4)
    assert "quiet" in quiet.attrib["class"] and "quiet" not in arrived.attrib["class"]


def test_a_message_that_comes_twice_has_two_lines_from_one_place() -> None:
    happenings = [
        Happening(0, "send", "n1", ("n2", 1, "MsgApp", 9)),
        Happening(1000, "deliver", "n2", ("n1", 1, 9)),
        Happening(90_000_000, "deliver", "n2", ("n1", 1, 9)),
    ]
    first, second = of_class(shapes(happenings), "m")
    assert first.attrib["y1"] == second.attrib["y1"]
    assert number(first, "y2") < number(second, "y2")


def test_the_failure_is_written_across_the_end() -> None:
    happenings = stand_ins.story().happenings
    svg = shapes(happenings, ending="NothingLost: gone")
    (words,) = of_class(svg, "ending-words")
    assert words.text == "NothingLost: gone"
    assert number(words, "y") > Picture(happenings, 0, "").place(len(happenings) - 1)


def test_quiet_messages_are_quiet_from_sending_to_arrival() -> None:
    happenings = stand_ins.story().happenings
    quiet = [happenings[place] for place in sorted(quiet_numbers(happenings))]
    assert [(one.kind, one.words[1]) for one in quiet] == [("send", 3), ("deliver", 3)]


def test_every_kind_has_a_sentence_and_an_unknown_one_its_words() -> None:
    said = {one.kind: sentence(one) for one in stand_ins.story().happenings}
    assert said["lead"] == "becomes leader of term 1"
    assert said["deliver"] == "hears message 3 from n1 (84, 54321)"
    assert said["said"] == "says: took over the state at entry 2 in two lines"
    assert said["something new"] == "something new 0102 7"
    assert sentence(Happening(0, "commit", "n1", ())) == "commit"


@pytest.mark.parametrize("kind", SENTENCES)
def test_no_sentence_breaks_on_few_or_many_words(kind: str) -> None:
    assert sentence(Happening(0, kind, "n1", ()))
    many = sentence(Happening(0, kind, "n1", tuple(f"w{n}" for n in range(9))))
    assert all(f"w{n}" in many for n in range(9))


def test_trace_is_aligned_with_times_since_the_one_before() -> None:
    head, *lines = trace_lines(failed())
    at = head.index("who")
    assert all(line[at - 1] == " " and line[at] != " " for line in lines)
    assert lines[8].split()[:4] == ["#8", "0.202000", "+0.001000", "n1"]
