"""Asking the other nodes for one log entry, before this node is up.

Owns the repair's side of FETCH: a node whose log has a damaged entry can't open its directory,
so there is no loop, no raft and nobody to dial it. It asks on plain blocking sockets,
one peer after the other, with the same handshake as everybody else, and the answer
comes back on the same connection.

Refuses to believe what comes beyond its checksum: whether the entry is the one that the
damaged log needs is for the storage to compare.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from unimeter import limits
from unimeter.raft.messages import Entry
from unimeter.server.peer_codec import decode_fetched, encode_fetch
from unimeter.server.peer_dial import describe
from unimeter.wire.peer import (
    FETCH,
    FETCHED,
    Fault,
    PeerFramer,
    PeerProtocolError,
    frame_of,
)
from unimeter.wire.peer_handshake import NONCE_BYTES, Handshake
from unimeter.wire.peer_hello import PeerHello, refusal_of


def fetch_entry(
    addresses: Mapping[int, tuple[str, int]],
    secret: bytes,
    hello: PeerHello,
    index: int,
    timeout: float = 10.0,
    say: Callable[[str], None] = lambda sentence: None,
    tls: ssl.SSLContext | None = None,
) -> Entry | None:
    """The committed entry at `index` from the first peer that has it; None if none does.

    Blocks for `timeout` seconds at most. `say` is told why a peer did not help.
    """
    deadline = time.monotonic() + timeout
    hello = replace(hello, process=int.from_bytes(os.urandom(8), "little"))
    others = [(node, place) for node, place in sorted(addresses.items()) if node != hello.node_id]
    for number, (node, place) in enumerate(others):
        left = deadline - time.monotonic()
        share = left / (len(others) - number)  # a silent peer leaves the others their time
        if share <= 0:
            break
        try:
            entry = _ask(node, place, secret, hello, index, time.monotonic() + share, tls)
        except (OSError, PeerProtocolError) as error:
            say(f"node {node} at {place[0]}:{place[1]} can't be asked: {describe(error)}")
            continue
        if entry is not None:
            return entry
        say(f"node {node} at {place[0]}:{place[1]} has no entry {index} to give")
    return None


def _ask(
    node: int,
    place: tuple[str, int],
    secret: bytes,
    hello: PeerHello,
    index: int,
    deadline: float,
    tls: ssl.SSLContext | None,
) -> Entry | None:
    with _connect(place, deadline, tls) as sock:
        framer = PeerFramer(limits.PEER_HANDSHAKE_BYTES_MAX)
        _shake(sock, framer, secret, hello, node, deadline)
        framer.admit()
        sock.sendall(frame_of(FETCH, encode_fetch(index)))
        kind, payload = _frame(sock, framer, deadline)
        if kind != FETCHED:
            raise PeerProtocolError(Fault.KIND, f"a frame of kind {kind} instead of FETCHED")
        entry = decode_fetched(payload)
        if entry is not None and entry.index != index:
            raise PeerProtocolError(Fault.MALFORMED, f"entry {entry.index} instead of {index}")
        return entry


def _connect(place: tuple[str, int], deadline: float, tls: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(place, timeout=_left(deadline))
    if tls is None:
        return sock
    try:
        return tls.wrap_socket(sock, server_hostname=place[0])
    except BaseException:
        sock.close()
        raise


def _shake(
    sock: socket.socket,
    framer: PeerFramer,
    secret: bytes,
    hello: PeerHello,
    node: int,
    deadline: float,
) -> None:
    """The handshake, to its end; raises if either side does not want the other."""

    def judge(own: PeerHello, other: PeerHello) -> str:
        if other.node_id != node:
            return f"node {other.node_id} answers where node {node} should be"
        return refusal_of(own, other)

    handshake = Handshake(
        is_dialler=True,
        secret=secret,
        nonce=os.urandom(NONCE_BYTES),
        hello=lambda: hello,
        judge=judge,
    )
    sock.sendall(handshake.begin())
    while not handshake.has_ended:
        answer = handshake.receive(*_frame(sock, framer, deadline))
        if answer:
            sock.sendall(answer)
    if not handshake.is_done:
        raise OSError(handshake.refusal or handshake.refused)


def _frame(sock: socket.socket, framer: PeerFramer, deadline: float) -> tuple[int, memoryview]:
    """The next whole frame."""
    while (frame := framer.next_frame()) is None:
        sock.settimeout(_left(deadline))
        size = sock.recv_into(framer.get_buffer())
        if not size:
            raise OSError("it closed the connection")
        framer.received(size)
    return frame


def _left(deadline: float) -> float:
    """Seconds until the deadline; TimeoutError when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
