"""The page about the protocol between nodes and the code say the same bytes.

``UNIMETER_WRITE_DOCS=1`` rewrites the blocks from the code; commit a rewritten one only
if every changed line can be explained.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.wire import hexdump

from unimeter import limits
from unimeter.raft.messages import MSG_APP, MSG_SNAP, Entry, Message, Snapshot, SnapshotMeta
from unimeter.server.peer_codec import (
    decode_fetch,
    decode_fetched,
    decode_message,
    encode_fetch,
    encode_fetched,
    encode_message,
)
from unimeter.wire.peer import (
    FETCH,
    FETCHED,
    HEADER_BYTES,
    PING,
    RAFT,
    SNAPSHOT_RESUME,
    SNAPSHOT_VERDICT,
    Fault,
    FrameKind,
    PeerFramer,
    frame_buffers,
    frame_of,
)
from unimeter.wire.peer_handshake import Handshake
from unimeter.wire.peer_hello import Membership, PeerHello, decode_hello
from unimeter.wire.peer_snapshot import (
    Resume,
    Step,
    Verdict,
    chunk_frame,
    decode_chunk,
    decode_offer,
    decode_resume,
    decode_verdict,
    offer_frame,
    resume_frame,
    verdict_frame,
)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "peer-protocol.md"
BLOCK = re.compile(r"^\*\*([^*\n]+)\*\*\n\n```hex\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SECRET = b"an example of a cluster's secret"
NONCES = {True: b"\x11" * 32, False: b"\x22" * 32}
ONE = PeerHello(
    cluster_id=bytes(range(16)),
    node_id=1,
    members=(1, 2, 3),
    format_version=1,
    incarnation=258,
    process=0x0101,
    term=4,
    last_index=1000,
    commit=998,
    clock_ns=1_767_225_600 * 10**9,
    advertise="a:7001",
    address="a:7101",
)
TWO = PeerHello(
    cluster_id=bytes(range(16)),
    node_id=2,
    members=(1, 2, 3),
    format_version=1,
    incarnation=772,
    process=0x0202,
    membership=Membership.RECOVERING,
    term=3,
    last_index=900,
    commit=900,
    clock_ns=1_767_225_600 * 10**9,
    advertise="b:7001",
    address="b:7101",
)
APPEND = Message(
    MSG_APP, 2, 1, 4, 4, 1000, [Entry(1001, 4, 3, 1_767_225_600 * 10**9, b"body")], 998
)
SNAP = Message(MSG_SNAP, 2, 1, 4, snapshot=Snapshot(SnapshotMeta(900, 3, (1, 2, 3))))
TRANSFER = 0x1234
RESUME = Resume(TRANSFER, 80, Step.AGAIN, "bad")
VERDICT = Verdict(TRANSFER, "")

HEADER = "payload length:4,kind:1,flags:1,check:2,checksum:4"
HELLO_FIELDS = (
    "version:2,format:2,cluster id:16,node id:8,incarnation:8,process:8,membership:1,term:8,"
    "last index:8,commit:8,clock:8,member count:1,member:8,member:8,member:8,"
    "advertise length:1,advertise:6,address length:1,address:6,proof:32"
)
MESSAGE_FIELDS = (
    "type:1,flags:1,context length:2,entry count:4,to:8,sender:8,term:8,log term:8,index:8,"
    "commit:8,vote:8,reject hint:8"
)
ENTRY_FIELDS = "index:8,term:8,timestamp:8,body length:4,kind:2,zero:2"


def sides(sentence: str = "") -> tuple[Handshake, Handshake]:
    """The two sides of the page's handshake."""

    def side(is_dialler: bool, hello: PeerHello) -> Handshake:
        return Handshake(
            is_dialler=is_dialler,
            secret=SECRET,
            nonce=NONCES[is_dialler],
            hello=lambda: hello,
            judge=lambda own, other: "" if is_dialler else sentence,
        )

    return side(True, ONE), side(False, TWO)


def parts(data: bytes) -> tuple[int, bytes]:
    """(kind, payload) of a whole frame, checked."""
    framer = PeerFramer(1 << 20)
    framer.receive_data(data)
    frame = framer.next_frame()
    assert frame is not None and framer.buffered == 0
    return frame[0], bytes(frame[1])


def handshake(sentence: str = "") -> list[bytes]:
    """All frames of the page's handshake."""
    dialler, other = sides(sentence)
    frames = [dialler.begin()]
    while not (dialler.has_ended and other.has_ended):
        side = other if len(frames) % 2 else dialler
        frames.append(side.receive(*parts(frames[-1])))
    return [frame for frame in frames if frame]


@dataclass(frozen=True)
class Example:
    """One block of the page."""

    caption: str
    frame: bytes
    fields: str
    decode: Callable[[memoryview], Any]
    message: Any

    def block(self) -> str:
        lines, position = [], 0
        for entry in f"{HEADER},{self.fields}".split(","):
            label, size = entry.rsplit(":", 1)
            if int(size):
                lines += hexdump._lines(self.frame[position : position + int(size)], label)
            position += int(size)
        assert position == len(self.frame), f"{self.caption}: {position} of {len(self.frame)}"
        return "\n".join(lines) + "\n"


def joined(buffers: list[Any]) -> bytes:
    return b"".join(buffers)


OPEN_FIELDS = "magic:8,version min:1,version max:1,zero:2,nonce:32"
GOOD = handshake()
EXAMPLES = [
    Example("OPEN of the node that dials", GOOD[0], OPEN_FIELDS, bytes, GOOD[0][HEADER_BYTES:]),
    Example("OPEN of the node that was dialled", GOOD[1], OPEN_FIELDS, bytes, GOOD[1][12:]),
    Example("HELLO of the node that dials", GOOD[2], HELLO_FIELDS, decode_hello, ONE),
    Example("HELLO of the node that was dialled", GOOD[3], HELLO_FIELDS, decode_hello, TWO),
    Example("WELCOME", GOOD[4], "proof:32", bytes, GOOD[4][HEADER_BYTES:]),
    Example(
        "REFUSED",
        handshake("no room")[3],
        "sentence:7,proof:32",
        lambda payload: bytes(payload[:7]),
        b"no room",
    ),
    Example("PING", frame_of(PING), "nothing:0", bytes, b""),
    Example(
        "RAFT, an append of one entry",
        joined(frame_buffers(RAFT, encode_message(APPEND))),
        f"{MESSAGE_FIELDS},{ENTRY_FIELDS},body:4",
        decode_message,
        APPEND,
    ),
    Example("FETCH", frame_of(FETCH, encode_fetch(41)), "index:8", decode_fetch, 41),
    Example(
        "FETCHED",
        joined(frame_buffers(FETCHED, encode_fetched(APPEND.entries[0]))),
        f"{ENTRY_FIELDS},body:4",
        decode_fetched,
        APPEND.entries[0],
    ),
    Example("FETCHED, no such entry", frame_of(FETCHED), "nothing:0", decode_fetched, None),
    Example(
        "SNAPSHOT_OFFER",
        joined(offer_frame(TRANSFER, 1_000_000, encode_message(SNAP))),
        f"transfer:8,size:8,{MESSAGE_FIELDS},snapshot index:8,snapshot term:8,voter count:2,"
        "voter:8,voter:8,voter:8",
        lambda payload: decode_message(decode_offer(payload).message),
        SNAP,
    ),
    Example(
        "SNAPSHOT_RESUME",
        joined(resume_frame(RESUME)),
        "transfer:8,offset:8,step:1,reason:3",
        decode_resume,
        RESUME,
    ),
    Example(
        "SNAPSHOT_CHUNK",
        joined(chunk_frame(TRANSFER, 80, b"bytes")),
        "transfer:8,offset:8,checksum of the chunk:4,data:5",
        lambda payload: (decode_chunk(payload).is_intact, bytes(decode_chunk(payload).data)),
        (True, b"bytes"),
    ),
    Example(
        "SNAPSHOT_VERDICT",
        joined(verdict_frame(VERDICT)),
        "transfer:8,ok:1",
        decode_verdict,
        VERDICT,
    ),
]


def blocks() -> dict[str, str]:
    return dict(BLOCK.findall(PAGE.read_text("utf-8")))


if os.environ.get("UNIMETER_WRITE_DOCS"):
    by_caption = {each.caption: each for each in EXAMPLES}
    text = BLOCK.sub(
        lambda found: f"**{found[1]}**\n\n```hex\n{by_caption[found[1]].block()}```",
        PAGE.read_text("utf-8"),
    )
    PAGE.write_text(text, "utf-8")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.caption)
def test_the_page_shows_the_bytes_that_the_code_writes(example: Example) -> None:
    assert example.caption in blocks(), f"{PAGE.name} lacks it"
    assert hexdump.read(blocks()[example.caption]) == example.frame
    assert blocks()[example.caption] == example.block(), "the notes beside the bytes are old"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.caption)
def test_the_bytes_on_the_page_decode_to_the_message(example: Example) -> None:
    _, payload = parts(hexdump.read(blocks()[example.caption]))
    assert example.decode(memoryview(payload)) == example.message


def test_every_block_is_an_example_and_captions_are_unique() -> None:
    captions = [caption for caption, _ in BLOCK.findall(PAGE.read_text("utf-8"))]
    assert sorted(captions) == sorted(each.caption for each in EXAMPLES)
    assert PAGE.read_text("utf-8").count("```hex") == len(captions)


def test_the_handshake_on_the_page_is_one_that_is_accepted() -> None:
    dialler, other = sides()
    assert dialler.begin() == hexdump.read(blocks()["OPEN of the node that dials"])
    for caption, side in (
        ("OPEN of the node that dials", other),
        ("OPEN of the node that was dialled", dialler),
        ("HELLO of the node that dials", other),
        ("HELLO of the node that was dialled", dialler),
        ("WELCOME", other),
    ):
        side.receive(*parts(hexdump.read(blocks()[caption])))
    assert dialler.is_done and other.is_done
    assert (dialler.peer, other.peer) == (TWO, ONE)
    assert SECRET.decode() in PAGE.read_text("utf-8"), "the page says its secret"


def test_every_kind_step_and_fault_is_explained() -> None:
    text = PAGE.read_text("utf-8")
    for kind in FrameKind:
        assert f"| {kind.name} | {int(kind)} |" in text
    for step in Step:
        assert f"| {step.name} | {int(step)} |" in text
    for fault in Fault:
        assert f"| closed_{fault.name.lower()} |" in text
    assert int(SNAPSHOT_RESUME) == 25 and int(SNAPSHOT_VERDICT) == 27


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    for value in (
        limits.PEER_HANDSHAKE_BYTES_MAX,
        limits.PEER_FRAME_BYTES_MAX,
        limits.PEER_OUT_BYTES_MAX,
        limits.SNAPSHOT_CHUNK_BYTES,
        limits.SNAPSHOT_WINDOW_BYTES,
    ):
        assert f"{value:,}" in text, value
