# C declarations of fold.py.

from unimeter.engine.tables cimport Index
from unimeter.engine.totals cimport Totals

cdef class Tallies:
    cdef public Py_ssize_t count
    cdef object words
    cdef unsigned long long[::1] acc
    cdef void merge(self, unsigned long long[::1] cells, Py_ssize_t at, Py_ssize_t to) noexcept nogil

cdef class MemberSet:
    cdef public Py_ssize_t count, found
    cdef public unsigned long long period, window
    cdef Index index
    cdef object words
    cdef unsigned long long[::1] rows
    cdef void take(self, unsigned long long member, unsigned long long ts, unsigned long long state) noexcept nogil
