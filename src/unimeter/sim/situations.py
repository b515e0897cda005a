"""Situations that runs are for, noticed where they show: in what nodes say and do.

Owns no promise: it only counts that something was reached, so that a sweep can tell when a
fault has lost its effect. `coverage` says which ones must come up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.engine.entries import METRIC_DELETE, METRIC_PUT, ON_BEHALF
from unimeter.raft.messages import LEADER, Entry
from unimeter.sim.committed import Expected
from unimeter.sim.replica_checks import ReplicaCheck
from unimeter.types import Outcome

if TYPE_CHECKING:
    from unimeter.sim.machines import Machine
    from unimeter.sim.world import World

LATE_NS = 86_400 * 10**9  # an event so much older than its entry

_SENTENCES = {
    "is repaired from another node": "rot repaired from a peer",
    "is repaired from node": "rot repaired from a peer",
    "took over the state at entry": "snapshot taken over from a peer",
    "of a write that a crash had interrupted": "torn tail",
    "was recovered on a new data directory": "lost disk recovered",
    "Passed over; kept as": "damaged snapshot passed over",
    "a peer's snapshot takes the place": "install finished at a start",
}


class Situations(ReplicaCheck):
    """What has come up in this run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._leading: dict[str, bool] = {}
        self._first: dict[str, int] = {}  # the oldest entry of each log
        self._session_terms: dict[tuple[int, int], int] = {}
        self._first_term = 0  # of a leader's entries
        self._has_events = False

    def _reach(self, situation: str) -> None:
        self._world.reach(situation)

    # --- what nodes say ----------------------------------------------------------------

    def said(self, machine: Machine, sentence: str) -> None:
        """A node told its operator something."""
        for part, situation in _SENTENCES.items():
            if part in sentence:
                self._reach(situation)
                if situation == "rot repaired from a peer":
                    self.damage_found(machine)

    def damage_found(self, machine: Machine) -> None:
        """A node has found that something on its disk is wrong."""
        if any(" went to byte " in damage.told for damage in machine.disk.standing_damage()):
            self._reach("misdirected write found")

    # --- what nodes do -------------------------------------------------------------------

    def turn(self, machine: Machine) -> None:
        node = machine.node
        leads = node.replica.raft.role is LEADER
        if self._leading.get(machine.name) and not leads and self._world.network.cuts:
            self._reach("minority leader deposed")
        self._leading[machine.name] = leads
        if not leads and len(node.reads):
            self._reach("linearizable read on a follower")
        first = node.wal.first_index
        if first > self._first.get(machine.name, first) and node.wal.last_index > first:
            self._reach("retention removed log")
        self._first[machine.name] = first

    def gone(self, machine: Machine) -> None:
        self._leading.pop(machine.name, None)
        self._first.pop(machine.name, None)
        cluster = machine.server.cluster if machine.server is not None else None
        if cluster is not None:
            counts = cluster.peers.statistics()
            if counts["closed_crc"] or counts["closed_header"]:
                self._reach("peer frame corrupted and refused")

    # --- what the log says -----------------------------------------------------------------

    def committed(self, entry: Entry, expected: Expected) -> None:
        """An entry was counted for the first time anywhere."""
        self._first_term = self._first_term or (entry.term if expected.requests else 0)
        if entry.kind in (METRIC_PUT, METRIC_DELETE, ON_BEHALF) and self._has_events:
            self._reach("metric changed during ingest")
        if expected.alerts_to > expected.alerts_from and entry.term > self._first_term:
            self._reach("threshold fired after failover")
        for request in expected.requests:
            self._has_events = True
            if request.repeats is not None:
                if self._world.log.committed[request.repeats.index].term < entry.term:
                    self._reach("duplicate after failover")
            elif request.request.has_session:
                session = request.request.session
                if self._session_terms.setdefault(session, entry.term) < entry.term:
                    self._reach("session resumed after failover")
                self._session_terms[session] = entry.term
            for row, outcome in zip(request.request.rows, request.outcomes, strict=False):
                is_late = row.timestamp_ns < entry.timestamp_ns - LATE_NS
                if outcome == Outcome.STORED and is_late:
                    self._reach("late event counted")
