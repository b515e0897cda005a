"""The auditor: an independent meter of the committed log, to hold nodes and answers to.

Owns nothing but the meeting of two sides: what the log must have led to (`committed`, whose
methods it has), and what replicas and clients saw.

    committed(...)        the log, entry by entry -> Expected
    sent, reply_of, ...   what a request must have been told
    check_applied(...)    a replica's apply gave what was expected: outcomes, counts, alerts
    check_machine(...)    all that a replica's memory can say (`machine_checks`)
    answer, matches       what a read must answer (`right_answers`, `answer_checks`)

Every check raises CheckFailed. Refuses to know nodes, terms and clients: that the log is the
same everywhere is the replica checks' business, that it holds what clients were told is the
client checks'.
"""

from __future__ import annotations

from unimeter.engine.applied import Applied
from unimeter.engine.machine import Machine
from unimeter.limits import SESSION_KEEP_SECONDS, SESSION_WINDOW, SESSIONS_MAX
from unimeter.sim import answer_checks, right_answers
from unimeter.sim.account_checks import Memo
from unimeter.sim.applied_checks import check_applied
from unimeter.sim.committed import Committed
from unimeter.sim.committed import Expected as Expected
from unimeter.sim.committed import Stored as Stored
from unimeter.sim.machine_checks import MachineCheck
from unimeter.sim.session_model import Answered as Answered
from unimeter.types import Account
from unimeter.wire import messages as m


class Auditor(Committed):
    """The committed log, and the checks of whoever claims to have counted it."""

    def __init__(
        self,
        sessions_max: int = SESSIONS_MAX,
        session_window: int = SESSION_WINDOW,
        session_keep_seconds: int = SESSION_KEEP_SECONDS,
    ) -> None:
        """The limits are the engine's own; a world that made those smaller says so here."""
        super().__init__(sessions_max, session_window, session_keep_seconds)
        self._memo: Memo = {}

    # --- replicas ----------------------------------------------------------------

    def check_applied(self, who: str, applied: Applied, index: int) -> None:
        """A replica's apply of entry `index` gave what it must; see `applied_checks`."""
        check_applied(who, applied, self.expected(index))

    def check_machine(self, who: str, machine: Machine) -> None:
        """All that a replica's memory can say is right at its position; slow."""
        MachineCheck(self, who, machine, self._memo).everything()

    def check_account(self, who: str, machine: Machine, account: Account, code: str) -> None:
        """What a replica's memory says of one account of a live metric, in a few questions."""
        MachineCheck(self, who, machine, self._memo).account_in_short(account, code)

    def check_touched(self, who: str, machine: Machine, index: int) -> None:
        """The same for all that entry `index` touched, with its alerts and metric."""
        MachineCheck(self, who, machine, self._memo).touched(self.expected(index))

    # --- clients -----------------------------------------------------------------

    def reply_difference(
        self, session_hi: int, session_lo: int, sequence: int, reply: m.Response
    ) -> str:
        """What is wrong with the reply to a request of a session; "" if it is a right one.

        Does not check to which of several sends it belongs, nor replies that promise
        nothing (BACKPRESSURE, NOT_LEADER and the like).
        """
        sent = self.sent(session_hi, session_lo, sequence)
        return answer_checks.reply_difference(sent, reply)

    def alert_rows(self, at: int | None = None) -> list[m.AlertRow]:
        """Every alert up to a position, as it is listed and pushed."""
        return [right_answers.alert_row(alert) for alert in self.model.alerts_at(at)]

    def answer(self, request: m.Request, position: int, now_ns: int = 0) -> m.Response:
        """What a correct node that has applied `position` answers to a read."""
        return right_answers.answer(self, request, position, now_ns)

    def matches(
        self,
        request: m.Request,
        response: m.Response,
        position: int,
        now_ns: int | None = None,
        stored_from: int | None = None,
    ) -> str:
        """What is wrong with the answer to a read, given at a position; "" if nothing is.

        `now_ns` is the node's clock, `stored_from` the first entry whose events it stores;
        None leaves it the freedom that `answer_checks` describes.
        """
        return answer_checks.difference(self, request, response, position, now_ns, stored_from)
