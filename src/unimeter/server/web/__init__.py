"""HTTP: the API, the dashboard, the probes. `site.Site` puts them on a port of the node's loop.

    socket ─ protocol (uvicorn's, with bounds) ─ site: route, who, may they ─ Call ─ a handler
                                                                              │
       bytes <─ answer: JSON, CSV, NDJSON, problem <─ Response of version 2 <─ gateway ─ the node

A handler asks the node what a client of the binary protocol would ask, through `gateway`, so
both ports give the same answers, refusals and guarantees. Each route is one `Endpoint`, which
says what it needs and gives: the OpenAPI page, the tests of who may do what and the metrics by
route are made from the same list.
"""
