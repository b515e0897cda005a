"""``make demo``: the four uses through a kill -9, every total compared.

`__main__` runs it, `workload` makes the events and their totals by plain
arithmetic, `process` is a node in a process of its own.
"""
