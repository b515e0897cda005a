"""This node among the others: who may take part, who leads, and what is said beside Raft.

Owns what the node tells its peers and hears from them, apart from the log itself:

    RAFT            ──> node.receive            FORWARD        ──> a stand-in for the client
    STATUS, HASH    ──> `standing`, `hashes`    FORWARD_REPLY  ──> forwarder
    snapshots       <─> `transfers`             FETCH          ──> a committed entry, for repair

and the clock of elections. Who may take part is `joining`'s to say: until then no raft
message is taken and no tick passes, so a node that does not know what it once promised
can't break the promise.

A peer whose process is gone (its host refuses the connection) is forgotten as leader at
once; waiting for the election's timeout would only make the pause longer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from unimeter import limits
from unimeter.control import Actor
from unimeter.errors import DataError, InvalidInputError
from unimeter.raft.messages import MSG_APP_RESP, MSG_SNAP, Entry, Message
from unimeter.raft.storage import Compacted
from unimeter.server import administration
from unimeter.server.connection import Connection
from unimeter.server.forward import Forwarder, StandInTransport
from unimeter.server.hashes import Hashes
from unimeter.server.joining import Joining
from unimeter.server.log import Notice
from unimeter.server.members import Members
from unimeter.server.mending import Mending
from unimeter.server.peers import Peers
from unimeter.server.routes import rows_of
from unimeter.server.standing import Standing
from unimeter.server.tls import Tls
from unimeter.server.transfers import Transfers
from unimeter.storage.incoming import Incoming
from unimeter.storage.layout import FORMAT_VERSION
from unimeter.types import PARTITION_COUNT
from unimeter.wire.messages import (
    ClusterStatusReply,
    ErrorCode,
    ErrorReply,
    PartitionRoute,
    Response,
)
from unimeter.wire.messages import Done as DoneReply
from unimeter.wire.peer import FORWARD, FORWARD_REPLY, HASH, STATUS, FrameKind
from unimeter.wire.peer_hello import PeerHello

if TYPE_CHECKING:
    from unimeter.server.clients import Clients
    from unimeter.server.node import Node

STATUS_TICKS = 10  # a node says how it is twice a second
GONE_CAMPAIGN_SECONDS = 0.03  # times the rank of a node: not all stand for election at once
GONE_CAMPAIGNS = 5  # then the usual timeout takes over; asking for pre-votes harms nobody
TRANSFER_SECONDS = 2.0  # a leader that stops waits so long for another to take over


class Cluster:
    """The peers of one node."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        members: Members,
        node: Node,
        clients: Clients,
        advertise: str,
        say: Callable[[str], None],
        tls: Tls | None = None,
    ) -> None:
        """Bring node and clients together with the peers; then `start`."""
        self.loop, self.members, self.node, self.clients = loop, members, node, clients
        self.advertise, self.say = advertise, say
        incoming = Incoming(node.opened.disk, node.opened.path)
        self.peers = Peers(
            loop,
            members.node_id,
            members.others,
            members.secret,
            self,
            say,
            incoming=incoming,
            platform=node.platform,
            tls=tls,
        )
        self.forwarder = Forwarder(
            self._forward, node.platform.monotonic, members.node_id, self._loop_back
        )
        self.joining = Joining(members, node, say)
        self.standing = Standing(self)
        self.hashes = Hashes(members, node, self._send_hash, say)
        self.transfers = Transfers(self)
        self.mending = Mending(self)
        self._stand_ins: dict[int, Connection] = {}
        self._ticks = 0
        self._last_lead = 0  # the last one known: v1 wants a name at any time
        self._tick_handle: asyncio.TimerHandle | None = None
        self._handovers: list[tuple[float, Callable[[Response, int], None]]] = []
        node.send = self._send
        clients.forwarder = self.forwarder
        clients.directory = self

    async def start(self, listening: socket.socket) -> None:
        """Listen to the peers and dial them."""
        await self.peers.start(listening)
        self._tick_handle = self.loop.call_later(limits.TICK_SECONDS, self._tick)

    async def close(self) -> None:
        """Leave the others."""
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        await self.peers.close()
        self.transfers.close()

    def _tick(self) -> None:
        self._tick_handle = self.loop.call_later(limits.TICK_SECONDS, self._tick)
        try:
            self._ticks += 1
            self.joining.tick()
            if self.clients.auth is not None:
                self.clients.auth.settle()
            if self.joining.is_active:
                self.node.raft_tick()
            if self.node.leads:
                self.clients.lead_taken()  # a former leader may have given something back since
            self.forwarder.tick()
            self.hashes.tick()
            self.transfers.tick()
            self.mending.tick()
            if self._handovers:
                late = ErrorReply(ErrorCode.NOT_LEADER, "that node did not take over in time", 100)
                self._end_handovers(late, self.loop.time())
            if self._ticks % STATUS_TICKS == 0:
                self.standing.tick()
                self.say_status()
                self._leave_the_lead_if_full()
        except Exception as error:
            self.node.fail(error)

    # --- what the peers say (PeerHandler) ---------------------------------------------

    def hello(self) -> PeerHello:
        """This node at this moment."""
        node, block = self.node, self.node.opened.superblock.current
        raft = node.replica.raft
        host, port = self.members.places[self.members.node_id]
        return PeerHello(
            cluster_id=self.members.cluster_id,
            node_id=self.members.node_id,
            members=self.members.voters,
            format_version=FORMAT_VERSION,
            incarnation=block.incarnation,
            membership=self.joining.membership,
            term=max(raft.term, block.term),
            last_index=raft.last_index,
            commit=raft.commit,
            clock_ns=node.clock(),
            advertise=self.advertise,
            address=f"{host}:{port}",
        )

    def judge(self, hello: PeerHello) -> str:
        """Whether that node is the one this node knows by its id."""
        return self.joining.judge(hello)

    def on_up(self, hello: PeerHello) -> None:
        """What is sent to that peer arrives from now on."""
        self.joining.on_up(hello)
        self.standing.heard_hello(hello)
        self.say_status()
        self.forwarder.link_up(hello.node_id)
        self.transfers.link_up(hello.node_id)
        self.clients.map_changed()

    def on_down(self, node_id: int, is_gone: bool) -> None:
        """What was sent may be lost."""
        self.forwarder.link_lost(node_id)
        stand_in = self._stand_ins.pop(node_id, None)
        if stand_in is not None:
            stand_in.transport.close()
            stand_in.connection_lost(None)
        self.node.replica.raft.report_unreachable(node_id)
        if is_gone:
            self.standing.gone(node_id)
            self._leader_gone(node_id)

    def on_refused(self, node_id: int, reason: str) -> None:
        """A peer does not want this node."""
        self.joining.on_refused(node_id, reason)

    def on_message(self, message: Message) -> None:
        """A raft message."""
        if self.joining.may_hear(message):
            self.node.receive(message)
            if message.type is MSG_APP_RESP:
                self.transfers.heard(message.sender)

    def on_frame(self, sender: int, kind: int, payload: memoryview | bytes) -> None:
        """Anything else."""
        if kind == FORWARD:
            self._stand_in(sender).take_frames(payload)
        elif kind == FORWARD_REPLY:
            self.forwarder.replies(bytes(payload))
        elif kind == STATUS:
            self.standing.heard(sender, bytes(payload))
        elif kind == HASH:
            self.hashes.heard(sender, bytes(payload))

    def on_fetched(self, node_id: int, entry: Entry | None) -> None:
        """A peer's copy of an entry that is damaged here."""
        self.mending.fetched(node_id, entry)

    def on_snapshot(self, message: Message, path: str) -> str:
        """A peer's snapshot file, whole and checked."""
        if not self.joining.may_hear(message):
            return "this node does not take part yet"
        return self.transfers.take(message, path)

    def on_failure(self, error: BaseException) -> None:
        """Our own mistake, or the disk's."""
        self.node.fail(error)

    def fetch(self, index: int) -> Entry | None:
        """A committed entry, for a peer whose copy is damaged."""
        node = self.node
        if not node.wal.first_index <= index <= min(node.machine.applied, node.wal.synced_index):
            return None
        try:
            (entry,) = node.replica.log.entries(index, index + 1, 0)
        except (Compacted, DataError):
            return None  # damaged here as well, or removed just now
        return entry

    # --- to the peers -----------------------------------------------------------------

    def _send(self, message: Message) -> None:
        if message.type is MSG_SNAP:
            self.transfers.begin(message)
        else:
            self.peers.send(message)

    def _forward(self, node_id: int, frame: bytes) -> bool:
        return self.peers.send_frame(node_id, FORWARD, frame)

    def say_status(self) -> None:
        """Tell every peer how this node is."""
        payload = self.standing.own_payload()
        for node_id in self.members.others:
            if self.peers.is_up(node_id):
                self.peers.send_frame(node_id, STATUS, payload)

    def _send_hash(self, payload: bytes) -> None:
        for node_id in self.members.others:
            if self.peers.is_up(node_id):
                self.peers.send_frame(node_id, HASH, payload)

    def _stand_in(self, sender: int) -> Connection:
        stand_in = self._stand_ins.get(sender)
        if stand_in is None:
            stand_in = Connection(self.clients, is_stand_in=True)
            stand_in.stand_in_for(StandInTransport(self._way_back(sender)))
            self._stand_ins[sender] = stand_in
        return stand_in

    def _way_back(self, sender: int) -> Callable[[bytes], object]:
        """Where the replies to a node's requests go; this node's own come straight back."""
        if sender == self.members.node_id:
            return self.forwarder.replies
        return lambda data: self.peers.send_frame(sender, FrameKind.FORWARD_REPLY, data)

    def _loop_back(self, frame: bytes) -> None:
        self._stand_in(self.members.node_id).take_frames(frame)

    # --- who leads --------------------------------------------------------------------

    def _leader_gone(self, node_id: int) -> None:
        """The leader's process has ended: stand for election without waiting."""
        replica = self.node.replica
        if replica.lead != node_id or not self.joining.is_active:
            return
        replica.raft.forget_leader(node_id)
        self.node.request_turn()
        others = [voter for voter in self.members.voters if voter != node_id]
        rank = others.index(self.members.node_id)
        pause = GONE_CAMPAIGN_SECONDS * (1 + rank)
        self.loop.call_later(pause, self._campaign, GONE_CAMPAIGNS, pause)

    def _campaign(self, times: int, pause: float) -> None:
        """Stand for election; again, if the others had not heard yet that the leader is gone."""
        if times and self.node.failure is None and not self.node.lead and self.joining.is_active:
            self.node.stand_for_election()
            self.loop.call_later(2 * pause, self._campaign, times - 1, pause)

    def lead_changed(self, lead: int) -> None:
        """Another node leads, or none (0)."""
        own = self.members.node_id
        if lead:
            self._last_lead = lead
            who, term = "this node" if lead == own else f"node {lead}", self.node.replica.term
            self.say(Notice(f"{who} leads in term {term}", event="leader", leader=lead, term=term))
        self.forwarder.lead_changed(0 if lead == own else lead)
        if lead and lead != own:
            self._end_handovers(DoneReply(), float("inf"))

    def routes(self, own_address: str, *, must_lead: bool) -> list[PartitionRoute]:
        """Leader and replicas of every partition."""
        own = self.members.node_id
        addresses = {own: self.advertise or own_address, **self.standing.client_addresses()}
        lead = self.node.lead
        if must_lead and not addresses.get(lead):
            lead = self._last_lead if addresses.get(self._last_lead) else own
        return rows_of(addresses, lead, PARTITION_COUNT)

    def transfer_leader(
        self, node_id: int, done: Callable[[Response, int], None], actor: Actor | None = None
    ) -> None:
        """Hand leadership to a node, 0: to the one that is furthest. Raises for a wrong id."""
        target = self._target(node_id)
        if target == self.members.node_id:
            done(DoneReply(), self.node.machine.applied)
            return
        administration.note(self.node, actor, "leader.transfer", str(target))
        self._handovers.append((self.loop.time() + TRANSFER_SECONDS, done))
        self.node.hand_over_lead(target)

    def _leave_the_lead_if_full(self) -> None:
        """A leader whose disk is full takes nothing in; a node that has room may lead instead."""
        if self.node.leads and self.node.upkeep.is_short_of_disk:
            target = self.best_successor(self.standing.has_disk)
            if target:
                text = f"the disk is full; node {target} is asked to lead"
                self.say(Notice(text, event="disk_full", level="warning", target=target))
                self.node.hand_over_lead(target)

    def _end_handovers(self, reply: Response, until: float) -> None:
        """Tell those who asked for a hand-over before `until` how it went."""
        ended = [done for deadline, done in self._handovers if deadline <= until]
        self._handovers = [one for one in self._handovers if one[0] > until]
        for done in ended:
            done(reply, self.node.machine.applied)

    def complete_status(self, status: ClusterStatusReply) -> None:
        """Add what is known of the other nodes."""
        status.node_count = len(self.members.places)
        status.nodes = self.standing.nodes()
        status.statistics.update(self.statistics())

    def _target(self, node_id: int) -> int:
        if node_id == 0:
            best = self.best_successor()
            if not best:
                raise InvalidInputError("no other node is near enough to take over")
            return best
        if node_id not in self.members.places:
            ids = ", ".join(str(node) for node in self.members.voters)
            raise InvalidInputError(f"there is no node {node_id}; the cluster has {ids}")
        if node_id != self.members.node_id and not self.peers.is_up(node_id):
            raise InvalidInputError(f"node {node_id} is not connected, so it can't take over")
        return node_id

    def best_successor(self, may_lead: Callable[[int], bool] = lambda node: True) -> int:
        """The reachable node whose log is furthest, of those that may lead; 0 = none."""
        progress = self.node.replica.raft.status().progress
        reachable = [
            (progress[node].match, -node)
            for node in self.members.others
            if self.peers.is_up(node)
            and node in progress
            and self.standing.is_voter(node)
            and may_lead(node)
        ]
        return -max(reachable)[1] if reachable else 0

    async def hand_over(self) -> None:
        """Before this node stops: let another one lead, so that clients hardly notice."""
        deadline = self.loop.time() + TRANSFER_SECONDS
        while self.node.leads and self.node.failure is None:
            target = self.best_successor()
            if not target or self.loop.time() > deadline:
                return
            self.node.hand_over_lead(target)
            while self.node.replica.raft.transferee and self.loop.time() < deadline:
                await asyncio.sleep(0.005)

    @property
    def is_quiet(self) -> bool:
        """Whether no request of a client waits for another node."""
        return not len(self.forwarder) and not len(self.node.reads)

    # --- the operator's view ------------------------------------------------------------

    @property
    def readiness(self) -> str:
        """Why clients can't be served here just now; "" when they can."""
        if not self.joining.is_active:
            links = self.peers.peer_statistics()
            found = [
                f"node {node}: {one['reason']}" for node, one in links.items() if one["reason"]
            ]
            return "; ".join([self.joining.reason, *found])
        if not self.node.lead:
            return "no leader is known: a majority of the nodes has to be reachable"
        return ""

    def statistics(self) -> dict[str, int]:
        """Counters of links and forwarding."""
        return {
            **self.peers.statistics(),
            **self.forwarder.statistics(),
            **self.transfers.statistics(),
            "entries_repaired": self.mending.repaired,
        }
