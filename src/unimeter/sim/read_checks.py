"""What is promised to who reads: how new an answer is, and that it is right.

Owns the checks of reads. How new an answer is says its position; positions make every
promise of consistency a comparison of two numbers, the read's and one that was told before
it began.
"""

from __future__ import annotations

from unimeter.sim.client_check import ClientCheck, Log, met_damage, tells
from unimeter.sim.history import Call
from unimeter.wire.messages import Read


class ReadYourWrites(ClientCheck):
    """P3: a read's position is not below any write that its process was told is done.

    Does not check what the answer says (`AnswersEqualModel` does), nor other processes.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._written: dict[tuple[str, int], int] = {}
        self._floors: dict[int, int] = {}  # call number -> the position it must reach

    def on_begin(self, call: Call) -> None:
        if isinstance(call.request, Read):
            self._floors[call.number] = self._written.get((call.client, call.process), 0)

    def on_end(self, call: Call) -> None:
        if isinstance(call.request, Read):
            floor = self._floors.pop(call.number)
            if tells(call) and call.position < floor:
                self.fail(f"{call} was answered at {call.position}; it had written at {floor}")
        elif call.tells_position:
            key = call.client, call.process
            self._written[key] = max(self._written.get(key, 0), call.position)


class MonotonicReads(ClientCheck):
    """P3: a read's position is not below any answer that its process had before it began.

    Does not compare calls that overlap, nor other processes.
    """

    def on_end(self, call: Call) -> None:
        if isinstance(call.request, Read) and tells(call) and call.position < call.seen:
            self.fail(f"{call} was answered at {call.position}; it had seen {call.seen}")


class LinearizableReads(ClientCheck):
    """P4: a linearizable read's position is not below any answer that anybody had before.

    Does not check reads that did not ask for it.
    """

    def on_end(self, call: Call) -> None:
        if call.is_linearizable and tells(call) and call.position < call.told:
            self.fail(
                f"{call} was answered at {call.position}; somebody had been told {call.told} before"
            )


class AnswersEqualModel(ClientCheck):
    """P5: what a read was answered is what the model answers at the position it names.

    Refusals too. Does not check version 1, nor answers that promise nothing, nor a node's
    word that its events are damaged where they may be; the freedom that nodes have is
    `answer_checks`'.
    """

    may_be_damaged = True

    def on_end(self, call: Call) -> None:
        if met_damage(call) and not self.may_be_damaged:
            self.fail(f"{call}: {call.error}; nothing is damaged in this world")
        if not isinstance(call.request, Read) or not tells(call):
            return
        if call.position > self.log.position:
            self.fail(f"{call} was answered at {call.position}; applied is {self.log.position}")
        assert call.response is not None
        wrong = self.log.matches(call.request, call.response, call.position)
        if wrong:
            self.fail(f"{call} at {call.position}, {call.request!r}: {wrong}")
