# C declarations of hashing.py, for kernels that call it without the GIL.

cdef unsigned long long M64

cdef unsigned long long spread(unsigned long long a, unsigned long long b) noexcept nogil

cdef class Hasher:
    cdef unsigned long long k0, k1, v0, v1, v2, v3
    cdef public unsigned long long lo, hi
    cdef void start(self) noexcept nogil
    cdef void rounds(self, int count) noexcept nogil
    cdef void word(self, unsigned long long m) noexcept nogil
    cdef void finish(self, unsigned long long last) noexcept nogil
    cdef void hash_bytes(self, unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length) noexcept nogil
    cdef void hash_words(self, unsigned long long[::1] data, Py_ssize_t count) noexcept nogil
