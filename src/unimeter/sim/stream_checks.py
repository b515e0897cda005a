"""What is promised about what comes: alerts to who subscribed, an answer to who called."""

from __future__ import annotations

from typing import Final

from unimeter.errors import ServerError
from unimeter.sim.client_check import ClientCheck, Log, met_damage
from unimeter.sim.history import KILLED, Call, History, Stream
from unimeter.types import AlertRecord
from unimeter.wire.messages import AlertRow

SECOND: Final = 10**9
SETTLE_SECONDS: Final = 30  # after the heal: elections, and suspicions of nodes that were away
PATIENT_SECONDS: Final = 8  # a deadline that leaves time for every node, and for an election
CALL_SECONDS_MAX: Final = 60  # in a healed world; a call that was open then has as long
LATE_SECONDS: Final = 5  # past its own deadline: then a call hangs


class AlertsOnce(ClientCheck):
    """P7: a subscription hands out every alert it asked for, once, in order, as it was.

    From where it began; none is skipped. Does not check that one comes in time: a `drain`
    does, as a call that must end.
    """

    def on_alert(self, stream: Stream, record: AlertRecord) -> None:
        before = stream.position
        if record.position <= before:
            self.fail(f"{stream} got alert {record.position} after alert {before}")
        following = [row for row in self.log.alert_rows() if row.position > before]
        wanted = [row for row in following if wants(stream, row)]
        if not wanted:
            self.fail(f"{stream} got alert {record.position}; there is none after {before}")
        if wanted[0].position != record.position:
            self.fail(f"{stream} got alert {record.position}; next is {wanted[0].position}")
        right = wanted[0].record(record.node_addr)
        if right != record:
            self.fail(f"{stream} got {record!r}, expected {right!r}")


class CallsEnd(ClientCheck):
    """P10: in a healed world calls get answers, and no call ever outlives its deadline.

    Nor does one end with a failure of the node's own, unless a read met damage. A call may
    blame the world if it began, with its deadline, before things had settled. Does not check
    how fast an answer is.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.healed_ns = -1

    def on_end(self, call: Call) -> None:
        if call.outcome == KILLED:
            return
        if call.timeout_ns and call.ended_ns - call.began_ns > call.timeout_ns + (
            LATE_SECONDS * SECOND
        ):
            self.fail(f"{call} ended {(call.ended_ns - call.began_ns) / 1e9:.1f} s after its "
                      f"beginning; its deadline was {call.timeout_ns / 1e9:.1f} s")  # fmt: skip
        if isinstance(call.error, ServerError) and not met_damage(call):
            self.fail(f"{call}: {call.error}")
        if self.healed_ns < 0 or call.is_answered or met_damage(call):
            return
        waited = call.ended_ns - max(call.began_ns, self.healed_ns)
        # Who gives a call a second may lose it to the first node that is silent.
        is_patient = not 0 < call.timeout_ns < PATIENT_SECONDS * SECOND
        # And who has no key to send a batch again safely gives it up at the first doubt.
        is_patient &= call.version != 1 or all(event.timestamp for event in call.events)
        is_settled = is_patient and call.began_ns >= self.healed_ns + SETTLE_SECONDS * SECOND
        if is_settled or waited >= (CALL_SECONDS_MAX - 1) * SECOND:
            self.fail(f"{call} ended with {call.outcome} ({call.error}), "
                      f"{waited / 1e9:.1f} s in a healed world")  # fmt: skip

    def at_end(self, history: History) -> None:
        for call in history.open_calls():
            self.fail(f"{call} has not ended")


def wants(stream: Stream, row: AlertRow) -> bool:
    """Whether a subscription asked for that alert."""
    return (not stream.accounts or row.account in stream.accounts) and (
        not stream.metrics or row.metric_code in stream.metrics
    )
