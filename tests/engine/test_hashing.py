"""SipHash-2-4-128 against the vectors published with its reference implementation."""

from __future__ import annotations

import pytest

from unimeter.engine.hashing import Hasher

KEY = bytes(range(16))
VECTORS = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    2: "8177228da4a45dc7fca38bdef60affe4",
    15: "5493e99933b0a8117e08ec0f97cfc3d9",
    16: "6ee2a4ca67b054bbfd3315bf85230577",
}


@pytest.mark.parametrize("length", sorted(VECTORS))
def test_hash_equals_the_published_vector(length: int) -> None:
    assert Hasher(KEY).digest(bytes(range(length))).hex() == VECTORS[length]


def test_another_key_gives_another_hash() -> None:
    assert Hasher(bytes(16)).digest(b"event") != Hasher(KEY).digest(b"event")


def test_a_key_of_another_length_is_our_own_fault() -> None:
    with pytest.raises(AssertionError):
        Hasher(b"short")
