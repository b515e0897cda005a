"""Annotated hex, as the protocol pages show it: written from an example, and read back.

    2a 00*7                # account
    repeat 96 x 255        # the last 96 bytes, 255 more times

``00*7`` is a byte seven times. What follows ``#`` is for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from unittest import mock

from tests.wire.examples import Example

from unimeter.wire import codec, v2_ingest, v2_replies, v2_requests

BYTES_PER_LINE = 16
COMMENT_COLUMN = 50

# What one read of a fixed layout holds, by the reader's name for it and its size.
PARTS = {
    ("ingest head", 40): "session high:8,session low:8,sequence:8,event count:4,flags:4,"
    "metric count:2,account count:2,tagset count:2,columns:2",
    ("ingest reply", 24): "last offset:8,stored:4,duplicates:4,refused:4,run count:2,flags:2",
    ("min_position and flags", 9): "min_position:8,read flags:1",
    ("time range", 16): "start:8,end:8",
    ("window", 16): "window start:8,window end:8",
    ("hello", 8): "version min:1,version max:1,padding:2,features:4",
    ("hello", 44): "version:1,padding:1,node id:2,features:4,cluster id:16,frame bytes max:4,"
    "events per batch max:4,page items max:4,session window:2,key window days:2,"
    "session keep seconds:2,padding:2",
    ("metric definition", 14): "aggregation:1,recurring:1,period type:1,cycle day:1,resolution:1,"
    "padding:1,period in ns:8",
    ("total", 72): "sum low:8,sum high:8,count:8,max:8,min:8,last value:8,last timestamp:8,"
    "alert flags:8,unique:8",
    ("event", 25): "offset:8,timestamp:8,value:8,operation:1",
    ("alert", 49): "position:8,event offset:8,value at the crossing low:8,high:8,"
    "event timestamp:8,period start:8,direction:1",
    ("watch", 21): "flags:1,after:8,entry:8,interval in ms:4",
    ("place", 16): "after:8,entry:8",
    ("push", 17): "after:8,entry:8,kind:1",
    ("range of a total", 17): "aggregation:1,start:8,end:8",
    ("node status", 32): "node id:2,node count:2,segments:4,log offset:8,aggregate keys:8,"
    "uptime in ns:8",
    ("partition run", 16): "run length:2,term:4,commit:8,role:1,leader:1",
    ("cluster", 20): "cluster id:16,leader:2,nodes count:2",
    ("node", 96): "node id:2,role:1,membership:1,heard ms ago:4,term:8,last index:8,commit:8,"
    "applied:8,match:8,lag:8,disk free:8,disk used:8,hash index:8,state hash:16",
    ("error", 10): "code:2,zero:2,retry after in ms:4,text length:2",
}


def read(block: str) -> bytes:
    """The bytes that a block stands for."""
    data = bytearray()
    for line in block.splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["repeat"]:
            size, times = int(words[1]), int(words[3])
            data += data[-size:] * times
            continue
        for word in words:
            value, _, times = word.partition("*")
            assert re.fullmatch("[0-9a-f]{2}", value), f"{word!r} is not a byte"
            data += bytes.fromhex(value) * int(times or 1)
    return bytes(data)


def write(example: Example) -> str:
    """The block that shows `example`, field by field."""
    frame = example.frame()
    lines: list[str] = []
    position = 0
    for label, size in fields_of(example):
        lines += _lines(frame[position : position + size], label)
        position += size
    if example.repeat:
        size, times = (int(word) for word in example.repeat.split(" x "))
        lines += [_line(f"repeat {size} x {times}", f"the other {times} partitions")]
        position += size * times
    assert position == len(frame), f"{example.caption}: {position} of {len(frame)} bytes named"
    return "\n".join(lines) + "\n"


def fields_of(example: Example) -> Iterator[tuple[str, int]]:
    """(label, size) of every field of the frame."""
    if example.direction == "request":
        header = "magic:4,version:1,packet type:1,{},payload length:4,request id:4"
        yield from _parse(header.format("partition:2" if example.version == 1 else "zero:2"))
    else:
        first = "packet type" if example.direction == "push" else "status"
        second = "padding:3" if example.version == 1 else "version:1,zero:2"
        yield from _parse(f"{first}:1,{second},request id:4,payload length:4")
    if example.version == 1:
        yield from _parse(example.fields)
    else:
        yield from _traced(example)


def _parse(fields: str) -> Iterator[tuple[str, int]]:
    for entry in filter(None, fields.split(",")):
        label, size = entry.rsplit(":", 1)
        yield label, int(size)


def _traced(example: Example) -> list[tuple[str, int]]:
    """The fields in the order in which our own reader asks for them."""
    trace: list[tuple[str, int]] = []

    class Tracing(codec.Reader):
        def unpack(self, layout, what):
            trace.append((what, layout.size))
            return super().unpack(layout, what)

        def take(self, size, what):
            trace.append((what, size))
            return super().take(size, what)

        def u8(self, what):
            trace.append((what, 1))
            return super().u8(what)

    with (
        mock.patch.object(v2_requests, "Reader", Tracing),
        mock.patch.object(v2_replies, "Reader", Tracing),
        mock.patch.object(v2_ingest, "Reader", Tracing),
    ):
        example.decode(example.encode())
    fields: list[tuple[str, int]] = []
    for what, size in trace:
        fields += _parse(PARTS.get((what, size), f"{what}:{size}"))
    return [field for field in fields if field[1]]


def _lines(data: bytes, label: str) -> list[str]:
    words: list[str] = []
    for value, run in groupby(data):
        length = len(list(run))
        words += [f"{value:02x}"] * length if length < 4 else [f"{value:02x}*{length}"]
    rows = [words[i : i + BYTES_PER_LINE] for i in range(0, len(words), BYTES_PER_LINE)]
    return [_line(" ".join(row), label if i == 0 else "") for i, row in enumerate(rows)]


def _line(words: str, label: str) -> str:
    return f"{words:<{COMMENT_COLUMN}}# {label}" if label else words
