"""The situations a sweep must have come through, or it proves nothing about them.

Owns the list. A world tells each one as it happens (`Result.reached`), a `Report` counts
them, and a sweep of `COVERAGE_SEEDS_MIN` seeds in which one never occurred fails: a fault
that no longer comes up is a test that was lost unnoticed.
"""

from __future__ import annotations

from typing import Final

COVERAGE_SEEDS_MIN: Final = 300
"""Seeds that a sweep has before it is judged by this list: the rarest situation comes up once in
some tens of seeds, so that one of 300 without it is a defect and no bad luck; CI runs as many."""

JUDGED_PROFILES: Final = ("swarm", "soak")
"""Profiles whose seeds count for the list; `lite` has few of the faults."""

MUST_HAPPEN: Final[dict[str, str]] = {
    "leader crash between append and sync": "a leader died with entries written and not synced",
    "torn tail": "a log ended in the middle of a record and was opened again",
    "snapshot during partition": "a snapshot was taken while nodes could not reach each other",
    "duplicate after failover": "an event was sent again to another leader and was a duplicate",
    "rot repaired from a peer": "a record rotted on one disk and was fetched from another node",
    "power lost in a write": "the power went in the middle of a write",
    "whole cluster lost power": "all nodes lost their power at the same moment",
    "lost disk recovered": "a node came back on an empty disk through `recover`",
    "snapshot taken over from a peer": "a node too far behind was given a snapshot",
    "disk full": "a disk had no space for a write",
    "sync failed": "a sync reported an error",
    "misdirected write found": "a write went to the wrong place and a checksum told",
    "peer frame corrupted and refused": "a frame between nodes had a flipped bit and was refused",
    "leadership transferred": "a leader handed over on request",
    "rolling restart": "each node was stopped and started in turn",
    "clock jumped": "the clock of a node jumped",
    "process paused": "a process stood still and went on",
    "client killed in a call": "a client died with a call under way",
    "remembered reply": "a request sent again was answered from the session's table",
    "late event counted": "an event of a period already over was counted there",
    "threshold fired after failover": "a threshold was crossed under a later leader",
    "metric changed during ingest": "metrics were made or deleted while events came in",
    "retention removed log": "old segments were removed",
    "linearizable read on a follower": "a follower asked the quorum before it answered",
    "minority leader deposed": "a leader without a majority was replaced",
    "session resumed after failover": "a client went on with its session at another leader",
}
"""Each situation and what is meant by it."""
