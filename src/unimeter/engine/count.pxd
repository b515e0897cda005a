# C declarations of count.py.

from unimeter.engine.hashing cimport Hasher
from unimeter.engine.keys cimport KeyTable
from unimeter.engine.tables cimport Interner
from unimeter.engine.thresholds cimport Thresholds
from unimeter.engine.totals cimport Totals


cdef class Counter:
    cdef public Hasher hasher
    cdef public KeyTable keys
    cdef public Totals totals
    cdef public Thresholds thresholds
    cdef public Interner accounts, values, combinations
    cdef object metric_words, head_words, boundary_words, allowed_words
    cdef object body_words, scratch_words, memo_words, result_words, names, outcome_array
    cdef unsigned long long[::1] metrics, heads, boundaries, allowed, body, scratch, memo, local, results, key
    cdef unsigned char[::1] key_names, body_bytes, outcomes, pack
    cdef public Py_ssize_t metric_count, new_keys
    cdef public Py_ssize_t n_requests, n_events
    cdef list known_boundaries
    cdef dict known_lists
    cdef public Py_ssize_t boundary_count, allowed_count, key_bytes
    cdef Py_ssize_t n_metrics, n_accounts, n_tags, n_ids
    cdef Py_ssize_t at_sessions, at_records, at_strings, at_heap, memo_width
    cdef bint memo_on
    cdef Py_ssize_t begin_at, end_at
    cdef public unsigned long long offset, stored, duplicates, refused
    cdef void passes(self) noexcept nogil
    cdef void judge(self) noexcept nogil
    cdef unsigned long long combination(self, Py_ssize_t local, unsigned long long metric, unsigned long long tags) noexcept nogil
    cdef unsigned long long project(self, unsigned long long metric, unsigned long long tags) noexcept nogil
    cdef void put32(self, Py_ssize_t at, Py_ssize_t number) noexcept nogil
    cdef bint is_allowed(self, unsigned long long allowed, Py_ssize_t number) noexcept nogil
    cdef Py_ssize_t tag_value(self, unsigned long long tags, Py_ssize_t name, Py_ssize_t length) noexcept nogil
    cdef Py_ssize_t text_at(self, Py_ssize_t number) noexcept nogil
    cdef Py_ssize_t text_length(self, Py_ssize_t number) noexcept nogil
    cdef unsigned long long account_of(self, unsigned long long account, unsigned long long meta) noexcept nogil
    cdef Py_ssize_t tags_hash(self, unsigned long long tags) noexcept nogil
    cdef void hash(self) noexcept nogil
    cdef void claim(self) noexcept nogil
    cdef void find(self) noexcept nogil
    cdef unsigned long long start_of(self, Py_ssize_t row, Py_ssize_t which, unsigned long long ts) noexcept nogil
    cdef void add(self) noexcept nogil
    cdef void add_member(self, Py_ssize_t i, Py_ssize_t metric, Py_ssize_t series, Py_ssize_t bucket, Py_ssize_t at) noexcept nogil
    cdef void tally(self) noexcept nogil
