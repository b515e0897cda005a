"""Every bound of the system, once: its name, its unit and its reason.

A limit that is reached is answered, never worked around: an event gets an
outcome, a request gets a status, a start gets a refusal. Other modules import
these names and no number of this kind is written anywhere else.
"""

from __future__ import annotations

from typing import Final

# --- one event ---------------------------------------------------------------
METRIC_CODE_BYTES_MAX: Final = 64  # v1's field width; v1 codes of 64 bytes carry no NUL
ACCOUNT_BYTES_MAX: Final = 64  # a string account; long enough for two UUIDs
EVENT_ID_BYTES_MAX: Final = 64  # an idempotency key; long enough for a UUID or a hash
PROPERTIES_PER_EVENT_MAX: Final = 16  # twice the dimensions: some tags only explain
PROPERTY_KEY_BYTES_MAX: Final = 32  # v1's field width
PROPERTY_VALUE_BYTES_MAX: Final = 64  # v1's field width
VALUE_MIN: Final = -(2**63)
VALUE_MAX: Final = 2**63 - 1
TIMESTAMP_NS_MIN: Final = 946_684_800_000_000_000  # 2000-01-01T00:00:00Z: older is a unit mistake
TIMESTAMP_NS_MAX: Final = 4_102_444_800_000_000_000  # 2100-01-01T00:00:00Z: later is a unit mistake

# --- one metric --------------------------------------------------------------
METRICS_MAX: Final = 4096  # the catalog is walked whole when listed
METRIC_NUMBERS_MAX: Final = 65_535  # ever created in one log: records name a metric in 16 bits
FIELD_NAME_BYTES_MAX: Final = 64  # v1's field width
ZONE_BYTES_MAX: Final = 64  # the longest IANA name has 32
DIMENSIONS_PER_METRIC_MAX: Final = 8
DIMENSION_VALUES_MAX: Final = 1024  # in one allowed list (v1 frames carry at most 8)
DIMENSION_VALUE_BYTES_MAX: Final = PROPERTY_VALUE_BYTES_MAX
THRESHOLDS_PER_METRIC_MAX: Final = 8  # one byte of flags each in a cell
THRESHOLD_CODE_BYTES_MAX: Final = 32  # v1's field width
COMBINATIONS_MAX: Final = 4_000_000  # distinct dimension combinations, all metrics together
COMBINATION_TEXTS_MAX: Final = 16_384  # kept decoded for each metric's queries, 300 bytes each
CYCLE_DAY_MIN: Final = 1
CYCLE_DAY_MAX: Final = 28  # every month has a 28th
PERIOD_NS_MIN: Final = 60 * 10**9  # one minute: shorter periods are a rate, not a bill
PERIOD_NS_MAX: Final = 200 * 365 * 86_400 * 10**9  # one period for all of 1970-2169
ZONE_TRANSITIONS_MAX: Final = 1024  # clock changes of a zone in 1999-2101; Europe has 204

# --- batches, entries, frames ------------------------------------------------
EVENTS_PER_BATCH_MAX: Final = 8192  # the published client does not split; its users send thousands
ENTRY_BYTES_TARGET: Final = 256 * 1024  # group commit: larger entries gain nothing, stall followers
ENTRY_EVENTS_MAX: Final = 16_384  # record fields are 16-bit; one batch may overshoot the target
ENTRY_BYTES_MAX: Final = 32 * 1024 * 1024  # more is a corrupt length, not an entry
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024  # 8,192 events with 16 properties each do fit
INFLIGHT_BYTES_MAX: Final = 256 * 1024 * 1024  # accepted and not yet durable; then backpressure
CONNECTION_OUT_BYTES_MAX: Final = 64 * 1024 * 1024  # unread replies; then the connection is closed
CONNECTION_BUFFERS_BYTES_MAX: Final = 512 * 1024 * 1024  # half-received frames of all connections
CONNECTION_STALL_SECONDS: Final = 10  # a full socket that takes no byte this long is cut off
PAGE_ITEMS_MAX: Final = 10_000  # one page of a list

# --- dry run -----------------------------------------------------------------
DRY_RUN_EVENTS_MAX: Final = 50_000  # counted anew in a worker, in Python: 20 us each
DRY_RUN_LOG_BYTES_MAX: Final = 256 * 1024 * 1024  # of log that is searched for them: a second
DRY_RUN_ROWS_MAX: Final = 100  # of each list in the answer

# --- deduplication and sessions ----------------------------------------------
KEY_WINDOW_DAYS: Final = 35  # promised minimum an event key is remembered
SESSION_WINDOW: Final = 16  # requests a session may have in flight; replies remembered
SESSION_KEEP_SECONDS: Final = 900  # of the log's clock; no session is forgotten sooner
SESSION_RESEND_SECONDS_MAX: Final = 600  # a client sends nothing again later than this
SESSIONS_MAX: Final = 65_536  # 1 KiB each
SESSION_RUNS_MAX: Final = 8  # outcome runs remembered with each reply

# --- administration ------------------------------------------------------------
ADMIN_BODY_BYTES_MAX: Final = 64 * 1024  # one change; a webhook's progress is the largest
ADMIN_DEPTH_MAX: Final = 4  # of its JSON: progress has a list in an object in the body
KEYS_MAX: Final = 4096  # listed whole; revoked ones are forgotten, oldest first, to make room
KEY_NAME_CHARACTERS_MAX: Final = 64  # a label of one line
WEBHOOKS_MAX: Final = 64  # each reads every alert
WEBHOOK_URL_BYTES_MAX: Final = 2048  # what servers and proxies take
WEBHOOK_FILTERS_MAX: Final = 256  # accounts, and metrics, that one webhook names
WEBHOOK_REASON_CHARACTERS_MAX: Final = 256  # why it is paused; its last error
DELIVERY_DONE_MAX: Final = 2048  # done ahead of one that is not; then it is waited for
DELIVERY_ATTEMPTS_MAX: Final = 512  # being tried again; then nothing new is begun
AUDIT_RECORDS_MAX: Final = 4096  # kept in memory and in snapshots: 1 MiB
AUDIT_TEXT_CHARACTERS_MAX: Final = 256  # of each of a record's texts

# --- webhooks --------------------------------------------------------------------
WEBHOOK_ANSWER_SECONDS: Final = 15.0  # a receiver that takes longer should queue, then work
WEBHOOK_INFLIGHT_MAX: Final = 16  # requests to one URL at a time
WEBHOOK_OPEN_MAX: Final = 2048  # alerts of one webhook begun or in line: 400 KB
WEBHOOK_RETRY_SECONDS: Final = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, *(28_800,) * 8)
"""Waits after each failure of one alert: 17 attempts over three days, then the webhook pauses."""
WEBHOOK_RETRY_AFTER_SECONDS_MAX: Final = 3600.0  # what a receiver may ask for at once
WEBHOOK_RECORD_SECONDS: Final = 0.1  # progress of one webhook goes into the log no more often
WEBHOOK_SKIPPED_MAX: Final = 1000  # alerts passed over unrecorded: read again after a failover
WEBHOOK_READ_ALERTS: Final = 256  # looked at in one turn of the loop: half a millisecond
WEBHOOK_RESPONSE_BYTES_MAX: Final = 64 * 1024  # read, so that the connection can be kept
WEBHOOK_ERROR_BYTES_MAX: Final = 256  # of an answer's body that is kept to be shown

# --- streams -------------------------------------------------------------------
STREAMS_MAX: Final = 2048  # open at one node: each is a socket and a turn of the loop
STREAM_NAMES_MAX: Final = 256  # accounts, and metrics, that one stream names
STREAM_PAIRS_MAX: Final = 4096  # of an account and a metric, of one stream
TOPIC_PAIRS_MAX: Final = 4096  # changed and not yet sent to the slowest reader; then "read again"
TOPIC_ALERTS_MAX: Final = 1024  # the newest; who is further behind reads them from the engine
WATCHED_ANY_MAX: Final = 4096  # changed between two turns, of streams that name no account

# --- storage -----------------------------------------------------------------
SEGMENT_BYTES: Final = 64 * 1024 * 1024  # zero-filled once; a replay unit and a retention unit
SNAPSHOT_LOG_BYTES: Final = 1024 * 1024 * 1024  # log since the last snapshot that starts the next
DISK_FREE_BYTES_MIN: Final = 128 * 1024 * 1024  # two segments: below it ingest is told to wait
LOG_CACHE_BYTES_MAX: Final = 64 * 1024 * 1024  # newest entries kept for followers: seconds of load

# --- cluster -----------------------------------------------------------------
SECRET_BYTES_MIN: Final = 16  # of the cluster's secret: a proof can be guessed at offline
PEER_HANDSHAKE_BYTES_MAX: Final = 4096  # one frame of somebody who has not proved anything
PEER_FRAME_BYTES_MAX: Final = ENTRY_BYTES_MAX + 1024 * 1024  # the largest entry, and its message
PEER_OUT_BYTES_MAX: Final = 64 * 1024 * 1024  # waiting for one peer; more is dropped, raft resends
PEER_STRANGERS_MAX: Final = 64  # connections inside the handshake; then the oldest is closed
SNAPSHOT_CHUNK_BYTES: Final = 256 * 1024  # of a snapshot file in one frame: raft waits behind it
SNAPSHOT_WINDOW_BYTES: Final = 2 * 1024 * 1024  # sent and not yet written: 40 MB/s at 50 ms
SNAPSHOT_RESENDS_MAX: Final = 8  # refused chunks of one transfer; then it is given up
MEMBERS_MAX: Final = 7  # of a cluster; more copies make a commit slower and no event safer
NODE_ID_MAX: Final = 255  # one byte in v1's alerts and in the requests of v2
TICK_SECONDS: Final = 0.05  # the unit of the next two
HEARTBEAT_TICKS: Final = 2  # a leader says that it is there every 100 ms
ELECTION_TICKS: Final = 10  # unheard for 0.5 to 1 s: others stand for election
APPEND_BYTES_MAX: Final = 1024 * 1024  # entries of one message to a follower: 4 full ones
APPENDS_INFLIGHT_MAX: Final = 256  # messages to one follower without its answer
APPENDS_INFLIGHT_BYTES_MAX: Final = 32 * 1024 * 1024  # of entries in them
APPLY_BYTES_MAX: Final = 64 * 1024 * 1024  # committed and being applied, before more is handed out
STATE_HASH_ENTRIES: Final = 4096  # replicas compare their states every so many entries

# --- HTTP --------------------------------------------------------------------
HTTP_LINE_BYTES_MAX: Final = 64 * 1024  # one event as NDJSON or CSV; one at its limits has 10 KiB
HTTP_BODIES_BYTES_MAX: Final = 64 * 1024 * 1024  # of all requests under way; then 429
HTTP_TREE_BYTES_MAX: Final = 4 * 1024 * 1024  # of JSON read as a tree: 16 MiB of {}, is 3 s of work
HTTP_CHUNK_EVENTS: Final = 2000  # of a stream in one batch: one sync, and 10 ms of parsing at most
HTTP_CHUNK_BYTES: Final = 512 * 1024  # of a stream's lines in one batch
HTTP_REFUSALS_MAX: Final = 100  # listed in the answer to a stream, which may be endless
HTTP_STREAM_WAIT_SECONDS: Final = 20  # that a stream is held while the node asks to wait
IDEMPOTENCY_KEY_CHARACTERS_MAX: Final = 255
