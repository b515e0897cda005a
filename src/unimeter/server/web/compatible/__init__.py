"""Routes that take what other products' clients send: another URL, and nothing else.

    cloudevents  openmeter  lago  stripe  otlp (otlp_json, otlp_items)   each product's shapes
        └──────────┴─────────┴──────┴──────┴─> arrivals ─ drafts ─ amounts ─> api.store

What maps and what does not is in docs/guides/migrate.md; the rules of a mapping file are
`server.mapping`'s.
"""
