"""The proof of the secret: who knows it gets in, who does not learns nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter.errors import InvalidInputError
from unimeter.wire import peer_hello
from unimeter.wire.peer import (
    HEADER_BYTES,
    HELLO,
    OPEN,
    REFUSED,
    WELCOME,
    Fault,
    PeerFramer,
    PeerProtocolError,
    frame_of,
)
from unimeter.wire.peer_handshake import Handshake
from unimeter.wire.peer_hello import (
    NO_CLUSTER,
    Membership,
    PeerHello,
    decode_hello,
    encode_hello,
    refusal_of,
)

SECRET = b"0123456789abcdef"
ONE = PeerHello(bytes(range(16)), 1, (1, 2, 3), 1, 11, 111, address="a:1")
TWO = replace(ONE, node_id=2, incarnation=22, process=222, address="b:1")


class Side:
    """One side, fed with bytes; keeps all that it sent."""

    def __init__(self, is_dialler, hello, secret=SECRET, nonce=None, sentence=""):
        self.judged = []
        self.sent = b""
        self.framer = PeerFramer(4096)
        self.handshake = Handshake(
            is_dialler=is_dialler,
            secret=secret,
            nonce=nonce or bytes([is_dialler + 1]) * 32,
            hello=lambda: hello,
            judge=lambda own, other: self.judged.append(other) or sentence,
        )
        self.out = self.handshake.begin()

    def receive(self, data):
        self.framer.receive_data(data)
        while (frame := self.framer.next_frame()) is not None:
            self.out += self.handshake.receive(*frame)

    def take(self):
        taken, self.out = self.out, b""
        self.sent += taken
        return taken


def sides(**options):
    return Side(True, ONE, **options), Side(False, TWO, nonce=b"n" * 32)


def shake(dialler, acceptor):
    """Let the two talk until nobody has anything to say."""
    while dialler.out or acceptor.out:
        acceptor.receive(dialler.take())
        dialler.receive(acceptor.take())


def fault_of(side, data):
    with pytest.raises(PeerProtocolError) as caught:
        side.receive(data)
    assert side.handshake.has_ended and not side.handshake.is_done
    return caught.value.fault


def record(stop_after=5):
    """What the dialler sent in a good handshake, frame by frame."""
    dialler, acceptor = sides()
    frames = []
    while dialler.out or acceptor.out:
        frames.append(dialler.take())
        acceptor.receive(frames[-1])
        dialler.receive(acceptor.take())
    return frames


def test_both_accept_each_other_and_have_heard_each_others_hello():
    dialler, acceptor = sides()
    shake(dialler, acceptor)
    assert dialler.handshake.is_done and acceptor.handshake.is_done
    assert (dialler.handshake.peer, acceptor.handshake.peer) == (TWO, ONE)
    assert (dialler.judged, acceptor.judged) == ([TWO], [ONE])


def test_another_secret_is_not_let_in_and_learns_32_random_bytes_only():
    dialler, acceptor = sides(secret=b"another secret of 16")
    acceptor.receive(dialler.take())
    opening = acceptor.take()
    dialler.receive(opening)
    assert fault_of(acceptor, dialler.take()) is Fault.PROOF
    assert acceptor.out == b"" and acceptor.judged == []
    assert opening == frame_of(OPEN, b"UNIMPEER\x01\x01\0\0" + b"n" * 32)


def test_a_dialler_does_not_believe_a_node_that_does_not_know_the_secret():
    dialler = Side(True, ONE)
    impostor = Side(False, TWO, secret=b"another secret of 16")
    impostor.receive(dialler.take())
    dialler.receive(impostor.take())
    forged = impostor.handshake._prove(HELLO, encode_hello(TWO))
    assert fault_of(dialler, forged) is Fault.PROOF
    assert dialler.judged == []


def test_a_recorded_handshake_opens_nothing():
    opening, hello, _ = record()
    acceptor = Side(False, TWO, nonce=b"m" * 32)  # another nonce, as each time
    acceptor.receive(opening)
    acceptor.take()
    assert fault_of(acceptor, hello) is Fault.PROOF


def test_a_message_sent_back_to_its_sender_proves_nothing():
    dialler = Side(True, ONE)
    opening = dialler.take()
    dialler.receive(opening)  # its own OPEN, as if the other had the same nonce
    assert fault_of(dialler, dialler.take()) is Fault.PROOF


def test_the_proof_covers_the_other_sides_hello():
    dialler, acceptor = sides()
    acceptor.receive(dialler.take())
    dialler.receive(acceptor.take())
    acceptor.receive(dialler.take())
    answer = acceptor.take()
    # Somebody in between who knew a proof for another transcript could not use it here.
    other_dialler, other_acceptor = Side(True, replace(ONE, term=5)), sides()[1]
    other_acceptor.receive(other_dialler.take())
    other_dialler.receive(other_acceptor.take())
    other_acceptor.receive(other_dialler.take())
    assert fault_of(dialler, other_acceptor.take()) is Fault.PROOF
    assert answer != b""


def test_every_flipped_bit_of_every_frame_ends_the_handshake():
    frames = record()
    for number, frame in enumerate(frames):
        for bit in range(8 * len(frame)):
            acceptor = Side(False, TWO, nonce=b"n" * 32)
            for before in frames[:number]:
                acceptor.receive(before)
            broken = bytearray(frame)
            broken[bit // 8] ^= 1 << bit % 8
            with pytest.raises(PeerProtocolError):
                acceptor.receive(bytes(broken))
            assert not acceptor.handshake.is_done


def test_every_flipped_bit_under_a_right_checksum_ends_the_handshake():
    frames = record()
    for number, frame in enumerate(frames):
        kind, payload = frame[4], frame[HEADER_BYTES:]
        for bit in range(8 * len(payload)):
            acceptor = Side(False, TWO, nonce=b"n" * 32)
            for before in frames[:number]:
                acceptor.receive(before)
            broken = bytearray(payload)
            broken[bit // 8] ^= 1 << bit % 8
            try:
                acceptor.receive(frame_of(kind, bytes(broken)))
            except PeerProtocolError:
                continue
            # Only an OPEN has bytes that mean nothing by themselves: the proof covers them.
            assert number == 0
            acceptor.take()
            assert fault_of(acceptor, frames[1]) is Fault.PROOF


@pytest.mark.parametrize("kind", [HELLO, WELCOME, REFUSED, 8, 200])
def test_nothing_but_an_opening_comes_first(kind):
    acceptor = Side(False, TWO)
    assert fault_of(acceptor, frame_of(kind, bytes(64))) is Fault.KIND
    assert acceptor.out == b""


def test_frames_after_the_opening_need_a_proof_of_full_length():
    for payload in (b"", bytes(31), bytes(32), bytes(500)):
        acceptor = Side(False, TWO)
        acceptor.receive(frame_of(OPEN, b"UNIMPEER\x01\x01\0\0" + bytes(32)))
        assert fault_of(acceptor, frame_of(HELLO, payload)) is Fault.PROOF


def test_versions_that_do_not_meet_are_told_apart_from_garbage():
    for low, high in ((2, 3), (0, 0)):
        acceptor = Side(False, TWO)
        opening = frame_of(OPEN, b"UNIMPEER" + bytes([low, high, 0, 0]) + bytes(32))
        assert fault_of(acceptor, opening) is Fault.VERSION
    acceptor = Side(False, TWO)
    acceptor.receive(frame_of(OPEN, b"UNIMPEER\x01\x09\0\0" + bytes(32)))
    assert acceptor.out != b""
    for payload in (b"UNIMPEEK\x01\x01\0\0" + bytes(32), b"GET / HTTP/1.1\r\n", b""):
        assert fault_of(Side(False, TWO), frame_of(OPEN, payload)) is Fault.MAGIC


@pytest.mark.parametrize("by_dialler", [True, False])
def test_a_refusal_reaches_the_other_side_as_a_sentence(by_dialler):
    sentence = "node 2 is not wanted here \N{EM DASH} really"
    dialler = Side(True, ONE, sentence=sentence if by_dialler else "")
    acceptor = Side(False, TWO, sentence="" if by_dialler else sentence)
    shake(dialler, acceptor)
    refusing, refused = (dialler, acceptor) if by_dialler else (acceptor, dialler)
    assert refusing.handshake.refused == sentence
    assert refused.handshake.refusal == sentence
    assert not refusing.handshake.is_done and not refused.handshake.is_done
    assert refusing.handshake.has_ended and refused.handshake.has_ended


def test_a_refusal_is_cut_between_characters_and_shown_on_one_line():
    dialler, acceptor = Side(True, ONE), Side(False, TWO, sentence="a\nb" + "\N{EURO SIGN}" * 400)
    shake(dialler, acceptor)
    assert dialler.handshake.refusal == "a?b" + "\N{EURO SIGN}" * 340


def test_a_short_secret_is_refused_with_the_rule():
    with pytest.raises(InvalidInputError, match="has 15 bytes; it needs at least 16"):
        Side(True, ONE, secret=bytes(15))


# --- hellos ----------------------------------------------------------------------------

u64 = st.integers(0, 2**64 - 1)
hellos = st.builds(
    PeerHello,
    cluster_id=st.binary(min_size=16, max_size=16),
    node_id=u64,
    members=st.sets(u64, max_size=9).map(lambda ids: tuple(sorted(ids))),
    format_version=st.integers(0, 2**16 - 1),
    incarnation=u64,
    process=u64,
    membership=st.sampled_from(list(Membership)),
    term=u64,
    last_index=u64,
    commit=u64,
    clock_ns=st.integers(-(2**63), 2**63 - 1),
    advertise=st.text(max_size=60),
    address=st.text(max_size=60),
    version=st.integers(0, 2**16 - 1),
)


@given(hellos, st.binary(max_size=20))
def test_a_hello_is_read_as_written_and_what_a_later_version_adds_is_ignored(hello, more):
    assert decode_hello(encode_hello(hello) + more) == hello


@given(hellos, st.data())
def test_a_cut_hello_is_refused(hello, data):
    whole = encode_hello(hello)
    with pytest.raises(PeerProtocolError) as caught:
        decode_hello(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert caught.value.fault is Fault.MALFORMED


@given(st.binary(max_size=200))
def test_garbage_is_a_hello_or_refused(garbage):
    try:
        decode_hello(garbage)
    except PeerProtocolError as error:
        assert error.fault is Fault.MALFORMED


def test_members_out_of_order_and_unknown_memberships_are_refused():
    good = encode_hello(ONE)
    at = peer_hello._FIXED.size
    swapped = good[:at] + good[at + 8 : at + 16] + good[at : at + 8] + good[at + 16 :]
    with pytest.raises(PeerProtocolError, match="do not ascend"):
        decode_hello(swapped)
    with pytest.raises(PeerProtocolError, match="membership 9"):
        decode_hello(good[:44] + b"\x09" + good[45:])


REFUSALS = [
    (replace(TWO, cluster_id=NO_CLUSTER), ""),  # has no data yet
    (TWO, ""),
    (
        replace(TWO, cluster_id=b"x" * 16),
        "node 1 belongs to cluster 000102030405060708090a0b0c0d0e0f, "
        "and node 2 belongs to cluster 78787878787878787878787878787878",
    ),
    (
        replace(TWO, format_version=2),
        "node 1 stores format 1, and node 2 stores format 2: run one release in a cluster",
    ),
    (
        replace(TWO, node_id=1),
        "node id 1 is used twice, at a:1 and at b:1: give each node an id of its own",
    ),
    (ONE, "node 1 has connected to itself: check the addresses of the peers"),
    (
        replace(TWO, members=(1, 2, 3, 4, 5)),
        "the members differ: node 1 was given 1, 2 and 3, and node 2 1, 2, 3, 4 and 5",
    ),
    (replace(TWO, node_id=7), "node 7 is not a member: node 1 was given 1, 2 and 3"),
]


@pytest.mark.parametrize(("other", "sentence"), REFUSALS)
def test_two_hellos_that_do_not_belong_together_are_refused_with_a_sentence(other, sentence):
    assert refusal_of(ONE, other) == sentence
