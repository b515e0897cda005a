# C declarations of thresholds.py, for the counting kernel.

from unimeter.engine.totals cimport Totals

cdef bint below(unsigned long long high, unsigned long long low, unsigned long long limit) noexcept nogil

cdef class Thresholds:
    cdef Totals totals
    cdef public Py_ssize_t count
    cdef object alert_words
    cdef unsigned long long[::1] alerts, metrics
    cdef bint beyond(self, int agg, Py_ssize_t cell, unsigned long long limit, bint falling) noexcept nogil
    cdef bint average_beyond(self, Py_ssize_t at, unsigned long long limit, bint falling) noexcept nogil
    cdef void learn(self, Py_ssize_t metric, Py_ssize_t watched, Py_ssize_t total) noexcept nogil
    cdef void cross(self, Py_ssize_t metric, Py_ssize_t watched, Py_ssize_t total, unsigned long long offset, unsigned long long ts, unsigned long long period) noexcept nogil
    cdef void fire(self, Py_ssize_t watched, Py_ssize_t total, Py_ssize_t threshold, unsigned long long offset, unsigned long long ts, unsigned long long period, int agg) noexcept nogil
