"""Version 2 of the protocol: the names to import.

Owns nothing but the list. ``v2_ingest`` has the batch and its columns,
``v2_requests`` the other requests, ``v2_replies`` the responses and pushes;
``docs/reference/wire-v2.md`` gives every byte. Everything here is a pure function
from a message to bytes or back.
"""

from unimeter.wire.v2_ingest import (
    Columns,
    decode_ingest,
    encode_columns,
    encode_ingest,
    session_of,
)
from unimeter.wire.v2_replies import decode_push, decode_response, encode_push, encode_response
from unimeter.wire.v2_requests import decode_request, encode_request

__all__ = [
    "Columns",
    "decode_ingest",
    "decode_push",
    "decode_request",
    "decode_response",
    "encode_columns",
    "encode_ingest",
    "encode_push",
    "encode_request",
    "encode_response",
    "session_of",
]
