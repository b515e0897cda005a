"""How two nodes prove to each other that they know the cluster's secret, sans-I/O.

    dialler                              the other
      OPEN     versions, nonce    ──>
               <──                       OPEN     versions, nonce
      HELLO    hello, proof       ──>
               <──                       HELLO    hello, proof        or REFUSED
      WELCOME  proof              ──>                                 or REFUSED

Owns the order, the proofs and what is believed when. Refuses to own a socket, a
clock or chance: nonces are given, time limits are the caller's.

A proof is HMAC-SHA256 under the secret over who says it (dialler or not), the kind
of the frame and a SHA-256 of everything said so far by both, this frame's content
included. So it covers both nonces, and from the second on both hellos. A recorded
handshake is worth nothing: the other side's nonce is new each time. A message sent
back to its sender is worth nothing: the direction is part of the proof.

Who does not prove itself first learns nothing: the side that was dialled sends 32
random bytes, and after a wrong proof the connection is closed without a word.
Before a proof is checked, nothing of a hello is parsed.

Frames after the handshake carry a checksum and no proof: whoever can change packets
between two nodes needs to be kept out by the network (or TLS, which is not there yet).

Rejected: sending a keyed hash of the clock, because clocks differ and it can be
replayed within the tolerance; a password-authenticated key exchange, because the
secret is made by a machine and not by a person, so it can be long (16 bytes at least).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Final

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.wire.codec import Buffer, decode_text
from unimeter.wire.messages import ProtocolError
from unimeter.wire.peer import (
    HELLO,
    OPEN,
    PEER_VERSION,
    REFUSED,
    WELCOME,
    Fault,
    FrameKind,
    PeerProtocolError,
    frame_of,
)
from unimeter.wire.peer_hello import PeerHello, decode_hello, encode_hello

PEER_MAGIC: Final = b"UNIMPEER"
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
REFUSAL_BYTES_MAX: Final = 1024
_OPEN: Final = struct.Struct("<8sBBxx32s")  # magic, version min, version max, nonce
_SAID: Final = struct.Struct("<BBI")  # direction, kind, length: what precedes content in the hash
_LABEL: Final = b"unimeter peer proof 1"


def check_secret(secret: bytes) -> None:
    """Raise InvalidInputError for a secret that is too short to be one."""
    if len(secret) < limits.SECRET_BYTES_MIN:
        raise InvalidInputError(
            f"the cluster's secret has {len(secret)} bytes; it needs at least "
            f"{limits.SECRET_BYTES_MIN}, the same on every node"
        )


class Handshake:
    """One side of it. Give it frames; send what it answers; look at what came of it."""

    def __init__(
        self,
        *,
        is_dialler: bool,
        secret: bytes,
        nonce: bytes,
        hello: Callable[[], PeerHello],
        judge: Callable[[PeerHello, PeerHello], str],
    ) -> None:
        """`hello` says what this node says at that moment; `judge(own, other)` a refusal or ""."""
        check_secret(secret)
        assert len(nonce) == NONCE_BYTES
        self.is_dialler = is_dialler
        self.is_done = False  # both have proved themselves and accepted each other
        self.own: PeerHello | None = None  # what this side said
        self.peer: PeerHello | None = None  # proved, perhaps refused
        self.refusal = ""  # the peer's sentence to us
        self.refused = ""  # our sentence to the peer
        self._secret, self._nonce = secret, nonce
        self._hello, self._judge = hello, judge
        self._said = hashlib.sha256()
        # What may come next; empty once it has ended, one way or the other.
        self._expected: tuple[FrameKind, ...] = (OPEN,)

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing more to receive."""
        return not self._expected

    def begin(self) -> bytes:
        """What to send before anything was received: nothing, for the side that was dialled."""
        return self._open() if self.is_dialler else b""

    def receive(self, kind: int, payload: Buffer) -> bytes:
        """Take a frame; return what to send back, perhaps nothing.

        Raises PeerProtocolError, after which the connection must be closed without a
        word. Otherwise look at `is_done`, `refused` and `refusal`: after either of
        the latter it must be closed once what is returned was sent.
        """
        assert not self.has_ended
        try:
            if kind not in self._expected:
                raise PeerProtocolError(Fault.KIND, f"a frame of kind {kind} in the handshake")
            return self._take(kind, bytes(payload))
        except PeerProtocolError:
            self._expected = ()
            raise

    def refuse(self, sentence: str) -> bytes:
        """A refusal to send after the other has proved itself; nothing may follow it."""
        assert self.peer is not None
        self.refused, self.is_done, self._expected = sentence, False, ()
        content = sentence.encode("utf-8")[:REFUSAL_BYTES_MAX].decode("utf-8", "ignore").encode()
        return self._prove(REFUSED, content)

    # --- steps -------------------------------------------------------------------

    def _take(self, kind: int, payload: bytes) -> bytes:
        if kind == OPEN:
            return self._take_open(payload)
        content = self._check(kind, payload)
        if kind == HELLO:
            return self._take_hello(content)
        self._expected = ()
        if kind == REFUSED:
            self.refusal = _sentence(content)
            return b""
        if content:
            raise PeerProtocolError(Fault.MALFORMED, f"{len(content)} bytes in a WELCOME")
        self.is_done = True
        return b""

    def _open(self) -> bytes:
        content = _OPEN.pack(PEER_MAGIC, PEER_VERSION, PEER_VERSION, self._nonce)
        self._say(self.is_dialler, OPEN, content)
        return frame_of(OPEN, content)

    def _take_open(self, payload: bytes) -> bytes:
        if len(payload) != _OPEN.size or not payload.startswith(PEER_MAGIC):
            raise PeerProtocolError(Fault.MAGIC, "not a node of this kind: its OPEN is not ours")
        _, low, high, _ = _OPEN.unpack(payload)
        self._say(not self.is_dialler, OPEN, payload)
        if not low <= PEER_VERSION <= high:
            raise PeerProtocolError(
                Fault.VERSION,
                f"the peer speaks peer protocol {low} to {high}; this node speaks {PEER_VERSION}",
            )
        if not self.is_dialler:
            self._expected = (HELLO,)
            return self._open()
        self._expected = (HELLO, REFUSED)
        return self._send_hello()

    def _send_hello(self) -> bytes:
        if self.own is None:
            self.own = self._hello()
        return self._prove(HELLO, encode_hello(self.own))

    def _take_hello(self, content: bytes) -> bytes:
        self.peer = decode_hello(content)
        if self.own is None:
            self.own = self._hello()
        sentence = self._judge(self.own, self.peer)
        if sentence:
            return self.refuse(sentence)
        if not self.is_dialler:
            self._expected = (WELCOME, REFUSED)
            return self._send_hello()
        self._expected, self.is_done = (), True
        return self._prove(WELCOME, b"")

    # --- proofs ------------------------------------------------------------------

    def _say(self, by_dialler: bool, kind: int, content: bytes) -> None:
        """Add to what was said by both."""
        self._said.update(_SAID.pack(by_dialler, kind, len(content)))
        self._said.update(content)

    def _proof(self, by_dialler: bool, kind: int) -> bytes:
        text = _LABEL + bytes((by_dialler, kind)) + self._said.digest()
        return hmac.digest(self._secret, text, "sha256")

    def _prove(self, kind: int, content: bytes) -> bytes:
        self._say(self.is_dialler, kind, content)
        return frame_of(kind, content + self._proof(self.is_dialler, kind))

    def _check(self, kind: int, payload: bytes) -> bytes:
        """The content of a frame whose proof is right."""
        content, proof = payload[:-PROOF_BYTES], payload[-PROOF_BYTES:]
        self._say(not self.is_dialler, kind, content)
        if not hmac.compare_digest(proof, self._proof(not self.is_dialler, kind)):
            raise PeerProtocolError(Fault.PROOF, "the peer does not know this cluster's secret")
        return content


def _sentence(content: bytes) -> str:
    """A peer's refusal, fit to be shown: one line of printable text."""
    try:
        text = decode_text(content, "refusal")
    except ProtocolError as error:
        raise PeerProtocolError(Fault.MALFORMED, str(error)) from None
    return "".join(each if each.isprintable() else "?" for each in text) or "refused"
