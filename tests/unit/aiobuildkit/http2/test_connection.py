"""HTTP2 against itself, and against plain `h2` as a peer with a mind of its own."""

import itertools

import h2.config
import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aiobuildkit.errors import ProtocolError
from aiobuildkit.http2 import connection as http2
from aiobuildkit.http2.compression import plain
from aiobuildkit.http2.connection import (
    HTTP2,
    DataReceived,
    GoAwayReceived,
    HeadersReceived,
    StreamEnded,
    StreamReset,
)

REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/s/m"),
    (b":authority", b"localhost"),
]
RESPONSE = [(b":status", b"200")]
TRAILERS = [(b"grpc-status", b"0")]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def exchange(one: HTTP2, other: HTTP2) -> tuple[list[http2.Event], list[http2.Event]]:
    """Carry bytes both ways until neither side has more; the events of either."""
    to_one: list[http2.Event] = []
    to_other: list[http2.Event] = []
    while True:
        there, back = one.data_to_send(), other.data_to_send()
        if not there and not back:
            return to_one, to_other
        to_other += other.receive_data(there)
        to_one += one.receive_data(back)


def pair() -> tuple[HTTP2, HTTP2]:
    client, server = HTTP2(client=True), HTTP2(client=False)
    exchange(client, server)
    return client, server


def body(events: list[http2.Event], stream_id: int) -> bytes:
    return b"".join(
        e.data for e in events if isinstance(e, DataReceived) and e.stream_id == stream_id
    )


class Peer(h2.connection.H2Connection):
    """A server by plain h2, past the greeting."""

    def __init__(self, core: HTTP2) -> None:
        super().__init__(h2.config.H2Configuration(client_side=False, header_encoding=False))
        self.initiate_connection()
        self.seen = self.receive_data(core.data_to_send())
        core.receive_data(self.data_to_send())

    def hear(self, core: HTTP2) -> list[h2.events.Event]:
        return self.receive_data(core.data_to_send())

    def tell(self, core: HTTP2) -> list[http2.Event]:
        return core.receive_data(self.data_to_send())


def answered() -> tuple[HTTP2, Peer, int]:
    """A client, its server, and a stream whose response's headers are still to be told."""
    client = HTTP2(client=True)
    peer = Peer(client)
    stream_id = client.open(REQUEST)
    peer.hear(client)
    peer.send_headers(stream_id, RESPONSE)
    return client, peer, stream_id


def test_the_settings_are_those_that_grpc_with_buildkit_needs():
    peer = Peer(HTTP2(client=True))
    assert peer.remote_settings[SettingCodes.ENABLE_PUSH] == 0
    assert peer.remote_settings[SettingCodes.INITIAL_WINDOW_SIZE] == 4 * 1024 * 1024
    assert peer.remote_settings[SettingCodes.MAX_HEADER_LIST_SIZE] == 2 * 1024 * 1024
    assert peer.outbound_flow_control_window == 65535 + 4 * 1024 * 1024


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 400_000), max_size=20),
)
def test_a_call_arrives_whole_wherever_its_bytes_are_split(sizes, cuts):
    client, server = pair()
    stream_id = client.open(REQUEST)
    sent = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    client.send(stream_id, sent)
    client.end(stream_id)
    events: list[http2.Event] = []
    while data := client.data_to_send():
        for piece in pieces(data, cuts):
            events += server.receive_data(piece)
        client.receive_data(server.data_to_send())
        for event in events:
            if isinstance(event, DataReceived):
                server.acknowledge(stream_id, event.size)
    assert events[0] == HeadersReceived(stream_id, REQUEST, opened=True)
    assert body(events, stream_id) == sent
    assert events[-1] == StreamEnded(stream_id)


def test_a_response_has_headers_data_and_trailers():
    client, server = pair()
    stream_id = client.open(REQUEST)
    client.end(stream_id)
    exchange(client, server)
    server.respond(stream_id, RESPONSE)
    server.send(stream_id, b"reply")
    server.end(stream_id, TRAILERS)
    events, _ = exchange(client, server)
    assert events == [
        HeadersReceived(stream_id, RESPONSE, opened=False),
        DataReceived(stream_id, b"reply", 5),
        HeadersReceived(stream_id, TRAILERS, opened=False),
        StreamEnded(stream_id),
    ]


def test_end_stream_is_apart_from_data():
    # A grpc-go server takes END_STREAM on DATA too, but the order is then easy to get wrong.
    client = HTTP2(client=True)
    peer = Peer(client)
    stream_id = client.open(REQUEST)
    client.send(stream_id, b"x")
    client.end(stream_id)
    data, ended = (e for e in peer.hear(client) if isinstance(e, h2.events.DataReceived))
    assert (data.data, data.stream_ended) == (b"x", None)
    assert (ended.data, ended.stream_ended is not None) == (b"", True)


def test_ping_is_acknowledged_by_the_next_bytes():
    client = HTTP2(client=True)
    peer = Peer(client)
    peer.ping(b"12345678")
    peer.tell(client)
    acks = [e for e in peer.hear(client) if isinstance(e, h2.events.PingAckReceived)]
    assert [ack.ping_data for ack in acks] == [b"12345678"]


def hpack_integer(value: int, prefix_bits: int, flags: int) -> bytes:
    """RFC 7541 section 5.1."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([flags | value])
    encoded, value = bytearray([flags | most]), value - most
    while value >= 128:
        encoded.append(value % 128 + 128)
        value //= 128
    return bytes([*encoded, value])


@pytest.mark.parametrize("size", [1_500_000, 2_000_000])
def test_trailers_of_megabytes_arrive(size):
    # In Huffman code, as grpc-go sends them (four times "A" in three bytes), and by hand, for
    # hpack's encoder takes minutes; in frames of 16 KiB, far more than the 64 that h2 takes.
    client, peer, stream_id = answered()
    peer.tell(client)
    name = b"grpc-status-details-bin"
    value = bytes([0b10000110, 0b00011000, 0b01100001]) * (size // 4)
    block = b"\0" + hpack_integer(len(name), 7, 0) + name
    block += hpack_integer(len(value), 7, 0x80) + value
    parts = [block[start : start + 16_384] for start in range(0, len(block), 16_384)]
    frames: list[HeadersFrame | ContinuationFrame] = [HeadersFrame(stream_id, parts[0])]
    frames += [ContinuationFrame(stream_id, part) for part in parts[1:]]
    frames[0].flags.add("END_STREAM")
    frames[-1].flags.add("END_HEADERS")
    assert len(frames) > 64
    events = client.receive_data(b"".join(frame.serialize() for frame in frames))
    received, ended = events
    assert isinstance(received, HeadersReceived)
    assert [(key, plain(coded)) for key, coded in received.headers] == [(name, b"A" * size)]
    assert ended == StreamEnded(stream_id)


def test_a_header_block_in_frames_of_one_byte_is_joined():
    client = HTTP2(client=True)
    peer = Peer(client)
    stream_id = client.open(REQUEST)
    block = peer.encoder.encode([(b":status", b"200"), (b"x", b"y" * 5_000)])
    frames: list[HeadersFrame | ContinuationFrame] = [HeadersFrame(stream_id, block[:1])]
    frames += [ContinuationFrame(stream_id, bytes([byte])) for byte in block[1:]]
    frames[-1].flags.add("END_HEADERS")
    (event,) = client.receive_data(b"".join(frame.serialize() for frame in frames))
    assert isinstance(event, HeadersReceived)
    assert event.headers[1] == (b"x", b"y" * 5_000)


@pytest.mark.parametrize("size", [0, 1_000, 16_384])
def test_a_header_block_without_end_is_refused(size):
    client = HTTP2(client=True)
    stream_id = client.open(REQUEST)
    client.receive_data(HeadersFrame(stream_id, b"").serialize())
    frame = ContinuationFrame(stream_id, bytes(size)).serialize()
    # Empty ones take memory too.
    most = 2 * 1024 * 1024 // (128 + size) - 1
    assert client.receive_data(frame * most) == []
    with pytest.raises(ProtocolError, match="header block of more than"):
        client.receive_data(frame * 2)


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, b"12345678"),
        DataFrame(1, b""),
        ContinuationFrame(3, b"", flags=["END_HEADERS"]),
    ],
)
def test_nothing_may_interrupt_a_header_block(frame):
    client = HTTP2(client=True)
    stream_id = client.open(REQUEST)
    client.receive_data(HeadersFrame(stream_id, b"").serialize())
    with pytest.raises(ProtocolError, match="interrupted"):
        client.receive_data(frame.serialize())


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        DataFrame(1, b"never opened").serialize(),
        ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize(),
        PushPromiseFrame(1, 2, b"", flags=["END_HEADERS"]).serialize(),
        HeadersFrame(1, b"\xff\xff", flags=["END_HEADERS"]).serialize(),
    ],
)
def test_what_http2_forbids_is_a_protocol_error_and_answered_with_goaway(data):
    client = HTTP2(client=True)
    client.data_to_send()
    with pytest.raises(ProtocolError):
        client.receive_data(data)
    assert client.data_to_send()[3] == GoAwayFrame.type


def test_after_a_protocol_error_only_the_goaway_is_left_to_send():
    client = HTTP2(client=True)
    Peer(client)
    stream_id = client.open(REQUEST)
    client.data_to_send()
    client.send(stream_id, b"queued")
    with pytest.raises(ProtocolError):
        client.receive_data(b"\xff" * 20)
    frame, size = Frame.parse_frame_header(memoryview(client.data_to_send())[:9])
    assert isinstance(frame, GoAwayFrame)
    assert size == 8
    assert client.data_to_send() == b""


@settings(max_examples=300)
@given(data=st.binary(max_size=300), client_side=st.booleans())
def test_arbitrary_bytes_are_events_or_a_protocol_error(data, client_side):
    core, other = HTTP2(client=client_side), HTTP2(client=not client_side)
    core.receive_data(other.data_to_send())
    try:
        core.receive_data(data)
    except ProtocolError:
        return


@settings(max_examples=300)
@given(
    frames=st.lists(
        st.tuples(
            st.integers(0, 10),
            st.integers(0, 255),
            st.sampled_from([0, 1, 2, 3]),
            st.binary(max_size=20) | st.just(b"\0\0\0\0") | st.just(b"\x88"),
        ),
        max_size=6,
    )
)
def test_arbitrary_frames_are_events_or_a_protocol_error(frames):
    client, _ = pair()
    client.open(REQUEST)
    for kind, flags, stream_id, payload in frames:
        header = len(payload).to_bytes(3, "big") + bytes([kind, flags])
        try:
            client.receive_data(header + stream_id.to_bytes(4, "big") + payload)
        except ProtocolError:
            return
        client.data_to_send()


def test_data_waits_for_the_peers_window():
    client = HTTP2(client=True)
    peer = Peer(client)
    stream_id = client.open(REQUEST)
    client.send(stream_id, bytes(100_000))
    client.end(stream_id)
    events = peer.hear(client)
    assert sum(len(e.data) for e in events if isinstance(e, h2.events.DataReceived)) == 65535
    assert client.unsent(stream_id) == 100_000 - 65535
    assert client.data_to_send() == b""
    peer.increment_flow_control_window(50_000)
    peer.increment_flow_control_window(50_000, stream_id)
    peer.tell(client)
    events = peer.hear(client)
    assert sum(len(e.data) for e in events if isinstance(e, h2.events.DataReceived)) == 34_465
    assert isinstance(events[-1], h2.events.StreamEnded)


def test_streams_take_turns():
    client = HTTP2(client=True)
    peer = Peer(client)
    bulk, small = client.open(REQUEST), client.open(REQUEST)
    client.send(bulk, bytes(200_000))
    client.send(small, b"health")
    order = [e.stream_id for e in peer.hear(client) if isinstance(e, h2.events.DataReceived)]
    assert order[:3] == [bulk, small, bulk]


def test_windows_are_replenished_by_the_quarter():
    client, peer, stream_id = answered()
    quarter = http2.RECEIVE_WINDOW // 4
    received = 0
    while received < quarter - 16_384:
        peer.send_data(stream_id, bytes(16_384))
        (data,) = (e for e in peer.tell(client) if isinstance(e, DataReceived))
        assert not client.acknowledge(stream_id, data.size)
        received += data.size
    assert client.data_to_send() == b""
    peer.send_data(stream_id, bytes(16_384))
    peer.tell(client)
    assert client.acknowledge(stream_id, 16_384)
    updates = [e for e in peer.hear(client) if isinstance(e, h2.events.WindowUpdated)]
    assert {(e.stream_id, e.delta) for e in updates} == {(0, quarter), (stream_id, quarter)}


def test_a_stream_that_nobody_reads_does_not_stop_another():
    client = HTTP2(client=True)
    peer = Peer(client)
    unread, other = client.open(REQUEST), client.open(REQUEST)
    peer.hear(client)
    peer.send_headers(unread, RESPONSE)
    while peer.local_flow_control_window(unread) >= 16_384:
        peer.send_data(unread, bytes(16_384))
        peer.tell(client)
        peer.hear(client)
    assert peer.local_flow_control_window(other) >= 16_384


def test_a_graceful_goaway_lets_streams_finish():
    client = HTTP2(client=True)
    peer = Peer(client)
    stream_id = client.open(REQUEST)
    peer.hear(client)
    goaway = GoAwayFrame(0, last_stream_id=2**31 - 1, error_code=0, additional_data=b"stopping")
    assert client.receive_data(goaway.serialize()) == [GoAwayReceived(0, "stopping", graceful=True)]
    peer.send_headers(stream_id, RESPONSE)
    peer.send_headers(stream_id, TRAILERS, end_stream=True)
    assert peer.tell(client)[-1] == StreamEnded(stream_id)


@pytest.mark.parametrize(("last_stream_id", "code"), [(0, 0), (1, 11)])
def test_after_any_other_goaway_nothing_more_is_read(last_stream_id, code):
    client = HTTP2(client=True)
    Peer(client)
    client.open(REQUEST)
    goaway = GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code)
    junk = b"\xff" * 50
    assert client.receive_data(goaway.serialize() + junk) == [
        GoAwayReceived(code, "", graceful=False)
    ]
    assert client.receive_data(junk) == []


def test_a_reset_drops_what_was_queued():
    client = HTTP2(client=True)
    peer = Peer(client)
    stream_id = client.open(REQUEST)
    client.send(stream_id, bytes(200_000))
    peer.hear(client)
    assert client.receive_data(RstStreamFrame(stream_id, ErrorCodes.CANCEL).serialize()) == [
        StreamReset(stream_id, ErrorCodes.CANCEL)
    ]
    client.send(stream_id, b"too late")
    client.end(stream_id)
    client.reset(stream_id)
    assert not client.acknowledge(stream_id, 1 << 22)
    assert client.unsent(stream_id) == 0
    assert client.data_to_send() == b""


def test_our_reset_is_sent_once_and_what_is_still_on_its_way_ignored():
    client, peer, stream_id = answered()
    peer.send_data(stream_id, b"on its way")
    client.reset(stream_id)
    client.reset(stream_id)
    assert [e for e in peer.tell(client) if not isinstance(e, StreamReset)] == []
    resets = [e for e in peer.hear(client) if isinstance(e, h2.events.StreamReset)]
    assert [(e.stream_id, e.error_code) for e in resets] == [(stream_id, ErrorCodes.CANCEL)]


def test_a_peer_that_allows_no_more_streams_is_an_error_of_opening_one():
    client = HTTP2(client=True)
    peer = Peer(client)
    peer.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    peer.tell(client)
    client.open(REQUEST)
    with pytest.raises(ProtocolError, match="no stream can be opened"):
        client.open(REQUEST)


def raw(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    header = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return header + stream_id.to_bytes(4, "big") + payload


def setting(number: int, value: int) -> bytes:
    return raw(4, 0, 0, number.to_bytes(2, "big") + value.to_bytes(4, "big"))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(setting(4, 1 << 31), id="first window too large"),
        pytest.param(setting(5, 16_383), id="frames too small"),
        pytest.param(setting(5, 1 << 24), id="frames too large"),
        pytest.param(raw(4, 0, 0, b"12345"), id="half a setting"),
        pytest.param(raw(4, 0, 1), id="settings of a stream"),
        pytest.param(raw(6, 0, 0, b"1234567"), id="short ping"),
        pytest.param(raw(7, 0, 0, b"1234567"), id="short goodbye"),
        pytest.param(raw(8, 0, 1, bytes(4)), id="window by nothing"),
        pytest.param(raw(8, 0, 1, b"\x7f\xff\xff\xff"), id="window too large"),
        pytest.param(raw(8, 0, 0, b"\x7f\xff\xff\xff"), id="connection's window too large"),
        pytest.param(
            raw(8, 0, 1, bytes([0, 0, 0, 1])) + setting(4, (1 << 31) - 1),
            id="window made too large by a setting",
        ),
        pytest.param(raw(3, 0, 1, b"123"), id="short reset"),
        pytest.param(raw(3, 0, 3, bytes(4)), id="reset of a stream that never was"),
        pytest.param(raw(0, 0, 0, b"x"), id="data of no stream"),
        pytest.param(raw(0, 8, 1, b"\x02x"), id="more padding than payload"),
        pytest.param(raw(0, 8, 1), id="padding without a length"),
        pytest.param(raw(0, 0, 1, bytes(16_385)), id="frame too large"),
        pytest.param(raw(0, 0, 1, bytes(16_384)) * 257, id="more than the window"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_told_and_left(data):
    client = HTTP2(client=True)
    Peer(client)
    client.open(REQUEST)
    client.data_to_send()
    with pytest.raises(ProtocolError):
        client.receive_data(data)
    assert client.data_to_send()[3] == GoAwayFrame.type
    assert client.receive_data(data) == []


def test_a_peer_begins_with_its_settings():
    with pytest.raises(ProtocolError, match="first frame"):
        HTTP2(client=True).receive_data(raw(6, 0, 0, bytes(8)))


def test_a_client_may_not_open_more_streams_than_it_was_told():
    server = HTTP2(client=False)
    peer = h2.connection.H2Connection()
    peer.initiate_connection()
    server.receive_data(peer.data_to_send())
    for number in range(101):
        peer.send_headers(2 * number + 1, REQUEST)
    with pytest.raises(ProtocolError, match="100 streams"):
        server.receive_data(peer.data_to_send())


@pytest.mark.parametrize("stream_id", [2, 4])
def test_a_client_may_not_open_streams_of_ours(stream_id):
    client, server = pair()
    client.open(REQUEST)
    server.receive_data(client.data_to_send())
    with pytest.raises(ProtocolError):
        server.receive_data(raw(1, 4, stream_id, b"\x83"))


def test_padding_counts_for_the_window_and_is_no_data():
    client, peer, stream_id = answered()
    peer.send_data(stream_id, b"data", pad_length=10)
    assert peer.tell(client)[-1] == DataReceived(stream_id, b"data", 15)


def test_frames_are_as_large_as_the_peer_takes_them_and_windows_change_for_open_streams_too():
    client = HTTP2(client=True)
    peer = Peer(client)
    stream_id = client.open(REQUEST)
    client.send(stream_id, bytes(65_535))
    peer.hear(client)
    peer.update_settings({SettingCodes.MAX_FRAME_SIZE: 30_000})
    peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535 + 40_000})
    peer.increment_flow_control_window(100_000)
    peer.tell(client)
    peer.hear(client)  # that its settings count from now on
    client.send(stream_id, bytes(50_000))
    sizes = [len(e.data) for e in peer.hear(client) if isinstance(e, h2.events.DataReceived)]
    assert sizes == [30_000, 10_000]


def test_headers_larger_than_a_frame_arrive():
    server = HTTP2(client=False)
    peer = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=False))
    peer.initiate_connection()
    peer.send_headers(1, REQUEST, end_stream=True)
    server.receive_data(peer.data_to_send())
    message = [(b"grpc-status", b"2"), (b"grpc-message", b"x" * 40_000)]
    server.end(1, RESPONSE + message)
    (headers,) = (
        e
        for e in peer.receive_data(server.data_to_send())
        if isinstance(e, h2.events.ResponseReceived)
    )
    assert list(headers.headers) == RESPONSE + message
    assert headers.stream_ended is not None


class Streams(RuleBasedStateMachine):
    """Client and server do anything in any order; both must agree on every byte."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.server = HTTP2(client=True), HTTP2(client=False)
        self.ends = {"client": self.client, "server": self.server}
        self.open: list[int] = []
        self.served: set[int] = set()
        self.responded: set[int] = set()
        self.sent: dict[tuple[str, int], bytes] = {}
        self.got: dict[tuple[str, int], bytes] = {}
        self.closed: set[tuple[str, int]] = set()
        self.heard_end: set[tuple[str, int]] = set()
        self.reset_streams: set[int] = set()

    @precondition(lambda self: len(self.open) < 6)
    @rule()
    def open_stream(self) -> None:
        self.open.append(self.client.open(REQUEST))

    def side(self, data: st.DataObject) -> tuple[str, int] | None:
        choices = [("client", each) for each in self.open]
        choices += [("server", each) for each in self.served]
        choices = [c for c in choices if c not in self.closed and c[1] not in self.reset_streams]
        return data.draw(st.sampled_from(choices)) if choices else None

    @rule(data=st.data(), size=st.integers(0, 100_000))
    def send(self, data, size) -> None:
        if (side := self.side(data)) is None:
            return
        name, stream_id = side
        if name == "server" and stream_id not in self.responded:
            self.responded.add(stream_id)
            self.server.respond(stream_id, RESPONSE)
        payload = bytes([len(self.sent) % 251]) * size
        self.ends[name].send(stream_id, payload)
        self.sent[side] = self.sent.get(side, b"") + payload

    @rule(data=st.data())
    def end(self, data) -> None:
        if (side := self.side(data)) is None:
            return
        self.closed.add(side)
        if side[0] == "client":
            self.client.end(side[1])
        else:
            headers = TRAILERS if side[1] in self.responded else RESPONSE + TRAILERS
            self.server.end(side[1], headers)

    @rule(data=st.data())
    def reset(self, data) -> None:
        if (side := self.side(data)) is None:
            return
        self.reset_streams.add(side[1])
        self.ends[side[0]].reset(side[1])

    @rule(data=st.data(), to_server=st.booleans())
    def carry(self, data, to_server) -> None:
        source, sink, name = (
            (self.client, self.server, "server")
            if to_server
            else (self.server, self.client, "client")
        )
        sent = source.data_to_send()
        cuts = data.draw(st.lists(st.integers(0, max(len(sent), 1)), max_size=4))
        for piece in pieces(sent, cuts):
            for event in sink.receive_data(piece):
                self.handle_event(name, sink, event)

    def handle_event(self, name: str, sink: HTTP2, event: http2.Event) -> None:
        match event:
            case DataReceived(stream_id, data, size):
                assert (name, stream_id) not in self.heard_end
                self.got[name, stream_id] = self.got.get((name, stream_id), b"") + data
                sink.acknowledge(stream_id, size)
            case HeadersReceived(stream_id, _, opened=True):
                self.served.add(stream_id)
            case StreamEnded(stream_id):
                self.heard_end.add((name, stream_id))
            case StreamReset(stream_id):
                assert stream_id in self.reset_streams

    @invariant()
    def nothing_is_made_up(self) -> None:
        for (name, stream_id), data in self.got.items():
            sender = "server" if name == "client" else "client"
            assert self.sent.get((sender, stream_id), b"").startswith(data)

    def teardown(self) -> None:
        for _ in range(200):
            before = dict(self.got)
            there, back = self.client.data_to_send(), self.server.data_to_send()
            for event in self.server.receive_data(there):
                self.handle_event("server", self.server, event)
            for event in self.client.receive_data(back):
                self.handle_event("client", self.client, event)
            if not there and not back and before == self.got:
                break
        for (sender, stream_id), data in self.sent.items():
            if stream_id not in self.reset_streams:
                name = "server" if sender == "client" else "client"
                assert self.got.get((name, stream_id), b"") == data
        for sender, stream_id in self.closed:
            if stream_id not in self.reset_streams:
                assert ("server" if sender == "client" else "client", stream_id) in self.heard_end


Streams.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStreams = Streams.TestCase
