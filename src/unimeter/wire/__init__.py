"""Bytes to messages and back, sans-I/O: protocol versions 1 and 2.

Read in this order: ``messages`` (what can be said), ``framer`` (where one
message ends), ``v1`` and ``v2`` (how it is written). The pages
``docs/reference/wire-v1.md`` and ``wire-v2.md`` give every byte.
"""
