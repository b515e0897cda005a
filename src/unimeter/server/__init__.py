"""The outside world of a node: sockets, HTTP, signals, configuration.

Owns everything that waits. `node` introduces the engine to the storage and is
used without sockets too (embedded); `handlers` answers one request from a
node; `clients` carries the wire protocol; `http` answers health checks and
metrics; `server` ties them to an event loop and `process` to signals and exit
codes.

    config ─> process ─> server ─┬─> clients ─> handlers ─> node ─> engine, storage
                                 └─> http    ─> statistics ─┘
"""
