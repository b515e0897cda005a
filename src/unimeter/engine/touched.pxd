# C declarations of touched.py.

from unimeter.engine.count cimport Counter

cdef class Touched:
    cdef object mark_array, metric_array, row_words
    cdef unsigned char[::1] marks, metrics
    cdef unsigned long long[::1] rows
    cdef public Py_ssize_t any_max, metrics_wanted, named, leaving, count, any_count
    cdef bint missed
    cdef void look(self, Counter counter) noexcept nogil
