"""Planted bugs of the disk's side: log, tail, witness, superblock, snapshots, retention."""

from __future__ import annotations

from tests.planted.bug import Bug, Test
from tests.planted.planting import Edit

_CRASH = "tests/storage/test_crash.py::test_acknowledged_entries_survive_power_cuts"

BUGS = (
    Bug(
        "sync-error-retried",
        "storage",
        "A sync that failed is tried again and succeeds, because the kernel has dropped the pages "
        "(fsyncgate, found in PostgreSQL in 2018).",
        (
            Edit(
                "storage.active",
                "ActiveSegment.write",
                "except DiskFullError:",
                "except FatalStorageError:\n    self.file.sync()\nexcept DiskFullError:",
            ),
            Edit("storage.wal", "Wal._fail", "self._failure = error", "pass"),
        ),
        Test("tests/storage/test_wal.py::test_a_failed_sync_is_never_tried_again", "DID NOT RAISE"),
    ),
    Bug(
        "answered-before-the-sync",
        "storage",
        "The group commit delivers what waits for a sync as soon as the entries are staged.",
        (
            Edit(
                "server.group_commit",
                "GroupCommit.write",
                "if not self._pending and self.wal.synced_index >= self._last_given:",
                "if not self._pending:",
            ),
        ),
        Test(
            "tests/server/test_replica.py::test_a_follower_acknowledges_only_after_its_sync",
            "the leader has heard of no entry that is not durable there",
        ),
    ),
    Bug(
        "late-news-of-a-sync-believed",
        "storage",
        "The sync thread's word counts for the indexes it synced, though other entries stand there "
        "by the time it is heard.",
        (
            Edit(
                "server.group_commit",
                "GroupCommit._on_synced",
                "synced = min(synced, self.wal.synced_index)",
                "synced = max(synced, self.wal.synced_index)",
            ),
        ),
        Test(
            "tests/server/test_replica.py::"
            "test_news_of_a_sync_that_comes_late_acknowledges_nothing_of_what_replaced_it",
            "nothing of the new entries is durable here",
        ),
    ),
    Bug(
        "acknowledgement-of-what-was-never-written",
        "storage",
        "A follower whose disk was full acknowledges entries once others have taken their place: "
        "the answers that waited for them are let out.",
        (
            Edit(
                "server.group_commit",
                "GroupCommit._settle_before",
                "(min(at, first - 1), [one for one in held if not _claims(one, first)])",
                "(min(at, first - 1), held)",
            ),
        ),
        Test(
            "tests/server/test_replica.py::"
            "test_what_a_full_disk_kept_is_not_acknowledged_to_the_leader_it_came_from",
            "entries that are on no disk of node 3",
        ),
    ),
    Bug(
        "suffix-removed-front-to-back",
        "storage",
        "A conflicting suffix is removed from its first segment on, without a note that it goes: "
        "a power cut leaves a log with a hole.",
        (
            Edit(
                "storage.wal",
                "Wal.truncate_after",
                "self._witness.begin_cut(index)",
                "self._witness.settle(index, self.commit_hint)",
            ),
            Edit(
                "storage.wal",
                "Wal._remove_after",
                "while self._stored.all and self._stored.all[-1].first_index > index:",
                """
                for segment in [one for one in self._stored.all if one.first_index > index][:-1]:
                    self._disk.remove(segment.path)
                    self._disk.sync_directory(self._directory)
                    self._stored.all = [one for one in self._stored.all if one is not segment]
                while self._stored.all and self._stored.all[-1].first_index > index:
                """,
            ),
        ),
        Test(
            "tests/storage/test_truncation.py::"
            "test_a_power_cut_at_any_step_leaves_the_old_log_or_the_new_one",
            "CorruptionError|RottenEntryError|neither the old log nor the new",
        ),
    ),
    Bug(
        "torn-tail-believed",
        "storage",
        "An entry whose header is whole is taken for whole: the checksum of its body is not looked "
        "at, and a write that a crash cut short is counted.",
        (
            Edit(
                "storage.segments",
                "Walk.__iter__",
                "if crc32(body) != body_crc or tail != layout.entry_tail(crc, length):",
                "if False:",
            ),
        ),
        Test(_CRASH, "an entry that nobody wrote"),
    ),
    Bug(
        "rot-truncated",
        "storage",
        "The log is cut at the first checksum that is wrong, as most logs do: a flipped bit takes "
        "acknowledged entries with it.",
        (
            Edit(
                "storage.tail",
                "check_tail",
                "index, damage = walk.next_index, walk.damage",
                """
                index, damage = walk.next_index, walk.damage
                if damage is not None or first_not_blank(file, walk.position, walk.limit) >= 0:
                    return True
                """,
            ),
        ),
        Test(
            "tests/storage/test_damage.py::"
            "test_every_flipped_byte_of_the_log_is_refused_or_harmless",
            "assert 1 == 8",
        ),
    ),
    Bug(
        "torn-tail-taken-for-rot",
        "storage",
        "A write that a crash cut short is refused as damage, and a power cut keeps a node down.",
        (
            Edit(
                "storage.tail",
                "_has_missing_sector",
                "return blank > damage.blank_sectors",
                "return False",
            ),
        ),
        Test(_CRASH, "RottenEntryError"),
    ),
    Bug(
        "witness-before-the-sync",
        "storage",
        "The witness names an entry as durable before it is: after a crash the log seems to have "
        "lost what it never had, and is refused.",
        (
            Edit(
                "storage.wal",
                "Wal.sync",
                "if staged:",
                """
                if staged:
                    self._witness.raise_to(staged[-1].index)
                if staged:
                """,
            ),
        ),
        Test(_CRASH, "CorruptionError|RottenEntryError"),
    ),
    Bug(
        "superblock-not-synced",
        "storage",
        "The superblock is written and not synced before its facts are relied upon: a power cut "
        "takes back the vote.",
        (Edit("storage.superblock", "SuperblockFile._write_copy", "self._file.sync()", "pass"),),
        Test("tests/storage/test_member_crash.py", "a vote was lost"),
    ),
    Bug(
        "snapshot-installed-over-the-old-log",
        "storage",
        "A peer's snapshot takes effect and the segments that it replaces stay: the next start "
        "finds a log of another history.",
        (
            Edit(
                "storage.wal",
                "Wal.restart_after",
                "remove_segments(self._disk, self._directory)",
                "pass",
            ),
        ),
        Test("tests/storage/test_install.py", "RottenEntryError"),
    ),
    Bug(
        "retention-past-the-snapshot",
        "storage",
        "Old segments go by age and size alone, without a look at which of their entries a "
        "snapshot holds: the next start can't replay.",
        (
            Edit(
                "storage.retention",
                "first_kept",
                "if last > covered_index or not (is_old or is_over):",
                "if not (is_old or is_over):",
            ),
        ),
        Test(_CRASH, "CorruptionError"),
    ),
    Bug(
        "removed-segments-come-back",
        "storage",
        "The superblock does not say which segments are being removed, and a power cut in the "
        "midst of it brings back some of them: the log has a hole.",
        (
            Edit(
                "storage.recovery",
                "Opened.apply_retention",
                "self.superblock.update(removed_timestamp_ns=latest, kept_index=keep)",
                "self.superblock.update(removed_timestamp_ns=latest)",
            ),
        ),
        Test(
            "tests/storage/test_retention.py::"
            "test_a_power_cut_in_a_removal_leaves_a_log_without_a_hole",
            "CorruptionError|RottenEntryError",
        ),
    ),
    Bug(
        "commit-noted-ahead-of-the-log",
        "storage",
        "A commit index that was heard of before its entries came is noted for the entries that "
        "are in their place: the next start counts them.",
        (
            Edit(
                "storage.wal",
                "Wal.commit_hint",
                "min(self._noted_commit, self.applied_index())",
                "self._noted_commit",
            ),
        ),
        Test(
            "tests/storage/test_raft_log.py::"
            "test_a_commit_heard_of_before_its_entries_came_is_not_believed_of_others",
            "assert 10 == 7",
        ),
    ),
    Bug(
        "segment-named-before-it-is-durable",
        "storage",
        "The next segment gets its name before its head and first entries are synced.",
        (
            Edit(
                "storage.active",
                "ActiveSegment.write_first",
                "self.file.sync()",
                "pass",
            ),
        ),
        Test(_CRASH, "CorruptionError|RottenEntryError"),
    ),
    Bug(
        "duplicates-forgotten-at-the-edge",
        "storage",
        "Which events of an entry were duplicates is not noted, so that a total whose range cuts "
        "a bucket counts them.",
        (
            Edit(
                "server.node",
                "Node._count",
                "if applied.duplicates or applied.refused:",
                "if applied.refused:",
            ),
            Edit(
                "storage.recovery",
                "_replay",
                "if applied.duplicates or applied.refused:",
                "if applied.refused:",
            ),
        ),
    ),
    Bug(
        "replays-past-the-commit",
        "storage",
        "A read of no entries begins at a remembered place and goes on to the end of the file, so "
        "a start applies entries that another leader may still replace (ours, November 2026: one "
        "clean stop in a few hundred refused to start again).",
        (Edit("storage.stored", "StoredSegments.read", "if last < first:", "if False:"),),
        Test(
            "tests/storage/test_membership.py::"
            "test_a_member_replays_what_is_committed_and_not_one_entry_more",
            "AssertionError: replay ends at",
        ),
    ),
)
