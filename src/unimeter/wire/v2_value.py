"""A total as version 2 writes it: the same bytes in answers and in pushes."""

from __future__ import annotations

import struct
from typing import Final

from unimeter.types import AggValue
from unimeter.wire.codec import Reader, Writer, join_i128, split_i128

VALUE: Final = struct.Struct("<QqQqqqqQQ")


def put_value(writer: Writer, value: AggValue) -> None:
    """Write a total."""
    low, high = split_i128(value.sum, "sum")
    writer.pack(
        VALUE,
        "total",
        low,
        high,
        value.count,
        value.max,
        value.min,
        value.last_value,
        value.last_timestamp,
        value.alert_flags,
        value.unique,
    )


def get_value(reader: Reader) -> AggValue:
    """Read one."""
    low, high, count, most, least, last, last_ns, flags, unique = reader.unpack(VALUE, "total")
    return AggValue(join_i128(low, high), count, most, last, last_ns, flags, least, unique)
