"""The routes of this product's own HTTP API, under /v1.

    ingest ─ ingest_json, ingest_lines (ingest_csv, lines), keyed ─ store ─> gateway
    totals, lists, accounts, status, metrics, keys, webhooks, stream, dry_runs   read and change
    params, times, schemas                                                       what they share

Each module ends with its ENDPOINTS; `site` gathers them.
"""
