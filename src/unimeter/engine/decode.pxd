# C declarations of decode.py.

cdef Py_ssize_t load16(unsigned char[::1] data, Py_ssize_t p) noexcept nogil
cdef unsigned long long load32(unsigned char[::1] data, Py_ssize_t p) noexcept nogil
cdef unsigned long long load64(unsigned char[::1] data, Py_ssize_t p) noexcept nogil
cdef bint is_text(unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length) noexcept nogil
cdef unsigned long long hash_text(unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length, unsigned long long kind) noexcept nogil

cdef class EntryBuilder:
    cdef public unsigned long long now_ns
    cdef public int stop, stop_version, stop_type
    cdef public Py_ssize_t stop_request, stop_length, events, size, request_count, session_count
    cdef Py_ssize_t metric_count, account_count, tags_count, id_count, heap_used
    cdef unsigned long long epoch
    cdef unsigned long long[::1] table, records, requests, sessions, strings, map
    cdef unsigned char[::1] heap
    cdef object heap_words, record_words, request_words, session_words, string_words, map_words
    cpdef int take(self, unsigned char[::1] data, Py_ssize_t p, Py_ssize_t length, unsigned long long slot) except? -1
    cdef object make_room(self, Py_ssize_t length)
    cdef Py_ssize_t string(self, Py_ssize_t kind, unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length) noexcept nogil
    cdef Py_ssize_t tag_set(self, Py_ssize_t length) noexcept nogil
    cdef bint is_tag_set(self, Py_ssize_t start, Py_ssize_t length) noexcept nogil
    cdef int take_v1(self, unsigned char[::1] data, Py_ssize_t p, Py_ssize_t length) noexcept nogil
    cdef Py_ssize_t v1_tags(self, unsigned char[::1] data, Py_ssize_t p, Py_ssize_t count) noexcept nogil
    cdef Py_ssize_t skip_strings(self, unsigned char[::1] data, Py_ssize_t p, Py_ssize_t end, Py_ssize_t count) noexcept nogil
    cdef int take_v2(self, unsigned char[::1] data, Py_ssize_t p, Py_ssize_t length) noexcept nogil
