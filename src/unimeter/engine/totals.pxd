# C declarations of totals.py, for the counting kernel.

from unimeter.engine.tables cimport Index, unimeter_prefetch

cdef unsigned long long PERIOD, ALL, STRING

cdef long long to_signed(unsigned long long word) noexcept nogil

cdef class Totals:
    cdef public unsigned long long seed
    cdef public Index series_index, cell_index, member_index
    cdef public Py_ssize_t series_count, cell_count, member_count
    cdef object series_words, cell_words, member_words
    cdef unsigned long long[::1] series, cells, members
    cdef unsigned long long series_tag(self, unsigned long long account, unsigned long long metric) noexcept nogil
    cdef void touch_series(self, unsigned long long slot) noexcept nogil
    cdef void touch_cell(self, Py_ssize_t series) noexcept nogil
    cdef Py_ssize_t find_series(self, unsigned long long account, unsigned long long metric, bint make) noexcept nogil
    cdef Py_ssize_t find_cell(self, Py_ssize_t series, unsigned long long combination, unsigned long long start, bint make) noexcept nogil
    cdef Py_ssize_t bucket(self, Py_ssize_t series, unsigned long long start) noexcept nogil
    cdef Py_ssize_t period(self, Py_ssize_t series, unsigned long long start) noexcept nogil
    cdef Py_ssize_t all_time(self, Py_ssize_t series) noexcept nogil
    cdef Py_ssize_t combination(self, Py_ssize_t bucket, unsigned long long combination) noexcept nogil
    cdef void add(self, Py_ssize_t cell, unsigned long long value, unsigned long long ts, unsigned long long offset) noexcept nogil
    cdef void join(self, Py_ssize_t cell, unsigned long long member, unsigned long long ts, unsigned long long offset, unsigned long long removed) noexcept nogil
    cdef void merge(self, Py_ssize_t cell, unsigned long long[::1] acc) noexcept nogil
    cpdef merge_buckets(self, Py_ssize_t series, unsigned long long start, unsigned long long end, unsigned long long step, unsigned long long[::1] acc)
