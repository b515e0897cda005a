# C declarations of keys.py, for the counting kernel.

from unimeter.engine.tables cimport unimeter_prefetch

cdef class KeyTable:
    cdef public Py_ssize_t size, old_size, origin, moved, used
    cdef public unsigned long long today
    cdef public dict counted
    cdef object words, meta_words, old_words, old_meta_words
    cdef unsigned long long[::1] slots, old_slots
    cdef unsigned int[::1] meta, old_meta
    cdef int claim(self, unsigned long long lo, unsigned long long hi, unsigned long long body) noexcept nogil
    cdef void touch(self, unsigned long long hi) noexcept nogil
    cdef unsigned long long age(self, unsigned int meta) noexcept nogil
    cdef void move_clusters(self, Py_ssize_t slots) noexcept nogil
