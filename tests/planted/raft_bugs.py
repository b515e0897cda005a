"""Planted bugs of the Raft core: votes, terms, copies, commitment, reads."""

from __future__ import annotations

from tests.planted.bug import Bug, Test
from tests.planted.planting import Edit

_FAILURES = "tests/raft/test_published_failures.py"
_PAPER = "tests/raft/test_paper.py"

BUGS = (
    Bug(
        "acknowledge-before-sync",
        "raft",
        "A follower acknowledges entries at once instead of after its write (published of several "
        "Raft libraries), so that a power cut takes back what a majority claimed to have.",
        (
            Edit(
                "raft.core",
                "Core.send",
                "if kind in _CLAIMS_DURABLE:",
                "if kind in _CLAIMS_DURABLE and (message.to == self.id or kind != MSG_APP_RESP):",
            ),
        ),
        Test(f"{_FAILURES}::test_acknowledgement_before_the_sync", "MSG_APP_RESP"),
    ),
    Bug(
        "leader-counts-its-unsynced-entry",
        "raft",
        "A leader counts its own copy when it proposes, not when it is on its disk: one synced "
        "copy of three commits.",
        (
            Edit(
                "raft.core",
                "Core.append_entries",
                "self.send(Message(MSG_APP_RESP, self.id, self.id, index=index))",
                """
                self.progress[self.id].maybe_update(index)
                self.send(Message(MSG_APP_RESP, self.id, self.id, index=index))
                """,
            ),
        ),
        Test(
            f"{_FAILURES}::test_leader_counts_its_own_copy_only_after_its_own_sync",
            "one synced copy of three",
        ),
    ),
    Bug(
        "vote-answered-before-it-is-written",
        "raft",
        "The answer to a request for a vote leaves before the vote is durable; a crash in between "
        "lets the node vote twice in a term.",
        (
            Edit(
                "raft.core",
                "Core.send",
                "if kind in _CLAIMS_DURABLE:",
                "if kind in _CLAIMS_DURABLE and (kind is MSG_APP_RESP or message.to == self.id):",
            ),
        ),
        Test(f"{_FAILURES}::test_vote_or_term_not_durable_before_the_reply", "MSG_VOTE_RESP"),
    ),
    Bug(
        "vote-not-durable",
        "raft",
        "The term is written and the vote in it is not: after a restart the node votes again.",
        (
            Edit(
                "storage.raft_log",
                "RaftLog.persist_vote",
                "self._opened.superblock.update(term=term, vote=vote)",
                "self._opened.superblock.update(term=term, vote=0)",
            ),
        ),
        Test(
            "tests/server/test_replica.py::"
            "test_a_vote_outlives_a_power_cut_so_no_term_has_two_leaders",
            r"assert \(3, 0\) == \(3, 2\)",
        ),
    ),
    Bug(
        "term-not-durable",
        "raft",
        "A new term in which the node has not voted is not written before it answers in it; after "
        "a restart it follows a leader that was deposed.",
        (
            Edit(
                "storage.raft_log",
                "RaftLog.persist_vote",
                "if (block.term, block.vote) != (term, vote):",
                "if vote and (block.term, block.vote) != (term, vote):",
            ),
        ),
        Test(
            "tests/storage/test_raft_log.py::"
            "test_a_term_is_durable_before_anybody_is_voted_for_in_it",
            "HardState",
        ),
    ),
    Bug(
        "figure-8",
        "raft",
        "An entry of an earlier term is committed by counting copies (figure 8 of the paper); a "
        "node with a later last term replaces it.",
        (
            Edit(
                "raft.replication",
                "maybe_commit",
                "if index <= log.committed or log.term_or_zero(index) != core.term:",
                "if index <= log.committed:",
            ),
        ),
        Test(f"{_FAILURES}::test_commit_of_an_earlier_terms_entry_by_counting", "assert 2 == 0"),
    ),
    Bug(
        "truncation-without-a-conflict",
        "raft",
        "A late, shorter append cuts off what a newer one brought and the node acknowledged "
        "(published of several Raft libraries).",
        (
            Edit(
                "raft.log",
                "RaftLog.maybe_append",
                "at = self._first_new(entries)",
                "at = sum(entry.index <= self.committed for entry in entries)",
            ),
        ),
        Test(
            f"{_FAILURES}::test_truncation_without_a_conflict", r"assert \[1, 1\] == \[1, 1, 1, 1\]"
        ),
    ),
    Bug(
        "commit-past-the-last-entry-checked",
        "raft",
        "A follower takes the leader's commit index up to its own last entry, though the append "
        "was compared with its log only up to its own end.",
        (
            Edit(
                "raft.log",
                "RaftLog.maybe_append",
                "self.commit_to(min(committed, last_checked))",
                "self.commit_to(min(committed, self.last_index))",
            ),
        ),
        Test(f"{_FAILURES}::test_commit_past_the_last_entry_checked", "assert 4 == 2"),
    ),
    Bug(
        "heartbeat-commits-what-is-not-known-to-be-equal",
        "raft",
        "A heartbeat carries the leader's commit index to a follower whose log was not compared "
        "so far.",
        (
            Edit(
                "raft.replication",
                "broadcast_heartbeat",
                "commit = min(progress.match, committed)",
                "commit = committed",
            ),
            Edit(
                "raft.follower",
                "_step_of_leader",
                "core.log.commit_to(message.commit)",
                "core.log.commit_to(min(message.commit, core.log.last_index))",
            ),
        ),
        Test("tests/raft/test_chaos.py", r"seed \d+: "),
    ),
    Bug(
        "applied-before-the-own-write",
        "raft",
        "A node applies what others have made durable before its own disk has it: its state, and "
        "a snapshot of it, are ahead of its log.",
        (
            Edit(
                "raft.log",
                "RaftLog._appliable",
                "return min(self.committed, self.unstable.offset - 1)",
                "return self.committed",
            ),
        ),
        Test(
            f"{_FAILURES}::test_leader_applying_before_its_own_write_is_durable",
            "a restart would find it in the state, not in the log",
        ),
    ),
    Bug(
        "late-completion-of-an-overwritten-suffix",
        "raft",
        "The completion of a write is known by its index only, so that a late one makes entries "
        "durable that have replaced those it was about (published of etcd's design).",
        (
            Edit(
                "raft.unstable",
                "Unstable.stable_to",
                "if not 0 <= at < len(self.entries) or self.entries[at].term != term:",
                "if not 0 <= at < len(self.entries):",
            ),
            Edit(
                "raft.raft",
                "_step_older_term",
                "if kind is MSG_STORAGE_APPEND_RESP:",
                """
                if kind is MSG_STORAGE_APPEND_RESP:
                    _handle_stored(core, message)
                    return True
                if kind is MSG_STORAGE_APPEND_RESP:
                """,
            ),
        ),
        Test(
            f"{_FAILURES}::test_late_completion_of_an_overwritten_suffix",
            "still only in memory",
        ),
    ),
    Bug(
        "reply-of-a-stale-term-accepted",
        "raft",
        "An acknowledgement of an earlier term is counted in this one, for entries that have been "
        "replaced since.",
        (
            Edit(
                "raft.raft",
                "step",
                "if term < core.term:",
                "if term < core.term and message.type is MSG_APP_RESP and core.role is LEADER:\n"
                "    return step_leader(core, message)\n"
                "if term < core.term:",
            ),
        ),
        Test(f"{_FAILURES}::test_reply_with_a_stale_term_accepted", "assert not True"),
    ),
    Bug(
        "two-leaders-of-one-term-tolerated",
        "raft",
        "A second leader in a term is followed like the first, instead of stopping the node before "
        "it acknowledges anything more.",
        (
            Edit(
                "raft.core",
                "Core.follow",
                "assert self.term_leader in (NO_NODE, lead), (",
                "assert True, (",
            ),
            Edit(
                "raft.leader",
                "_step_of_peer",
                'assert message.type.name not in ("MSG_APP", "MSG_HEARTBEAT", "MSG_SNAP"), (',
                "assert True, (",
            ),
        ),
        Test(
            f"{_FAILURES}::test_two_leaders_of_one_term_tolerated_instead_of_stopped",
            "DID NOT RAISE",
        ),
        is_simulated=False,  # by itself it is harmless: it needs a second bug to be there
    ),
    Bug(
        "asymmetric-partition-livelock",
        "raft",
        "Without PreVote and CheckQuorum, a node that is heard and hears nobody deposes one leader "
        "after the other (the outage of a large provider in 2020).",
        (
            Edit(
                "raft.election",
                "hup",
                "if core.config.pre_vote and not transfer:",
                "if False:",
            ),
            Edit("raft.election", "is_leader_alive", "core.config.check_quorum", "False"),
        ),
        Test(f"{_FAILURES}::test_asymmetric_partition_livelock", r"assert \(\[\] == \[1\]"),
    ),
    Bug(
        "leader-without-a-majority-goes-on",
        "raft",
        "A leader that hears from no majority keeps the lead, so that its clients wait for ever "
        "behind a partition.",
        (
            Edit(
                "raft.leader",
                "_check_quorum",
                "if active < majority(len(core.voters)):",
                "if False:",
            ),
        ),
        Test(
            f"{_PAPER}::test_leader_without_a_majority_steps_down",
            r"Role.LEADER.* == \(<Role.FOLLOWER",
        ),
    ),
    Bug(
        "votes-for-any-log",
        "raft",
        "A vote is given without a look at the candidate's log, so that a node leads that lacks "
        "committed entries.",
        (
            Edit(
                "raft.election",
                "handle_vote_request",
                "granted = free and core.log.is_up_to_date(message.index, message.log_term)",
                "granted = free",
            ),
        ),
        Test(
            f"{_PAPER}::test_vote_is_refused_to_a_log_that_lacks_something", r"False\) == .*True\)"
        ),
    ),
    Bug(
        "votes-twice-in-a-term",
        "raft",
        "A vote is given to whoever asks, though another candidate of the term has it.",
        (
            Edit(
                "raft.election",
                "handle_vote_request",
                "or (core.vote == NO_NODE and core.lead == NO_NODE)",
                "or core.lead == NO_NODE",
            ),
        ),
        Test(_PAPER, r"\(2, False\).* == \[\(2, True\)"),
    ),
    Bug(
        "half-is-a-majority",
        "raft",
        "One of three and two of five are taken for a majority: the rounding is off by one.",
        (Edit("raft.quorum", "majority", "return voters // 2 + 1", "return max(voters // 2, 1)"),),
        Test("tests/raft/test_quorum.py", "assert 1 == 2"),
    ),
    Bug(
        "read-index-before-a-commit-of-its-term",
        "raft",
        "A new leader answers a linearizable read before it has committed an entry of its own, "
        "when it can't know yet what its predecessors had committed.",
        (
            Edit(
                "raft.leader",
                "_read_index",
                "if not core.committed_in_term():",
                "if False:",
            ),
        ),
        Test(
            f"{_PAPER}::test_read_waits_until_the_leader_has_committed_in_its_term", "b'early': 0"
        ),
    ),
    Bug(
        "read-without-a-quorum",
        "raft",
        "A linearizable read is answered by whoever thinks that it leads: a deposed leader shows "
        "an old total (published of several stores).",
        (
            Edit(
                "raft.leader",
                "_read_index",
                "elif core.is_alone():",
                "elif True:",
            ),
        ),
        Test(f"{_PAPER}::test_deposed_leader_answers_no_read", "b'stale': 1"),
    ),
    Bug(
        "snapshot-forgets-what-follows",
        "raft",
        "A follower takes a snapshot of a part of its log in place of the whole log, and forgets "
        "entries behind it that it has acknowledged.",
        (
            Edit(
                "raft.follower",
                "_maybe_restore",
                "if log.matches(meta.index, meta.term):",
                "if False:",
            ),
        ),
        Test(f"{_PAPER}::test_snapshot_of_a_part_of_the_log_leaves_what_follows", "assert"),
        is_simulated=False,  # a follower whose log holds the entry is not sent a snapshot
    ),
)
