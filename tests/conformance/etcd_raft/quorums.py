"""The quorum transcripts: what index is committed, how a vote stands.

A second group, ``cfgj``, makes a joint quorum: both majorities have to agree.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance.etcd_raft.transcript import Command

from unimeter.raft.quorum import EVERYTHING, VoteResult, committed_index, vote_result

_VERDICTS = {"y": True, "n": False}


def run(command: Command) -> str:
    """Do one command; its output."""
    groups = [_numbers(command, "cfg")]
    if "cfgj" in command.keyed:
        groups.append(_numbers(command, "cfgj"))
    voters = sorted({voter for group in groups for voter in group})
    order = list(dict.fromkeys(voter for group in groups for voter in group))
    words = command.keyed.get("votes" if command.name == "vote" else "idx", [])
    if len(words) != len(voters):
        given = " ".join(words)
        return f"error: mismatched input (explicit or _) for voters {voters}: [{given}]"
    known = {voter: word for voter, word in zip(order, words, strict=True) if word != "_"}
    if command.name == "vote":
        return _vote_text(groups, {voter: _VERDICTS[word] for voter, word in known.items()})
    if command.name == "committed":
        return _committed(groups, voters, {voter: int(word) for voter, word in known.items()})
    return f"unsupported command {command.name}"


def _numbers(command: Command, key: str) -> list[int]:
    return [int(word) for word in command.keyed.get(key, []) if word != "zero"]


def _vote_text(groups: list[list[int]], votes: Mapping[int, bool]) -> str:
    results = {vote_result(group, votes) for group in groups}
    if VoteResult.LOST in results:
        joint = VoteResult.LOST
    else:
        joint = VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON
    return f"Vote{joint.name.capitalize()}"


def _committed(groups: list[list[int]], voters: list[int], known: Mapping[int, int]) -> str:
    index = min(committed_index([known.get(voter, 0) for voter in group]) for group in groups)
    text = "∞" if index == EVERYTHING else str(index)
    return _picture(voters, known) + text


def _picture(voters: list[int], known: Mapping[int, int]) -> str:
    """One line a voter, with a bar as long as there are voters behind it."""
    if not voters:
        return "<empty majority quorum>"
    width = len(voters)
    lines = [" " * width + "    idx"]
    for voter in voters:
        index = known.get(voter, 0)
        behind = sum(known.get(other, 0) < index for other in voters)
        bar = "x" * behind + ">" if voter in known else "?"
        lines.append(f"{bar:<{width + 1}} {index:5}    (id={voter})")
    return "\n".join(lines) + "\n"
