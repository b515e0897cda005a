"""Keyed hashing: SipHash-2-4 with a 128-bit result.

Event keys decide whether an event is counted. With an unkeyed hash a sender
could build two events that collide and have somebody's usage dropped, so the
key comes from the first entry of the log: secret from senders, equal on all
replicas. Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF"
(2012), and its reference implementation's 128-bit variant; the published test
vectors are in the tests.

`Hasher` takes whole 64-bit words, or bytes that it packs into words. `spread`
is the cheap mix for in-memory tables over keys that nobody outside chooses the
order of; it is seeded with the same secret.

Everything wraps at 64 bits. Compiled code wraps by itself, interpreted code by
the masks, so both give the same numbers. The mask is a local `ones`, made by a
cast, because the C compiler then sees a constant and drops it; a module's
variable would be loaded and applied some hundred times per hash.
"""

from __future__ import annotations

import cython

from unimeter.engine.memory import Words
from unimeter.limits import (
    PROPERTIES_PER_EVENT_MAX,
    PROPERTY_KEY_BYTES_MAX,
    PROPERTY_VALUE_BYTES_MAX,
)

# A whole tag set, the longest thing hashed: a count, and two lengths with each pair.
BYTES_MAX = 8 + PROPERTIES_PER_EVENT_MAX * (PROPERTY_KEY_BYTES_MAX + PROPERTY_VALUE_BYTES_MAX + 2)
M64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)
_C0 = cython.declare(cython.ulonglong, 0x736F6D6570736575)
_C1 = cython.declare(cython.ulonglong, 0x646F72616E646F6D)
_C2 = cython.declare(cython.ulonglong, 0x6C7967656E657261)
_C3 = cython.declare(cython.ulonglong, 0x7465646279746573)
_GOLD = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)
_MIX1 = cython.declare(cython.ulonglong, 0xBF58476D1CE4E5B9)
_MIX2 = cython.declare(cython.ulonglong, 0x94D049BB133111EB)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def spread(a: cython.ulonglong, b: cython.ulonglong) -> cython.ulonglong:
    """Mix two words into one (the finaliser of splitmix64)."""
    ones: cython.ulonglong = cython.cast(cython.ulonglong, -1)
    x: cython.ulonglong = a ^ ((b * _GOLD) & ones)
    x = ((x ^ (x >> 30)) * _MIX1) & ones
    x = ((x ^ (x >> 27)) * _MIX2) & ones
    return x ^ (x >> 31)


@cython.final
@cython.cclass
class Hasher:
    """SipHash-2-4-128 under one key; `lo` and `hi` hold the last result."""

    def __init__(self, key: bytes) -> None:
        assert len(key) == 16, "a SipHash key is 16 bytes"
        self.k0 = int.from_bytes(key[:8], "little")
        self.k1 = int.from_bytes(key[8:], "little")
        self.lo = 0
        self.hi = 0
        self.packed = Words(BYTES_MAX // 8).view

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def hash_words(
        self, data: cython.ulonglong[::1], count: cython.Py_ssize_t, last: cython.ulonglong
    ) -> None:
        """Hash the first `count` words and `last`, whose top byte is the length modulo 256."""
        v0: cython.ulonglong = self.k0 ^ _C0
        v1: cython.ulonglong = self.k1 ^ _C1 ^ 0xEE
        v2: cython.ulonglong = self.k0 ^ _C2
        v3: cython.ulonglong = self.k1 ^ _C3
        ones: cython.ulonglong = cython.cast(cython.ulonglong, -1)
        m: cython.ulonglong
        i: cython.Py_ssize_t
        r: cython.int
        rounds: cython.int
        # Two steps after the last word are the finalisation's halves.
        for i in range(count + 3):
            m = 0
            rounds = 2
            if i < count:
                m = data[i]
            elif i == count:
                m = last
            elif i == count + 1:
                v2 ^= 0xEE
                rounds = 4
            else:
                self.lo = v0 ^ v1 ^ v2 ^ v3
                v1 ^= 0xDD
                rounds = 4
            v3 ^= m
            for r in range(rounds):
                v0 = (v0 + v1) & ones
                v1 = ((v1 << 13) & ones) | (v1 >> 51)
                v1 ^= v0
                v0 = ((v0 << 32) & ones) | (v0 >> 32)
                v2 = (v2 + v3) & ones
                v3 = ((v3 << 16) & ones) | (v3 >> 48)
                v3 ^= v2
                v0 = (v0 + v3) & ones
                v3 = ((v3 << 21) & ones) | (v3 >> 43)
                v3 ^= v0
                v2 = (v2 + v1) & ones
                v1 = ((v1 << 17) & ones) | (v1 >> 47)
                v1 ^= v2
                v2 = ((v2 << 32) & ones) | (v2 >> 32)
            v0 ^= m
        self.hi = v0 ^ v1 ^ v2 ^ v3

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def hash_bytes(
        self, data: cython.uchar[::1], start: cython.Py_ssize_t, length: cython.Py_ssize_t
    ) -> None:
        """Hash bytes, at most BYTES_MAX of them, packed into words as the paper says."""
        i: cython.Py_ssize_t
        w: cython.ulonglong = 0
        for i in range(length):
            w |= cython.cast(cython.ulonglong, data[start + i]) << (8 * (i & 7))
            if (i & 7) == 7:
                self.packed[i >> 3] = w
                w = 0
        w |= cython.cast(cython.ulonglong, length & 0xFF) << 56
        self.hash_words(self.packed, length >> 3, w)

    def digest(self, data: bytes) -> bytes:
        """The 16-byte hash of `data`, as the reference implementation prints it."""
        assert len(data) <= BYTES_MAX, "longer than anything an entry names"
        view: cython.uchar[::1] = memoryview(bytearray(data or b"\0"))
        self.hash_bytes(view, 0, len(data))
        return int(self.lo).to_bytes(8, "little") + int(self.hi).to_bytes(8, "little")
