"""Where bytes survive: the disk, the log, the superblock, snapshots, recovery.

This package knows nothing of sockets and of the meaning of an event. It takes
numbered entries, makes them durable, and hands exactly the acknowledged ones
back after any crash, or refuses and says which file, which byte, what was
expected and what was found. Read in this order: `disk`, `layout`, `wal`,
`tail`, `superblock`, `snapshots`, `events`, `recovery`, `verify`; for a member of a
cluster `raft_log`, `install`, `repair`.
"""
