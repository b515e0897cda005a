"""The text of messages, entries and Readys, as the transcripts print them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from unimeter.raft import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    Entry,
    HardState,
    Message,
    Ready,
    Snapshot,
)

_TARGETS = {0: "None", LOCAL_APPEND_THREAD: "AppendThread", LOCAL_APPLY_THREAD: "ApplyThread"}


def target(node: int) -> str:
    return _TARGETS.get(node, f"{node:x}")


def entry_text(entry: Entry) -> str:
    body = json.dumps(bytes(entry.body).decode())
    return f"{entry.term}/{entry.index} EntryNormal {body}"


def snapshot_text(snapshot: Snapshot) -> str:
    meta = snapshot.meta
    voters = " ".join(str(voter) for voter in meta.voters)
    conf = f"Voters:[{voters}] VotersOutgoing:[] Learners:[] LearnersNext:[] AutoLeave:false"
    return f"Index:{meta.index} Term:{meta.term} ConfState:{conf}"


def hard_state_text(state: HardState) -> str:
    vote = f" Vote:{state.vote}" if state.vote else ""
    return f"Term:{state.term}{vote} Commit:{state.commit}"


def message_text(message: Message, indent: str = "", with_responses: bool = True) -> str:
    """One message; its responses below it, indented."""
    ends = f"{target(message.sender)}->{target(message.to)}"
    log = f"{message.log_term}/{message.index}"
    text = f"{indent}{ends} {message.type} Term:{message.term} Log:{log}"
    if message.reject:
        text += f" Rejected (Hint: {message.reject_hint})"
    if message.commit:
        text += f" Commit:{message.commit}"
    if message.vote:
        text += f" Vote:{message.vote}"
    text += _entries_text(message.entries, indent)
    if message.snapshot is not None and message.snapshot.meta.index:
        text += f"\n{indent}  Snapshot: {snapshot_text(message.snapshot)}"
    if message.responses and with_responses:
        lines = [message_text(response, indent + "  ") for response in message.responses]
        text += " Responses:[\n" + "\n".join(lines) + f"\n{indent}]"
    return text


def _entries_text(entries: Sequence[Entry], indent: str) -> str:
    if not entries:
        return ""
    if len(entries) == 1:
        return f" Entries:[{entry_text(entries[0])}]"
    lines = "".join(f"\n{indent}  {entry_text(entry)}" for entry in entries)
    return f" Entries:[{lines}\n{indent}]"


def ready_text(ready: Ready) -> str:
    lines = []
    if ready.soft_state is not None:
        lines.append(f"Lead:{ready.soft_state.lead} State:{ready.soft_state.role}")
    if ready.hard_state is not None:
        lines.append(f"HardState {hard_state_text(ready.hard_state)}")
    if ready.read_states:
        states = [f"{{{state.index} {list(state.context)}}}" for state in ready.read_states]
        lines.append(f"ReadStates [{' '.join(states)}]")
    if ready.entries:
        lines += ["Entries:", *map(entry_text, ready.entries)]
    if ready.snapshot is not None:
        lines.append(f"Snapshot {snapshot_text(ready.snapshot)}")
    if ready.committed_entries:
        lines += ["CommittedEntries:", *map(entry_text, ready.committed_entries)]
    if ready.messages:
        lines += ["Messages:", *map(message_text, ready.messages)]
    if not lines:
        return "<empty Ready>"
    return "\n".join([f"Ready MustSync={str(ready.must_sync).lower()}:", *lines])
