# C declarations of tables.py, for kernels that use an index without the GIL.

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define unimeter_prefetch(place) __builtin_prefetch((place), 1)
    #else
    #define unimeter_prefetch(place) ((void)(place))
    #endif
    """
    void unimeter_prefetch(const void *place) noexcept nogil

cdef class Index:
    cdef public Py_ssize_t count, size, old_size, origin, moved, pos
    cdef public object words, old_words
    cdef unsigned long long[::1] slots, old_slots
    cdef bint in_old
    cdef Py_ssize_t first(self, unsigned long long tag) noexcept nogil
    cdef void touch(self, unsigned long long tag) noexcept nogil
    cdef unsigned long long slot(self, unsigned long long tag) noexcept nogil
    cdef Py_ssize_t following(self, unsigned long long tag) noexcept nogil
    cdef Py_ssize_t scan(self, unsigned long long tag, bint fresh) noexcept nogil
    cdef void insert(self, unsigned long long tag, Py_ssize_t row) noexcept nogil
    cdef void move_clusters(self, Py_ssize_t slots) noexcept nogil

cdef class Interner:
    cdef public unsigned long long seed
    cdef public Index index
    cdef public Py_ssize_t count, used
    cdef object rows, heap_words
    cdef unsigned long long[::1] places
    cdef unsigned char[::1] heap
    cdef unsigned long long tag(self, unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length) noexcept nogil
    cdef Py_ssize_t find(self, unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length) noexcept nogil
    cdef Py_ssize_t find_tag(self, unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length, unsigned long long tag) noexcept nogil
    cdef Py_ssize_t intern(self, unsigned char[::1] data, Py_ssize_t start, Py_ssize_t length) noexcept nogil
