"""Version 1 of the protocol, frozen: the names to import.

Owns nothing but the list. ``v1_layout`` has the fixed fields, ``v1_requests`` what
the published SDKs send, ``v1_replies`` what they decode;
``docs/reference/wire-v1.md`` gives every byte. The same functions as in ``v2``, so a
connection picks one of the two modules and goes on.
"""

from unimeter.wire.v1_replies import (
    can_push,
    decode_push,
    decode_response,
    encode_push,
    encode_response,
    ingest_status,
)
from unimeter.wire.v1_requests import (
    can_carry,
    decode_ingest,
    decode_request,
    encode_ingest,
    encode_request,
    has_all_timestamps,
)

__all__ = [
    "can_carry",
    "can_push",
    "decode_ingest",
    "decode_push",
    "decode_request",
    "decode_response",
    "encode_ingest",
    "encode_push",
    "encode_request",
    "encode_response",
    "has_all_timestamps",
    "ingest_status",
]
