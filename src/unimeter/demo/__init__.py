"""``make demo`` and ``make cluster-demo``: metering through failures, every total compared.

`__main__` meters the four uses through a kill -9 of one node; `workload` makes the
events and their totals by plain arithmetic, `comparing` lays them beside the node's.
`cluster` does it with three nodes, clients that never stop (`cluster_load`) and a
view of it all (`cluster_view`). `process` is a node in a process of its own,
`cluster_process` a whole cluster of them.
"""
