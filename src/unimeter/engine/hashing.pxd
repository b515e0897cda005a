# C declarations of hashing.py, for kernels that call it without the GIL.

cdef unsigned long long M64

cdef unsigned long long spread(unsigned long long a, unsigned long long b) noexcept nogil

cdef class Hasher:
    cdef unsigned long long k0, k1
    cdef unsigned long long[::1] packed
    cdef public unsigned long long lo, hi
    cdef void hash_words(self, unsigned long long[::1] data, Py_ssize_t count, unsigned long long last) noexcept nogil
    cdef void hash_bytes(self, unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length) noexcept nogil
