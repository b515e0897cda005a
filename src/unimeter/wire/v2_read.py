"""What every read of version 2 begins with.

    min_position u64 | flags u8 (bit 0: linearizable)

`min_position` is the highest log position that the caller has seen; with the flag set the quorum
confirms a position first.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from unimeter.wire.codec import Reader, Writer
from unimeter.wire.messages import ProtocolError

_READ: Final = struct.Struct("<QB")
_IS_LINEARIZABLE: Final = 1


def put_read(writer: Writer, request: Any) -> None:
    """Append the two fields of a read."""
    flags = _IS_LINEARIZABLE * request.linearizable
    writer.pack(_READ, "min_position", request.min_position, flags)


def get_read(reader: Reader) -> dict[str, Any]:
    """The two fields, as the message's arguments."""
    min_position, flags = reader.unpack(_READ, "min_position and flags")
    if flags > _IS_LINEARIZABLE:
        raise ProtocolError(f"read flags are {flags:#x}; expected 0 or 1")
    return {"min_position": min_position, "linearizable": bool(flags)}
