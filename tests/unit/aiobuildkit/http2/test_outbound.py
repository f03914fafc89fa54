"""What leaves, in which order; that a peer understands it, test_http2.py shows."""

from typing import TypeAlias

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit.http2.frames import END_HEADERS, END_STREAM, Broken, ErrorCode, FrameReader, Kind
from aiobuildkit.http2.outbound import Sending
from aiobuildkit.http2.streams import INITIAL_WINDOW, MAX_WINDOW, StreamState

Streams: TypeAlias = dict[int, StreamState]


def frames(sending: Sending, streams: Streams) -> list[tuple[int, int, bytes]]:
    """The frames that leave now: kind, stream and payload; header blocks whole."""
    reader = FrameReader(b"", max_header_block=1 << 20)
    return [
        (each.kind, each.stream_id, each.payload)
        for each in reader.receive_data(sending.data_to_send(streams))
    ]


def queued(*data: bytes, window: int = MAX_WINDOW) -> StreamState:
    stream = StreamState(window)
    stream.queue(*data)
    return stream


def test_the_preface_goes_first_and_once():
    sending = Sending(b"hello")
    sending.frame(Kind.PING, 0, bytes(8))
    assert sending.data_to_send({}).startswith(b"hello")
    assert sending.data_to_send({}) == b""


def test_headers_go_before_data_that_was_queued_earlier():
    sending, streams = Sending(b""), {1: queued(b"data")}
    sending.headers(1, [(b"a", b"b")])
    assert [kind for kind, _, _ in frames(sending, streams)] == [Kind.HEADERS, Kind.DATA]


def test_streams_take_turns_by_the_frame():
    sending = Sending(b"")
    streams = {1: queued(bytes(40_000)), 3: queued(b"3"), 5: queued(bytes(20_000))}
    sent = [(stream_id, len(data)) for _, stream_id, data in frames(sending, streams)]
    full = sending.largest_frame
    assert sent == [
        (1, full),
        (3, 1),
        (5, full),
        (1, full),
        (5, 20_000 - full),
        (1, 40_000 - 2 * full),
    ]


def test_a_stream_whose_window_is_shut_holds_up_no_other():
    sending, streams = Sending(b""), {1: queued(b"shut", window=0), 3: queued(b"open")}
    assert frames(sending, streams) == [(Kind.DATA, 3, b"open")]
    streams[1].send_window = 2
    assert frames(sending, streams) == [(Kind.DATA, 1, b"sh")]
    assert streams[1].unsent == 2


@given(
    sizes=st.lists(st.integers(0, 100_000), min_size=1, max_size=5),
    grants=st.lists(st.integers(1, 100_000), max_size=5),
)
def test_the_connections_window_is_never_exceeded_and_always_used(sizes, grants):
    sending = Sending(b"")
    streams = {2 * n + 1: queued(bytes(size)) for n, size in enumerate(sizes)}
    sent, allowed = 0, INITIAL_WINDOW
    for grant in [0, *grants]:
        sending.increase_window(grant)
        allowed += grant
        sent += sum(len(data) for _, _, data in frames(sending, streams))
        assert sent == min(allowed, sum(sizes))
    assert sum(stream.unsent for stream in streams.values()) == sum(sizes) - sent


def test_a_window_may_be_as_large_as_the_protocol_allows_and_no_larger():
    sending = Sending(b"")
    sending.increase_window(MAX_WINDOW - INITIAL_WINDOW)
    with pytest.raises(Broken) as caught:
        sending.increase_window(1)
    assert caught.value.code == ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize("trailers", [None, [(b"grpc-status", b"0")]])
def test_the_end_waits_for_the_data_and_the_stream_is_forgotten_when_both_sides_ended(trailers):
    sending = Sending(b"")
    stream = queued(b"data", window=0)
    stream.ending, stream.trailers, stream.receiving = True, trailers, False
    streams = {1: stream}
    assert sending.data_to_send(streams) == b""
    stream.send_window = 4
    reader = FrameReader(b"", max_header_block=1 << 20)
    data, end = reader.receive_data(sending.data_to_send(streams))
    assert (data.payload, data.flags) == (b"data", 0)
    assert end.flags & END_STREAM
    assert end.kind == (Kind.DATA if trailers is None else Kind.HEADERS)
    assert streams == {}


def test_a_stream_that_the_peer_still_sends_on_is_kept():
    sending, stream = Sending(b""), queued()
    stream.ending = True
    streams = {1: stream}
    sending.data_to_send(streams)
    assert (streams, stream.sending, stream.closed) == ({1: stream}, False, False)
    assert sending.data_to_send(streams) == b""


def test_headers_larger_than_a_frame_go_on_in_more_of_them():
    sending = Sending(b"")
    value = b"x" * (2 * sending.largest_frame)
    sending.headers(1, [(b"a", value)], END_STREAM)
    sent = sending.data_to_send({})
    kinds, flags = [], []
    while sent:
        size = int.from_bytes(sent[:3], "big")
        assert size <= sending.largest_frame
        kinds.append(sent[3])
        flags.append(sent[4])
        sent = sent[9 + size :]
    assert kinds == [Kind.HEADERS, Kind.CONTINUATION, Kind.CONTINUATION]
    assert flags == [END_STREAM, 0, END_HEADERS]


def test_headers_are_compressed_within_the_peers_bound():
    sending, decoder = Sending(b""), Decoder()
    decoder.max_allowed_table_size = 0
    sending.limit_table(0)
    for _ in range(2):
        # It would refuse what refers to a table that it does not keep.
        sending.headers(1, [(b"a", b"b")])
        ((_, _, block),) = frames(sending, {})
        assert decoder.decode(block, raw=True) == [(b"a", b"b")]
