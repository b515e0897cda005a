"""The reads that wait for a majority: numbers, confirmation, order."""

from __future__ import annotations

from unimeter.raft.read_index import ReadIndex, WaitingRead

VOTERS = (1, 2, 3, 4, 5)


def test_one_answer_of_a_majority_confirms_all_reads_before_it() -> None:
    reads = ReadIndex()
    assert reads.heartbeat_context() == b""
    reads.add(1, b"a", 10)
    reads.add(4, b"b", 11)
    context = reads.heartbeat_context()
    reads.acknowledge(2, context)
    assert reads.release(VOTERS, 1) == []
    reads.acknowledge(3, context)
    assert reads.release(VOTERS, 1) == [WaitingRead(1, b"a", 10), WaitingRead(4, b"b", 11)]
    assert reads.heartbeat_context() == b"" and len(reads) == 0


def test_answer_to_an_older_heartbeat_confirms_only_the_older_reads() -> None:
    reads = ReadIndex()
    reads.add(1, b"a", 10)
    older = reads.heartbeat_context()
    reads.add(1, b"b", 10)
    for node in (2, 3):
        reads.acknowledge(node, older)
    assert [read.context for read in reads.release(VOTERS, 1)] == [b"a"]
    newer = reads.heartbeat_context()
    for node in (4, 5):
        reads.acknowledge(node, newer)
    assert [read.context for read in reads.release(VOTERS, 1)] == [b"b"]


def test_answers_of_one_node_count_once() -> None:
    reads = ReadIndex()
    reads.add(1, b"a", 10)
    for _ in range(3):
        reads.acknowledge(2, reads.heartbeat_context())
    assert reads.release(VOTERS, 1) == []


def test_number_that_was_never_given_out_confirms_nothing() -> None:
    reads = ReadIndex()
    reads.add(1, b"a", 10)
    for node in (2, 3):
        reads.acknowledge(node, (99).to_bytes(8, "little"))
    assert reads.release(VOTERS, 1) == []


def test_two_reads_may_have_the_same_context() -> None:
    reads = ReadIndex()
    reads.add(1, b"same", 10)
    reads.add(1, b"same", 12)
    for node in (2, 3):
        reads.acknowledge(node, reads.heartbeat_context())
    assert [read.index for read in reads.release(VOTERS, 1)] == [10, 12]
