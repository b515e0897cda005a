"""What a chunk of bytes on a fake connection is, in one word for the story.

    MsgApp 2          a Raft message with two entries
    ping              another frame between nodes
    request 3         a client's frame, with its packet type
    answer 0          an answer to one, with its status

Only the first bytes are looked at: a name is not worth decoding a message.
"""

from __future__ import annotations

from typing import Final

from unimeter.raft.messages import MessageType
from unimeter.wire.framer import MAGIC
from unimeter.wire.peer import HEADER_BYTES, RAFT, FrameKind

_KIND_AT: Final = 4  # in a frame between nodes
_ENTRIES_AT: Final = HEADER_BYTES + 4  # in a Raft message: how many entries it carries, a u32
_TYPE_AT: Final = 5  # in a client's frame
_MAGIC_BYTES: Final = MAGIC.to_bytes(4, "little")
_FRAMES: Final = {int(kind): kind.name.lower().replace("_", " ") for kind in FrameKind}
_MESSAGES: Final = {int(kind): str(kind) for kind in MessageType}


def frame_name(data: bytes, is_peer: bool) -> str:
    """The name of one write: between nodes it is one frame, of a client it may be a part."""
    if not is_peer:
        if data[:4] == _MAGIC_BYTES and len(data) > _TYPE_AT:
            return f"request {data[_TYPE_AT]}"
        return f"answer {data[0]}" if data else "nothing"
    if len(data) <= HEADER_BYTES or data[_KIND_AT] != RAFT:
        return _FRAMES.get(data[_KIND_AT], "bytes") if len(data) > _KIND_AT else "bytes"
    name = _MESSAGES.get(data[HEADER_BYTES], "raft")
    entries = int.from_bytes(data[_ENTRIES_AT : _ENTRIES_AT + 4], "little")
    return f"{name} {entries}" if entries else name
