"""Requests that another node answers: held, sent on, sent again, and never answered wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from tests.server.clusters import FakeClient, World, world
from tests.server.rawclient import START_NS, batch

from unimeter.server import forward
from unimeter.server.forward import ANSWER_SECONDS, HOLD_SECONDS, Forwarder
from unimeter.types import AggType, Event, MetricSchema
from unimeter.wire.framer import ResponseFramer, parse_request_header, request_frame, response_frame
from unimeter.wire.messages import (
    Done,
    ErrorCode,
    ErrorReply,
    Ingest,
    IngestRow,
    MetricDelete,
    MetricPut,
    PacketType,
    Request,
    Status,
    TransferLeader,
)
from unimeter.wire.peer import FORWARD, FORWARD_REPLY
from unimeter.wire.v1_requests import encode_request as encode_v1
from unimeter.wire.v2_ingest import encode_ingest
from unimeter.wire.v2_replies import encode_response as encode_v2_response
from unimeter.wire.v2_requests import encode_request as encode_v2


class FakeConnection:
    """A client of the follower: what it was told."""

    def __init__(self) -> None:
        self.is_gone = False
        self.framer = ResponseFramer()
        self.told: list[tuple[int, int]] = []  # request id, status
        self.refused: list[tuple[int, ErrorCode]] = []

    def write(self, data: bytes) -> None:
        self.framer.receive_data(data)
        while (frame := self.framer.next_frame()) is not None:
            self.told.append((frame.request_id, frame.status))

    def refuse(self, version: int, request_id: int, reply: ErrorReply) -> None:
        self.refused.append((request_id, reply.code))


class Links:
    """The forwarder's way out: which nodes are reached, and what each was sent."""

    def __init__(self) -> None:
        self.up = {2, 3}
        self.now = 100.0
        self.sent: list[tuple[int, int, bytes]] = []  # node, link id, payload
        self.looped: list[tuple[int, bytes]] = []  # link id, payload
        self.forwarder = Forwarder(self._send, lambda: self.now, 1, self._loop_back)

    def _send(self, node: int, frame: bytes) -> bool:
        if node not in self.up:
            return False
        header = parse_request_header(frame)
        assert header is not None
        self.sent.append((node, header.request_id, frame[16:]))
        return True

    def _loop_back(self, frame: bytes) -> None:
        header = parse_request_header(frame)
        assert header is not None
        self.looped.append((header.request_id, frame[16:]))

    def take(self, connection: FakeConnection, request_id: int, frame: bytes) -> bool:
        header = parse_request_header(frame)
        assert header is not None
        return self.forwarder.take(
            cast(Any, connection), header.version, header.packet_type, request_id, frame
        )

    def reply(self, link_id: int, status: int = 0) -> None:
        self.forwarder.replies(response_frame(2, status, link_id, b"words"))


@pytest.fixture
def links() -> Links:
    return Links()


@pytest.fixture
def w() -> Iterator[World]:
    with world() as made:
        yield made


def v2(events: int = 1, sequence: int = 0, request_id: int = 5) -> bytes:
    session = {"session_hi": 1, "session_lo": 2, "sequence": sequence} if sequence else {}
    payload = encode_ingest(batch(7, events), **session)
    return request_frame(2, PacketType.INGEST_SYNC, request_id, payload)


def v1(*timestamps: int) -> bytes:
    rows = [IngestRow(7, "calls", 1, timestamp) for timestamp in timestamps]
    kind, payload = encode_v1(Ingest(rows))
    return request_frame(1, kind, 5, payload)


def other(request: Request) -> bytes:
    kind, payload = encode_v2(request)
    return request_frame(2, kind, 5, payload)


PUT = MetricPut(MetricSchema("calls", AggType.COUNT))
REPEATABLE = [
    pytest.param(v2(sequence=1), id="session"),
    pytest.param(v1(START_NS, START_NS + 1), id="timed"),
    pytest.param(other(PUT), id="put"),
]
ONCE = [
    pytest.param(v2(), id="no-session"),
    pytest.param(v1(START_NS, 0), id="untimed"),
    pytest.param(other(MetricDelete("calls")), id="delete"),
    pytest.param(other(TransferLeader(0)), id="transfer"),
]

# --- the way there and back ----------------------------------------------------------------


def test_replies_find_their_client_and_their_request_id(links: Links) -> None:
    links.forwarder.lead_changed(2)
    one, two = FakeConnection(), FakeConnection()
    links.take(one, 5, v2())
    links.take(two, 5, v2())
    links.take(one, 6, v2())
    ids = [link_id for _, link_id, _ in links.sent]
    assert len(set(ids)) == 3, "ids are the link's own"
    links.reply(ids[2])
    links.forwarder.replies(
        response_frame(2, 0, ids[1], b"a") + response_frame(2, Status.DUPLICATE, ids[0])
    )
    assert one.told == [(6, 0), (5, 1)]
    assert two.told == [(5, 0)]
    assert (len(links.forwarder), links.forwarder.held_bytes) == (0, 0)


def test_the_frame_goes_on_as_it_came(links: Links) -> None:
    links.forwarder.lead_changed(2)
    frame = v2(3, sequence=9)
    links.take(FakeConnection(), 5, frame)
    assert links.sent[0][2] == frame[16:]


def test_requests_are_held_while_nobody_leads_and_sent_in_order_when_somebody_does(
    links: Links,
) -> None:
    connection = FakeConnection()
    for request_id in (1, 2, 3):
        links.take(connection, request_id, v2(request_id))
    assert links.sent == []
    links.forwarder.lead_changed(3)
    assert [node for node, _, _ in links.sent] == [3, 3, 3]
    assert [payload for _, _, payload in links.sent] == [v2(n)[16:] for n in (1, 2, 3)]


def test_requests_are_held_while_there_is_no_link_to_the_leader(links: Links) -> None:
    links.up = set()
    links.forwarder.lead_changed(2)
    links.take(FakeConnection(), 5, v2())
    assert links.sent == []
    links.up = {2}
    links.forwarder.link_up(3)
    assert links.sent == []
    links.forwarder.link_up(2)
    assert len(links.sent) == 1


def test_a_request_held_too_long_is_refused_and_said_to_be_undone(links: Links) -> None:
    connection = FakeConnection()
    links.take(connection, 5, v2())
    links.now += HOLD_SECONDS - 0.1
    links.forwarder.tick()
    assert connection.refused == []
    links.now += 0.2
    links.forwarder.tick()
    assert connection.refused == [(5, ErrorCode.NOT_LEADER)]
    assert (len(links.forwarder), links.forwarder.held_bytes) == (0, 0)


def test_bytes_on_their_way_are_bounded(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = v2(5)
    monkeypatch.setattr(forward, "HELD_BYTES_MAX", 3 * len(frame))
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    assert [links.take(connection, n, frame) for n in (1, 2, 3, 4)] == [True] * 3 + [False]
    links.reply(links.sent[0][1])
    assert links.take(connection, 4, frame)


def test_a_client_that_is_gone_is_forgotten(links: Links) -> None:
    connection = FakeConnection()
    links.take(connection, 5, v2())
    connection.is_gone = True
    links.forwarder.tick()
    assert (len(links.forwarder), links.forwarder.held_bytes) == (0, 0)


# --- a leader that is lost ---------------------------------------------------------------------


@pytest.mark.parametrize("frame", REPEATABLE)
@pytest.mark.parametrize("how", ["link", "lead"])
def test_what_may_be_carried_out_twice_is_sent_again_when_its_leader_is_lost(
    links: Links, frame: bytes, how: str
) -> None:
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    links.take(connection, 5, frame)
    if how == "link":
        links.up = {3}
        links.forwarder.link_lost(2)
    links.forwarder.lead_changed(3)
    assert [node for node, _, _ in links.sent] == [2, 3]
    links.reply(links.sent[1][1])
    assert (connection.told, connection.refused) == ([(5, 0)], [])


@pytest.mark.parametrize("frame", ONCE)
def test_what_may_not_is_never_sent_twice_and_its_outcome_said_to_be_unknown(
    links: Links, frame: bytes
) -> None:
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    links.take(connection, 5, frame)
    links.up = {3}
    links.forwarder.link_lost(2)
    links.forwarder.lead_changed(3)
    links.now += 60
    links.forwarder.tick()
    assert [node for node, _, _ in links.sent] == [2]
    assert connection.refused == [(5, ErrorCode.OUTCOME_UNKNOWN)]


@pytest.mark.parametrize("frame", ONCE)
def test_a_former_leader_that_is_alive_still_answers_what_it_was_sent(
    links: Links, frame: bytes
) -> None:
    """Leadership was handed over: the request is with the old leader, and has an answer."""
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    links.take(connection, 5, frame)
    links.forwarder.lead_changed(3)
    links.forwarder.tick()
    assert (connection.told, connection.refused) == ([], [])
    links.reply(links.sent[0][1])
    assert connection.told == [(5, 0)]
    assert len(links.sent) == 1


def test_a_leader_that_says_not_i_has_done_nothing(links: Links) -> None:
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    links.take(connection, 5, v2())  # not to be repeated, and it is not
    links.reply(links.sent[0][1], Status.NOT_LEADER)
    assert (connection.told, connection.refused) == ([], [])
    links.forwarder.lead_changed(3)
    assert [node for node, _, _ in links.sent] == [2, 3]
    links.reply(links.sent[1][1])
    assert connection.told == [(5, 0)]


def test_a_reply_that_never_comes_is_given_up_after_a_while(links: Links) -> None:
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    links.take(connection, 1, v2(sequence=1))
    links.take(connection, 2, v2())
    links.now += ANSWER_SECONDS + 0.1
    links.forwarder.tick()
    assert [payload for _, _, payload in links.sent].count(v2(sequence=1)[16:]) == 2
    assert connection.refused == [(2, ErrorCode.OUTCOME_UNKNOWN)]


def test_a_request_answered_twice_is_answered_once(links: Links) -> None:
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    links.take(connection, 5, v2(sequence=1))
    links.forwarder.lead_changed(3)
    first, second = (link_id for _, link_id, _ in links.sent)
    links.reply(first)
    links.reply(second)
    assert connection.told == [(5, 0)]


def test_a_request_that_may_have_been_carried_out_is_never_said_to_be_undone(
    links: Links,
) -> None:
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    links.take(connection, 5, v2(sequence=1))
    links.forwarder.lead_changed(0)
    links.now += HOLD_SECONDS + 0.1
    links.forwarder.tick()
    assert connection.refused == [(5, ErrorCode.OUTCOME_UNKNOWN)]


def test_a_request_whose_leader_is_lost_late_is_held_as_long_as_any_other(links: Links) -> None:
    links.forwarder.lead_changed(2)
    connection = FakeConnection()
    links.take(connection, 5, v2(sequence=1))
    links.now += HOLD_SECONDS + 0.5  # no reply yet
    links.forwarder.lead_changed(0)
    links.forwarder.tick()
    assert connection.refused == [], "an election takes a second"
    links.forwarder.lead_changed(3)
    links.reply(links.sent[1][1])
    assert connection.told == [(5, 0)]


# --- in a cluster --------------------------------------------------------------------------------


def ask_everything(client: FakeClient, first: int) -> list[int]:
    """A batch of each kind: with a session, with ids, of version 1."""
    events = [Event(7, "calls", 1, None)]
    row = IngestRow(7, "calls", 1, START_NS + first + 1)
    return [
        client.ingest_events(events, session_hi=3, session_lo=first + 1, sequence=1),
        client.ingest(7, 1, first=first),
        client.ask(Ingest([row]), version=1),
    ]


def test_clients_of_any_node_store_and_create(w: World) -> None:
    asked = []
    for node in (1, 2, 3):
        client = w.client(node)
        asked += [(client, one) for one in ask_everything(client, 10 * node)]
        put = client.ask(MetricPut(MetricSchema(f"m{node}", AggType.COUNT)))
        w.settle()
        assert isinstance(client.response(put), Done)
    assert [client.stored(one) for client, one in asked] == [1] * 9
    w.tick(2)
    assert [one.total(7) for one in w.running] == [9] * 3


def test_a_failover_is_a_pause_for_the_clients_of_a_follower(w: World) -> None:
    clients = [w.client(2), w.client(3)]
    w.crash(1)
    asked = [(one, ask_everything(one, 10 * n)) for n, one in enumerate(clients)]
    assert all(client.response(one) is None for client, ids in asked for one in ids)
    w.wait_leader()
    w.tick(3)
    for client, ids in asked:
        assert [client.stored(one) for one in ids] == [1, 1, 1]
    assert [one.total(7) for one in w.running] == [6, 6]


def test_leadership_handed_over_under_load_loses_and_refuses_nothing(w: World) -> None:
    clients = {node: w.client(node) for node in (1, 2, 3)}
    asked: list[tuple[FakeClient, int]] = []
    for n in range(12):
        for node, client in clients.items():
            asked += [(client, one) for one in ask_everything(client, 100 * n + 10 * node)]
        w.move()
        leader = w.leader
        if leader is not None and n % 2:
            leader.call(leader.node.hand_over_lead, 1 + (leader.node_id % 3))
        for _ in range(n % 4):
            w.move()
    w.tick(10)
    refused = [client.response(one) for client, one in asked]
    direct = [one for one in refused if isinstance(one, ErrorReply)]
    assert all(one.code in (ErrorCode.NOT_LEADER, ErrorCode.BACKPRESSURE) for one in direct), direct
    stored = len(refused) - len(direct)
    assert stored > len(refused) * 0.8
    assert [one.total(7) for one in w.running] == [stored] * 3, "refused means not stored"
    w.check_same()


def test_requests_held_during_a_hand_over_that_fails_are_carried_out_here(w: World) -> None:
    leader = w.nodes[1]
    w.isolate(3)
    leader.call(leader.node.hand_over_lead, 3)
    client = w.client(1)
    asked = client.ingest(7, 2)
    w.settle()
    assert client.response(asked) is None, "held: somebody else is about to lead"
    w.tick(12)
    assert leader.leads
    assert client.stored(asked) == 2


def test_not_i_from_the_former_leader_after_this_node_took_over_carries_it_out_here(
    w: World,
) -> None:
    client = w.client(2)
    leader = w.nodes[1]
    w.lost = lambda sender, to, kind, payload: kind == FORWARD_REPLY
    asked = client.ingest(7, 2)  # without a session: it may not be repeated
    link_id = next(iter(w.nodes[2].cluster.forwarder._requests))
    w.queues[2, 1] = type(w.queues[2, 1])(one for one in w.queues[2, 1] if one[0] != FORWARD)
    leader.call(leader.node.hand_over_lead, 2)
    w.settle()
    assert w.nodes[2].leads
    assert client.response(asked) is None
    member = w.nodes[2]
    member.call(
        member.cluster.on_frame, 1, FORWARD_REPLY, response_frame(2, Status.NOT_LEADER, link_id)
    )
    w.tick(3)
    assert client.stored(asked) == 2


def test_a_stand_in_never_sends_on_again(w: World) -> None:
    """Two nodes that each believe the other leads would send a frame round for ever."""
    member = w.nodes[3]
    w.lost = lambda sender, to, kind, payload: False
    frame = v2(request_id=77)
    member.call(member.cluster.on_frame, 2, FORWARD, frame)
    assert not w.waiting(3, 1)
    back = [payload for kind, payload in w.queues[3, 2] if kind == FORWARD_REPLY]
    framer = ResponseFramer()
    framer.receive_data(b"".join(back))
    reply = framer.next_frame()
    assert reply is not None and (reply.request_id, reply.status) == (77, Status.NOT_LEADER)


def test_a_stand_in_survives_a_client_that_speaks_another_version(w: World) -> None:
    client = w.client(2)
    client.send(request_frame(9, PacketType.INGEST_SYNC, 3, b"junk"))
    client.kinds[3] = (PacketType.INGEST_SYNC, 2)
    w.settle()
    asked = w.client(2)
    good = asked.ingest(7, 2)
    w.settle()
    assert asked.stored(good) == 2


def test_a_malformed_batch_is_refused_through_a_follower_and_the_rest_goes_on(w: World) -> None:
    client = w.client(2)
    bad = client.start(PacketType.INGEST_SYNC, encode_ingest(batch(7, 3))[:-1])
    good = client.ingest(7, 2)
    w.settle()
    refused = client.response(bad)
    assert isinstance(refused, ErrorReply) and refused.code == ErrorCode.MALFORMED
    assert client.stored(good) == 2


def test_version_1_is_never_told_not_leader(w: World) -> None:
    """The published client takes it for success."""
    clients = {node: w.client(node) for node in (1, 2, 3)}

    def ask(stamp: int) -> list[tuple[FakeClient, int]]:
        rows = [IngestRow(7, "calls", 1, START_NS + stamp), IngestRow(7, "calls", 1, 0)]
        return [
            (client, client.ask(Ingest([row]), version=1))
            for client in clients.values()
            for row in rows
        ]

    asked = ask(1)
    w.isolate(1)
    w.elect(2)
    asked += ask(2)  # the deposed leader takes some, and loses them
    w.settle()
    w.heal()
    w.tick(100)
    asked += ask(3)
    w.isolate(1, 2, 3)
    w.isolate(1)
    w.isolate(2)
    w.tick(30)
    asked += ask(4)
    w.tick(150)
    answered = [client.frames[one].status for client, one in asked if one in client.frames]
    assert len(answered) > 12
    assert Status.NOT_LEADER not in answered


def test_a_batch_in_doubt_that_this_node_carries_out_is_not_taken_for_new_if_it_is_forgotten(
    links: Links,
) -> None:
    """Found by the simulator: the client was told that nothing was counted, and sent it anew."""
    connection = FakeConnection()
    payload = encode_ingest(batch(7, 1), session_hi=1, session_lo=2, sequence=3)
    links.forwarder.lead_changed(2)
    links.take(connection, 5, request_frame(2, PacketType.INGEST_SYNC, 5, payload))
    links.forwarder.lead_changed(0)  # node 2 may have counted it
    links.forwarder.let_in(lambda request: pytest.fail("its reply could not be looked at"))
    ((link_id, looped),) = links.looped
    assert looped == payload
    code = ErrorCode.SEQUENCE_TOO_OLD
    words = encode_v2_response(PacketType.INGEST_SYNC, ErrorReply(code, "forgotten"), 9)
    links.forwarder.replies(response_frame(2, Status.ERROR, link_id, words))
    assert connection.refused == [(5, ErrorCode.OUTCOME_UNKNOWN)] and not connection.told
