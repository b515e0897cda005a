"""Whether this node may take part, and whom it knows by which id.

Owns the rule that a node with an empty disk never passes for the one it was. A voter that
forgot its log and its votes could elect a leader without entries that were acknowledged.
So every data directory has an *incarnation*, a random number made with it, and every
node remembers the incarnations of its peers.

    fresh        a new directory. Votes once **every** other node has answered and accepts it:
                 only all of them together can say that this id never took part before.
    voter        knows the incarnation of each peer; another one under the same id is refused,
                 unless `unimeter recover` made it.
    recovering   made by `unimeter recover` after the disk was lost. What it once promised is
                 not known any more, so it
                   1. hears from **every** other node, and takes no message of a term older than
                      the newest of theirs: whoever had its former self's vote for a term was
                      in that term when it asked for the vote, durably
                   2. follows, without voting
                   3. asks the leader for a position that covers everything committed
                      (ReadIndex), applies up to there, and is a voter again.

Refuses to decide anything about the log; that is Raft's.

Rejected: trusting an empty directory when a majority does. Of three nodes, one that lost its
disk and one that was down while entries were committed are a majority without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unimeter.raft.messages import Message
from unimeter.server.members import Members
from unimeter.storage.superblock import RECOVERED
from unimeter.types import Membership
from unimeter.wire.peer_hello import PeerHello

if TYPE_CHECKING:
    from unimeter.server.node import Node

ASK_TICKS = 20  # between two questions of a recovering node for a position


class Joining:
    """One node's right to take part."""

    def __init__(self, members: Members, node: Node, say: Callable[[str], None]) -> None:
        self.members, self.node, self.say = members, node, say
        self._superblock = node.opened.superblock
        self._accepted: dict[int, PeerHello] = {}  # by fresh or recovering: who answered
        self._refusals: dict[int, str] = {}
        self._term_floor = 0
        self._ticks = 0
        self._is_asking = False
        self._has_caught_up = False
        self.is_active = self.membership is Membership.VOTER

    @property
    def membership(self) -> Membership:
        """As which this node introduces itself."""
        return self._superblock.current.membership

    @property
    def reason(self) -> str:
        """Why this node does not take part yet, as a sentence."""
        missing = [node for node in self.members.others if node not in self._accepted]
        if self._refusals:
            node, sentence = next(iter(sorted(self._refusals.items())))
            return f"node {node} refuses this node: {sentence}"
        names = ", ".join(str(node) for node in missing)
        if self.membership is Membership.FRESH:
            return f"a new node waits until all others have answered once; missing: {names}"
        return f"a recovering node waits until all others have answered; missing: {names}"

    # --- about the others ----------------------------------------------------------

    def judge(self, hello: PeerHello) -> str:
        """Whether that node is the one known by its id; "" or the sentence to refuse it with."""
        node_id, incarnation = hello.node_id, hello.incarnation
        known = dict(self._superblock.current.peers).get(node_id)
        if known is None:
            return self._judge_unknown(hello)
        if known == incarnation:
            return self._judge_age(hello)
        if incarnation & RECOVERED and incarnation > known:
            self._take_new(node_id, incarnation)
            return ""
        if incarnation & RECOVERED:
            return (
                f"node {node_id} comes with a directory that was recovered before the one this "
                "cluster knows: take the newer one, or run `unimeter recover` again, on an empty "
                "directory and with a clock that is right"
            )
        return (
            f"node {node_id} comes with another data directory than the one this cluster knows. "
            f"If its disk was lost, run `unimeter recover` for node {node_id} on an empty "
            "directory; if this is an old copy, take the newer one"
        )

    def _judge_age(self, hello: PeerHello) -> str:
        """A copy of a directory has the same incarnation; the leader knows what it once had."""
        progress = self.node.replica.raft.status().progress.get(hello.node_id)
        if progress is None or hello.last_index >= progress.match:
            return ""
        return (
            f"node {hello.node_id} has entries up to {hello.last_index} and once acknowledged "
            f"entry {progress.match}: its directory is an older copy, or lost its end. Start it "
            "on the newer one, or run `unimeter recover` for it on an empty directory"
        )

    def _judge_unknown(self, hello: PeerHello) -> str:
        """This node is new itself, so it knows nobody; a voter it meets must know it."""
        assert self.membership is not Membership.VOTER, "a voter knows everybody"
        return ""

    def _take_new(self, node_id: int, incarnation: int) -> None:
        """The node lost its disk: what its former self acknowledged counts no more."""
        peers = dict(self._superblock.current.peers)
        peers[node_id] = incarnation
        self._superblock.update(peers=tuple(sorted(peers.items())))
        self.node.replica.forget(node_id)
        self.node.request_turn()
        self.say(f"node {node_id} was recovered on a new data directory")

    # --- about this node -------------------------------------------------------------

    def on_up(self, hello: PeerHello) -> None:
        """A peer accepted this node."""
        self._refusals.pop(hello.node_id, None)
        if self.is_active:
            return
        self._accepted[hello.node_id] = hello
        if len(self._accepted) < len(self.members.others):
            return
        if self.membership is Membership.FRESH:
            self._activate()
        else:
            self._follow()

    def on_refused(self, node_id: int, reason: str) -> None:
        """A peer does not want this node; it is asked again now and then."""
        self._refusals[node_id] = reason

    def _peers_met(self) -> tuple[tuple[int, int], ...]:
        known = dict(self._superblock.current.peers)
        known.update({node: hello.incarnation for node, hello in self._accepted.items()})
        return tuple(sorted(known.items()))

    def _activate(self) -> None:
        """All others know this node now: it votes."""
        self._superblock.update(membership=Membership.VOTER, peers=self._peers_met())
        self.is_active = True
        self.node.replica.is_mute = False
        self.say("all nodes have met; this node takes part")

    def _follow(self) -> None:
        """Take part as a follower without a vote."""
        self._superblock.update(peers=self._peers_met())
        self._term_floor = max(hello.term for hello in self._accepted.values())
        self.is_active = True
        self.say(f"recovering: follows the leaders from term {self._term_floor} on")

    def may_hear(self, message: Message) -> bool:
        """Whether a raft message may be taken."""
        return self.is_active and not (message.term and message.term < self._term_floor)

    def tick(self) -> None:
        """Ask, while recovering, whether this node has caught up."""
        if not self.is_active or self.membership is not Membership.RECOVERING:
            return
        self._ticks += 1
        if self._has_caught_up:
            self._has_caught_up = False
            self._vote_again()
        elif self.node.lead and not self._is_asking and self._ticks % ASK_TICKS == 0:
            self._is_asking = True
            self.node.reads.after_quorum(self._caught_up, self._ask_later)
            self.node.request_turn()

    def _ask_later(self) -> None:
        self._is_asking = False

    def _caught_up(self) -> None:
        """Everything committed when the question was asked is applied here.

        Called while the replica carries out what raft wants, so the vote, which is to be
        durable first, waits for the next tick.
        """
        self._is_asking = False
        self._has_caught_up = True

    def _vote_again(self) -> None:
        raft = self.node.replica.raft
        if not self.node.lead or self.membership is not Membership.RECOVERING:
            return
        # The former self may have voted in this term: its vote is the leader's now.
        raft.vote_for_leader()
        self.node.replica.carry_out()
        assert self._superblock.current.vote or raft.lead == 0, "the vote is durable"
        self._superblock.update(membership=Membership.VOTER, peers=self._peers_met())
        self._term_floor = 0
        self.node.replica.is_mute = False
        self.say(
            f"recovered: caught up to entry {self.node.machine.applied}; this node votes again"
        )
