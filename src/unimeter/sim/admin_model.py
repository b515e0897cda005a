"""Keys, webhooks, deliveries and the trail once more: slow, obvious, written from the pages.

Owns a second reading of ADMIN and ON_BEHALF bodies (docs/internals/entries.md) and a second
opinion on each change: which code answers, and what is there afterwards. All of it is kept as
the JSON that a snapshot holds (docs/internals/formats.md), so that a machine is compared with it
as a whole, at any entry.

    read_admin(body), read_on_behalf(body)   bodies in words; CheckFailed for bad shape
    AdminModel.admin, .metric                one entry; the error code
    AdminModel.state_at(index)               what a machine must hold there
    told(machine's own JSON)                 the same, without the words of refusals

It shares limits with the engine and not a line of `changes`, `administration` or `canonical`.
Refuses to judge ids, URLs, names and secrets by themselves: no honest node's client sends bad
ones here.
"""

from __future__ import annotations

import json
from typing import Any, Final

from unimeter.limits import AUDIT_RECORDS_MAX, KEYS_MAX, WEBHOOKS_MAX
from unimeter.sim.failures import CheckFailed, check

WHO: Final = "administration"
INVALID_INPUT: Final = 4
NOT_FOUND: Final = 5
ALREADY_EXISTS: Final = 6
UNAUTHENTICATED: Final = 13

Json = dict[str, Any]


# --- reading -----------------------------------------------------------------------


def read_json(data: bytes) -> Json:
    """An object that is spelled in the one way that the page allows."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise CheckFailed(WHO, f"{data[:80]!r} is not JSON: {error}") from error
    check(isinstance(found, dict), WHO, f"{data[:80]!r} is not an object")
    again = json.dumps(found, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    check(again.encode() == data, WHO, f"{data[:80]!r} is spelled in another way")
    assert isinstance(found, dict)
    return found


def read_admin(body: bytes) -> Json:
    """An ADMIN body: "op", who asked, and what the operation needs."""
    change = read_json(body)
    operation = change.get("op")
    check(operation in FIELDS, WHO, f"operation {operation!r}")
    fields = {*FIELDS[str(operation)], "op", "actor"}
    check(set(change) == fields, WHO, f"{operation} has the fields {sorted(change)}")
    check(set(change["actor"]) <= {"key", "name", "via", "address"}, WHO, "an odd actor")
    return change


FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "key.put": ("key",),
    "key.revoke": ("id",),
    "webhook.put": ("webhook",),
    "webhook.delete": ("id",),
    "webhook.control": ("id", "action", "after", "reason"),
    "webhook.progress": ("id", "delivery"),
    "note": ("action", "target"),
}


def read_on_behalf(body: bytes) -> tuple[Json, int, bytes]:
    """(actor, kind, body) of an ON_BEHALF body."""
    check(len(body) > 2, WHO, f"ON_BEHALF of {len(body)} bytes")
    end = 2 + body[0] + 256 * body[1]
    check(len(body) > end, WHO, f"ON_BEHALF ends inside its actor of {end - 2} bytes")
    check(body[end] in (3, 4), WHO, f"ON_BEHALF holds kind {body[end]}")
    return read_json(body[2:end]), body[end], body[end + 1 :]


def told(state: bytes) -> Json:
    """A machine's administration as it goes into a snapshot, refusals without their words."""
    found = read_json(state)
    for line in found["audit"]:
        if line["result"] != "done":
            line["result"] = "refused"
    return found


# --- the model ---------------------------------------------------------------------


class AdminModel:
    """What administrators made, entry by entry."""

    def __init__(self) -> None:
        self.keys: dict[str, Json] = {}
        self.webhooks: dict[str, Json] = {}
        self.deliveries: dict[str, Json] = {}
        self.trail: list[Json] = []
        self.generation = 0
        self._states: list[tuple[int, str]] = []

    def admin(self, index: int, timestamp_ns: int, change: Json, alerts: int) -> int:
        """Carry out an ADMIN entry that was read; its error code."""
        operation = action = change["op"]
        is_closed = operation != "key.put" and self.is_closed_to(change["actor"])
        code, is_changed, target = UNAUTHENTICATED, False, ""
        if not is_closed:
            carry_out = getattr(self, "_" + operation.replace(".", "_"))
            code, is_changed, target = carry_out(change, timestamp_ns, alerts)
        if is_closed:
            pass  # what it would have done was not looked at
        elif operation == "webhook.control":
            action = f"webhook.{change['action']}"
        elif operation == "note":
            action = change["action"]
        if operation != "webhook.progress" and (code or is_changed):
            self._tell(index, timestamp_ns, change["actor"], action, target, code)
        self._keep(index)
        return int(code)

    def metric(
        self, index: int, timestamp_ns: int, actor: Json, action: str, target: str, code: int
    ) -> None:
        """A change of the catalog that was made or refused."""
        self._tell(index, timestamp_ns, actor, action, target, code)
        self._keep(index)

    def is_closed_to(self, actor: Json) -> bool:
        """Once there is a key, who comes by a port has to show one."""
        from_outside = actor.get("via") in ("binary", "http")
        return bool(self.keys) and from_outside and not actor.get("key")

    def _tell(
        self, index: int, timestamp_ns: int, actor: Json, action: str, target: str, code: int
    ) -> None:
        result = "refused" if code else "done"
        line = {"index": index, "time": timestamp_ns, "actor": actor}
        self.trail.append({**line, "action": action, "target": target, "result": result})
        self.trail = self.trail[-AUDIT_RECORDS_MAX:]

    def _keep(self, index: int) -> None:
        state = {
            "keys": list(self.keys.values()),
            "webhooks": list(self.webhooks.values()),
            "deliveries": list(self.deliveries.values()),
            "audit": self.trail,
            "generation": self.generation,
        }
        self._states.append((index, json.dumps(state)))

    def state_at(self, index: int) -> Json:
        """What a machine that applied this entry, and no further one, holds."""
        found = '{"keys":[],"webhooks":[],"deliveries":[],"audit":[],"generation":0}'
        for at, state in self._states:
            if at <= index:
                found = state
        loaded: Json = json.loads(found)
        return loaded

    # --- keys --------------------------------------------------------------------

    def _key_put(self, change: Json, now: int, alerts: int) -> tuple[int, bool, str]:
        key: Json = change["key"]
        known = self.keys.get(key["id"])
        if known is not None:
            same = {**known, "created": 0} == {**key, "created": 0, "revoked": 0}
            return 0 if same else ALREADY_EXISTS, False, key["id"]
        if self.is_closed_to(change["actor"]):
            return UNAUTHENTICATED, False, key["id"]
        if not self.keys and "admin" not in key["scopes"]:
            return INVALID_INPUT, False, key["id"]
        if len(self.keys) >= KEYS_MAX:
            revoked = [one for one in self.keys.values() if one["revoked"]]
            if not revoked:
                return INVALID_INPUT, False, key["id"]
            revoked.sort(key=lambda one: int(one["revoked"]))
            del self.keys[revoked[0]["id"]]
        self.keys[key["id"]] = {**key, "created": now, "revoked": 0}
        self.generation += 1
        return 0, True, key["id"]

    def _key_revoke(self, change: Json, now: int, alerts: int) -> tuple[int, bool, str]:
        ident = change["id"]
        if ident not in self.keys:
            return NOT_FOUND, False, ident
        if self.keys[ident]["revoked"]:
            return 0, False, ident
        doors = [
            one["id"]
            for one in self.keys.values()
            if "admin" in one["scopes"] and not one["revoked"]
        ]
        if doors == [ident]:
            return INVALID_INPUT, False, ident
        self.keys[ident] = {**self.keys[ident], "revoked": now}
        self.generation += 1
        return 0, True, ident

    # --- webhooks ----------------------------------------------------------------

    def _webhook_put(self, change: Json, now: int, alerts: int) -> tuple[int, bool, str]:
        webhook: Json = change["webhook"]
        ident = webhook["id"]
        known = self.webhooks.get(ident)
        if known is not None:
            names = ("url", "secret", "accounts", "metrics")
            same = all(repr(known[name]) == repr(webhook[name]) for name in names)
            return 0 if same else ALREADY_EXISTS, False, ident
        start = alerts if webhook["start"] is None else webhook["start"]
        if len(self.webhooks) >= WEBHOOKS_MAX or start > alerts:
            return INVALID_INPUT, False, ident
        fresh = {"start": start, "created": now, "state": "active", "paused_reason": ""}
        self.webhooks[ident] = {**webhook, **fresh}
        self.deliveries[ident] = _begun(start, 0, now)
        return 0, True, ident

    def _webhook_delete(self, change: Json, now: int, alerts: int) -> tuple[int, bool, str]:
        ident = change["id"]
        if ident not in self.webhooks:
            return NOT_FOUND, False, ident
        del self.webhooks[ident], self.deliveries[ident]
        return 0, True, ident

    def _webhook_control(self, change: Json, now: int, alerts: int) -> tuple[int, bool, str]:
        ident, action = change["id"], change["action"]
        if ident not in self.webhooks:
            return NOT_FOUND, False, ident
        if action == "replay":
            if change["after"] > alerts:
                return INVALID_INPUT, False, ident
            epoch = self.deliveries[ident]["epoch"] + 1
            self.deliveries[ident] = _begun(change["after"], epoch, now)
            return 0, True, ident
        wanted = {"state": "active", "paused_reason": ""}
        if action == "pause":
            wanted = {"state": "paused", "paused_reason": change["reason"]}
        if {**self.webhooks[ident], **wanted} == self.webhooks[ident]:
            return 0, False, ident
        self.webhooks[ident] = {**self.webhooks[ident], **wanted}
        if action == "resume":
            anew = {"attempts": [], "failures": 0, "error": "", "updated": now}
            self.deliveries[ident] = {**self.deliveries[ident], **anew}
        return 0, True, ident

    def _webhook_progress(self, change: Json, now: int, alerts: int) -> tuple[int, bool, str]:
        ident, new = change["id"], change["delivery"]
        if ident not in self.webhooks:
            return NOT_FOUND, False, ident
        old = self.deliveries[ident]
        tried = [position for position, _, _ in new["attempts"]]
        ahead = sorted([*new["done"], *tried])
        is_good = (
            new["epoch"] == old["epoch"]
            and old["through"] <= new["through"]
            and all(new["through"] < position <= alerts for position in ahead)
            and new["through"] <= alerts
            and len(set(ahead)) == len(ahead)
            and new["done"] == sorted(new["done"])
            and tried == sorted(tried)
        )
        if not is_good:
            return INVALID_INPUT, False, ident
        self.deliveries[ident] = {**new, "updated": now}
        return 0, True, ident

    def _note(self, change: Json, now: int, alerts: int) -> tuple[int, bool, str]:
        return 0, True, change["target"]


def _begun(through: int, epoch: int, now: int) -> Json:
    """A webhook's deliveries before the first one."""
    done: Json = {"through": through, "done": [], "attempts": [], "failures": 0, "error": ""}
    return {**done, "epoch": epoch, "updated": now}
