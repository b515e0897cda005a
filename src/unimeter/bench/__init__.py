"""How fast, how small: the measurements behind ``unimeter bench``.

This package starts a real node as another process, loads it through the real
socket and prints what came out beside what was to be reached. It owns no part
of the product and nothing of the product imports it.

    frames.py     v1 frames encoded ahead of the run, every event in them unique
    load.py       the load generator: epoll, non-blocking sockets, pipelining
    sink.py       a server that counts bytes and nothing else: the generator's ceiling
    node.py       start, kill and stop a node by its own process id
    probe.py      the raw disk: what one fdatasync costs on this machine
    scenarios.py  one function for each line of the table that needs a node
    engine.py     the engine alone, in this process
    lines.py      the table: names of the lines, in order
    rivals.py     Redis and PostgreSQL doing the same exactly-once work
    report.py     figures as a table and as JSON, with machine and commit
    __main__.py   the command line

Two rules hold throughout. A figure counts only if its sums agree: after each
load the totals of all accounts are queried and must equal the events that were
acknowledged. And no test asserts a time: machines differ, so figures are
printed beside their targets and a person judges.
"""
