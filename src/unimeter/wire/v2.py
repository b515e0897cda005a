"""Version 2 of the protocol: the names to import.

Owns nothing but the list. ``v2_ingest`` has the batch and its columns,
``v2_requests`` the other requests, ``v2_replies`` the responses and pushes,
``v2_administration`` keys, webhooks and the trail, ``v2_on_behalf`` whose a request is;
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
from unimeter.wire.v2_on_behalf import WITH_ACTOR, decode_on_behalf, encode_on_behalf
from unimeter.wire.v2_replies import decode_push, decode_response, encode_push, encode_response
from unimeter.wire.v2_requests import decode_request, encode_request

__all__ = [
    "WITH_ACTOR",
    "Columns",
    "decode_ingest",
    "decode_on_behalf",
    "decode_push",
    "decode_request",
    "decode_response",
    "encode_columns",
    "encode_ingest",
    "encode_on_behalf",
    "encode_push",
    "encode_request",
    "encode_response",
    "session_of",
]
