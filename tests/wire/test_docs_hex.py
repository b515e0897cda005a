"""The protocol pages and the code say the same bytes.

Every example has its block on its version's page, under a bold caption, and every
block is an example. ``UNIMETER_WRITE_DOCS=1`` rewrites the blocks from the code;
commit a rewritten one only if every changed line can be explained.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.wire import hexdump
from tests.wire.examples import EXAMPLES, Example

from unimeter.types import Outcome
from unimeter.wire import framer
from unimeter.wire.messages import ErrorCode, PacketType, Status

PAGES = Path(__file__).parents[2] / "docs" / "reference"
BLOCK = re.compile(r"^\*\*([^*\n]+)\*\*\n\n```hex\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_of(version: int) -> Path:
    return PAGES / f"wire-v{version}.md"


def blocks_of(version: int) -> dict[str, str]:
    return dict(BLOCK.findall(page_of(version).read_text("utf-8")))


def rewrite(version: int) -> None:
    by_caption = {each.caption: each for each in EXAMPLES if each.version == version}
    text = BLOCK.sub(
        lambda found: f"**{found[1]}**\n\n```hex\n{hexdump.write(by_caption[found[1]])}```",
        page_of(version).read_text("utf-8"),
    )
    page_of(version).write_text(text, "utf-8")


if os.environ.get("UNIMETER_WRITE_DOCS"):
    rewrite(1)
    rewrite(2)


def name_of(example: Example) -> str:
    return f"v{example.version} {example.caption}"


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_the_page_shows_the_bytes_that_the_code_writes(example):
    blocks = blocks_of(example.version)
    assert example.caption in blocks, f"{page_of(example.version)} lacks it"
    assert hexdump.read(blocks[example.caption]) == example.frame()
    assert blocks[example.caption] == hexdump.write(example), "the notes beside the bytes are old"


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_the_bytes_on_the_page_decode_to_the_message(example):
    frame = hexdump.read(blocks_of(example.version)[example.caption])
    if example.direction == "request":
        header = framer.parse_request_header(frame)
        assert header.packet_type == example.packet_type
        assert header.version == example.version
        payload = frame[framer.REQUEST_HEADER_BYTES :]
        assert header.length == len(payload)
    else:
        reader = framer.ResponseFramer()
        reader.receive_data(frame)
        response = reader.next_frame()
        assert response.is_push == (example.direction == "push")
        assert response.version == example.version
        payload = response.payload
    assert example.decode(payload) == example.message


@pytest.mark.parametrize("version", [1, 2])
def test_every_block_is_an_example_and_captions_are_unique(version):
    captions = [caption for caption, _ in BLOCK.findall(page_of(version).read_text("utf-8"))]
    expected = [each.caption for each in EXAMPLES if each.version == version]
    assert sorted(captions) == sorted(expected)
    assert page_of(version).read_text("utf-8").count("```hex") == len(captions)


@pytest.mark.parametrize("version", [1, 2])
def test_every_packet_type_of_the_version_is_named(version):
    text = page_of(version).read_text("utf-8")
    only_v2 = {"HELLO", "ACCOUNTS_LIST", "USAGE_SERIES", "MEMBERS_LIST", "TRANSFER_LEADER"}
    only_v2 |= {"WATCH", "TOTAL_PUSH"} | {kind.name for kind in PacketType if kind >= 0x50}
    for kind in PacketType:
        if version == 2 or kind.name not in only_v2:
            assert f"| {kind.name} | 0x{kind:02x} |" in text


def test_every_status_error_code_and_outcome_is_explained():
    text = page_of(2).read_text("utf-8")
    for names in (Status, ErrorCode, Outcome):
        for name in names:
            assert f"| {int(name)} | {name.name} |" in text, name
