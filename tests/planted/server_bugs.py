"""Planted bugs of the node among its peers and clients: reads, forwarding, joining, links."""

from __future__ import annotations

from tests.planted.bug import Bug, Test
from tests.planted.planting import Edit

_REPLICA = "tests/server/test_replica.py"
_READS = "tests/server/test_reads.py"
_JOINING = "tests/server/test_joining.py"

BUGS = (
    Bug(
        "query-served-by-a-deposed-leader",
        "server",
        "A node that thinks it leads answers a linearizable read from its memory, without asking "
        "whether it still does.",
        (
            Edit(
                "server.connection",
                "Connection._when_current",
                "if request.linearizable or header.version == VERSION_1:",
                "if not node.leads and (request.linearizable or header.version == VERSION_1):",
            ),
        ),
        Test(
            f"{_READS}::"
            "test_a_deposed_leader_answers_no_linearizable_read_and_a_session_read_at_once",
            "UsageReply",
        ),
    ),
    Bug(
        "session-read-before-its-position",
        "server",
        "A follower answers a read at once, though it names a position that the follower has not "
        "applied: a client does not see what it has written.",
        (
            Edit(
                "server.connection",
                "Connection._when_current",
                "elif request.min_position > node.machine.applied:",
                "elif False:",
            ),
            Edit(
                "server.answering",
                "check_read",
                "if request.min_position > node.machine.applied:",
                "if False:",
            ),
        ),
        Test(
            f"{_READS}::test_a_session_read_waits_on_a_follower_for_the_position_it_names",
            "UsageReply",
        ),
    ),
    Bug(
        "confirmed-read-does-not-wait",
        "server",
        "A linearizable read runs when the quorum has answered, before this node has applied the "
        "position of the answer.",
        (
            Edit(
                "server.reads",
                "Reads.confirmed",
                "self._wait_for(index, read)",
                "read.run()",
            ),
        ),
        Test(
            f"{_READS}::test_a_confirmed_read_waits_until_its_position_is_applied",
            r"\['a'\] == \[\]",
        ),
    ),
    Bug(
        "old-answer-of-the-quorum-taken",
        "server",
        "The quorum's answer to a question that was given up is taken for the answer to the "
        "next one.",
        (Edit("server.reads", "Reads.confirmed", "if context != self._context:", "if False:"),),
        Test(f"{_READS}::test_an_answer_to_a_question_given_up_is_ignored", r"\['a'\] == \[\]"),
    ),
    Bug(
        "reply-to-whoever-waits-at-that-index",
        "server",
        "An entry's reply goes to the request that was proposed at its index, in whichever term: "
        "a batch that was lost with a leader is acknowledged.",
        (
            Edit(
                "server.node",
                "Node._who_waits",
                "if not waiting:\n    return None",
                """
                if not waiting:
                    return None
                mine = [place for place in waiting if place[0] == entry.index]
                return waiting.pop(mine[0]) if mine else None
                """,
            ),
        ),
        Test(
            f"{_REPLICA}::test_an_index_that_is_proposed_again_in_a_later_term_answers_both",
            "assert",
        ),
    ),
    Bug(
        "new-leader-forgets-what-is-not-applied",
        "server",
        "A new leader goes on behind what it has applied, not behind what its log holds: offsets "
        "are given out twice.",
        (
            Edit(
                "server.node",
                "Node._go_on_from_log",
                "if newest is not None:",
                "if False:",
            ),
        ),
        Test(
            f"{_REPLICA}::test_a_new_leader_goes_on_behind_what_is_not_applied_yet",
            "offsets do not follow the last",
        ),
    ),
    Bug(
        "new-leader-goes-back-in-time",
        "server",
        "A new leader stamps entries with its own clock, which is behind that of the one before.",
        (
            Edit(
                "server.node",
                "Node._go_on_from_log",
                "self._timestamp_ns = max(self.replica.timestamp_ns, self.machine.timestamp_ns)",
                "self._timestamp_ns = 0",
            ),
        ),
        Test(
            f"{_REPLICA}::test_time_never_goes_back_between_leaders_an_hour_apart",
            "the log's clock went back",
        ),
    ),
    Bug(
        "forwarded-reply-to-the-wrong-client",
        "server",
        "A request that is sent on keeps its client's request id on the link: two clients with "
        "the same id get each other's replies.",
        (
            Edit(
                "server.forward",
                "Forwarder.take",
                "self._last_id = self._last_id % 0xFFFF_FFFF + 1",
                """
                self._last_id = request_id
                if request_id in self._requests:
                    self._forget(request_id)
                """,
            ),
        ),
        Test(
            "tests/server/test_forward.py::test_replies_find_their_client_and_their_request_id",
            "ids are the link's own",
        ),
    ),
    Bug(
        "forwarded-twice-without-a-key",
        "server",
        "Whatever was sent to a leader that is lost is sent to the next one, also what nobody "
        "could recognise as a duplicate.",
        (
            Edit(
                "server.forward",
                "Forwarded.may_repeat",
                "if self.kind not in _INGEST:",
                "return True\nif self.kind not in _INGEST:",
            ),
        ),
        Test(
            "tests/server/test_forward.py::"
            "test_what_may_not_is_never_sent_twice_and_its_outcome_said_to_be_unknown",
            r"\[2, 3, 3\] == \[2\]",
        ),
        is_simulated=False,  # the SDK's batches have sessions; older clients' have not
    ),
    Bug(
        "incarnation-not-checked",
        "server",
        "A node with an empty disk passes for the one it was: it votes, and what it once "
        "acknowledged still counts.",
        (
            Edit(
                "server.joining",
                "Joining.judge",
                "if known == incarnation:",
                "if True:",
            ),
            Edit("server.joining", "Joining._judge_age", "if progress is None or", "if True or"),
        ),
        Test(
            f"{_JOINING}::test_an_empty_directory_under_a_known_id_is_refused_and_never_votes",
            "node 3 failed",
        ),
    ),
    Bug(
        "recovering-node-votes",
        "server",
        "A node whose disk was lost votes before it has caught up, for candidates that lack what "
        "its former self had acknowledged.",
        (
            Edit(
                "server.replica",
                "Replica.step",
                "if message.type is MSG_PROP or (self.is_mute and message.type in _MUTE):",
                "if message.type is MSG_PROP:",
            ),
        ),
        Test(
            f"{_JOINING}::test_a_node_that_recovers_votes_for_nobody_and_never_stands",
            "Membership.VOTER",
        ),
    ),
    Bug(
        "recovering-node-hears-older-terms",
        "server",
        "A node whose disk was lost takes messages of terms in which its former self had voted for "
        "another.",
        (
            Edit(
                "server.joining",
                "Joining.may_hear",
                "return self.is_active and not (message.term and message.term < self._term_floor)",
                "return self.is_active",
            ),
        ),
        Test(
            f"{_JOINING}::"
            "test_a_node_that_recovers_takes_no_message_of_a_term_before_the_newest_it_heard_of",
            "assert",
        ),
    ),
    Bug(
        "former-self-of-a-recovered-node-counted",
        "server",
        "What a node acknowledged before its disk was lost still counts for a majority.",
        (
            Edit(
                "server.joining",
                "Joining._take_new",
                "self.node.replica.forget(node_id)",
                "pass",
            ),
        ),
        Test(
            f"{_JOINING}::test_the_leader_forgets_what_the_lost_disk_had_acknowledged",
            "assert 4 == 0",
        ),
    ),
    Bug(
        "peer-frame-not-checked",
        "server",
        "The checksum of a peer's frame is not compared: a bit that was flipped on the way is "
        "appended, acknowledged and counted.",
        (
            Edit(
                "wire.peer",
                "PeerFramer.next_frame",
                "if zlib.crc32(payload) != crc:",
                "if False:",
            ),
        ),
        Test(
            "tests/wire/test_peer.py::test_every_flipped_bit_is_noticed_before_its_frame_comes_out",
            "DID NOT RAISE PeerProtocolError",
        ),
    ),
    Bug(
        "misdirected-message-taken",
        "server",
        "A message for another node is taken, because nobody looks whom it is for.",
        (
            Edit(
                "server.peer_link",
                "PeerLink._take",
                "if message.to != peers.node_id:",
                "if False:",
            ),
        ),
        Test(
            "tests/server/test_peers.py::"
            "test_a_frame_that_makes_no_sense_closes_the_connection_with_a_counted_reason",
            "assert|Error",
        ),
        is_simulated=False,  # a link goes to one node: only a wrong program misdirects
    ),
    Bug(
        "states-not-compared",
        "server",
        "Replicas tell each other the hashes of their states and nobody compares them: a flipped "
        "bit in memory goes on answering.",
        (
            Edit(
                "server.hashes",
                "Hashes._compare",
                "if own is not None and own != common and count >= self.members.majority:",
                "if False:",
            ),
        ),
        Test(
            "tests/server/test_hashes.py::"
            "test_a_replica_whose_memory_was_damaged_stops_and_the_others_go_on",
            "DivergedError",
        ),
        is_simulated=False,  # by itself it is harmless: it needs damaged memory to be there
    ),
    Bug(
        "deposed-leaders-clients-wait-for-ever",
        "server",
        "A batch whose entry was displaced by another leader's is neither answered nor refused.",
        (Edit("server.node", "Node._displaced", "self._send_away(entry)", "pass"),),
        Test(
            f"{_REPLICA}::test_a_deposed_leaders_entries_are_refused_once_others_stand_in_their_place",
            "assert",
        ),
        is_simulated=False,  # the SDK asks elsewhere, so that it is slow and no more
    ),
    Bug(
        "held-requests-forgotten",
        "server",
        "A node that takes the lead does not carry out what its clients had sent while nobody led.",
        (
            Edit(
                "server.clients", "Clients.lead_taken", "self.forwarder.let_in", "(lambda take: 0)"
            ),
        ),
        Test(
            "tests/server/test_forward.py::"
            "test_requests_held_during_a_hand_over_that_fails_are_carried_out_here",
            "assert",
        ),
        is_simulated=False,  # the SDK asks again, so that it is slow and no more
    ),
)
