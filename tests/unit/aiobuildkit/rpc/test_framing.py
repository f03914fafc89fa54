import base64
import itertools
from urllib.parse import quote

import pytest
from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit.errors import ErrorDetail, ProtocolError, RPCError, StatusCode
from aiobuildkit.protos.control_pb2 import RPCStatus
from aiobuildkit.rpc import framing


def framed(message: bytes) -> bytes:
    return framing.prefix(message) + message


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(
    messages=st.lists(st.binary(max_size=40), max_size=12),
    cuts=st.lists(st.integers(min_value=0, max_value=1000), max_size=30),
)
def test_messages_come_whole_wherever_data_is_split(messages, cuts):
    reader = framing.MessageReader()
    data = b"".join(map(framed, messages))
    received = [message for piece in split(data, cuts) for message in reader.receive_data(piece)]
    assert received == messages


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=10))
def test_any_bytes_are_messages_or_a_protocol_error(data, cuts):
    reader = framing.MessageReader()
    try:
        messages = [
            message for piece in split(data, cuts) for message in reader.receive_data(piece)
        ]
    except ProtocolError:
        return
    assert data.startswith(b"".join(map(framed, messages)))


def test_a_large_message_in_small_pieces_takes_linear_time():
    # Joining the pieces anew for each would copy 16 MiB times 16,384 / 2.
    reader = framing.MessageReader()
    message = bytes(framing.MAX_MESSAGE)
    data = framed(message)
    received = [
        each
        for start in range(0, len(data), 1024)
        for each in reader.receive_data(data[start : start + 1024])
    ]
    assert received == [message]


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        (b"\x01\x00\x00\x00\x01", "compressed"),
        (b"\x00\x01\x00\x00\x01", "16777217 bytes exceeds"),
    ],
)
def test_a_message_that_was_never_allowed_is_the_peers_fault(prefix, text):
    with pytest.raises(ProtocolError, match=text):
        framing.MessageReader().receive_data(prefix)


@given(message=st.text(), code=st.sampled_from([code for code in StatusCode if code]))
def test_a_status_survives_its_trailers(message, code):
    error = framing.error_of_trailers(framing.trailers(code, message))
    assert isinstance(error, RPCError)
    assert (error.code, str(error)) == (code, message)


@given(message=st.text())
def test_grpc_message_is_printable_ascii(message):
    value = dict(framing.trailers(StatusCode.UNKNOWN, message)).get(b"grpc-message", b"")
    assert all(0x20 <= byte < 0x7F for byte in value)


@given(st.binary())
def test_a_message_of_any_bytes_is_read_as_urllib_reads_it(message):
    value = quote(message).encode()
    error = framing.error_of_trailers([(b"grpc-status", b"2"), (b"grpc-message", value)])
    assert isinstance(error, RPCError)
    assert error.message == message.decode("utf-8", "replace")


def test_status_zero_is_success():
    assert framing.error_of_trailers(framing.trailers_only(StatusCode.OK)) is None


@pytest.mark.parametrize("padding", [b"", b"=", b"=="])
def test_details_come_with_or_without_padding(padding):
    detail = Any(type_url="a/b", value=b'{"x":1}')
    for size in range(3):
        # The message, which grpc-message has too, need not be UTF-8.
        said = bytes([2 << 3 | 2, size]) + b"\xe9" * size
        sent = said + RPCStatus(details=[detail]).SerializeToString()
        encoded = base64.b64encode(sent).rstrip(b"=") + padding
        error = framing.error_of_trailers(
            [(b"grpc-status", b"2"), (b"grpc-status-details-bin", encoded)]
        )
        assert isinstance(error, RPCError)
        assert error.details == (ErrorDetail("a/b", b'{"x":1}'),)


@given(encoded=st.binary(max_size=50))
def test_damaged_details_do_not_hide_the_error(encoded):
    error = framing.error_of_trailers(
        [(b"grpc-status", b"5"), (b"grpc-message", b"gone"), (b"grpc-status-details-bin", encoded)]
    )
    assert isinstance(error, RPCError)
    assert (error.code, error.message) == (StatusCode.NOT_FOUND, "gone")


def test_an_unknown_status_is_unknown():
    error = framing.error_of_trailers([(b"grpc-status", b"99")])
    assert isinstance(error, RPCError)
    assert error.code is StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([(b":status", b"404")], "HTTP status 404"),
        ([(b"grpc-status", b"two")], "not a number"),
    ],
)
def test_an_end_without_a_status_is_the_peers_fault(headers, text):
    error = framing.error_of_trailers(headers)
    assert isinstance(error, ProtocolError)
    assert text in str(error)


@pytest.mark.parametrize(
    ("http2_code", "code"),
    [
        (0x2, StatusCode.INTERNAL),
        (0x7, StatusCode.UNAVAILABLE),
        (0x8, StatusCode.CANCELLED),
        (0xB, StatusCode.RESOURCE_EXHAUSTED),
        (0xC, StatusCode.PERMISSION_DENIED),
        (0xFF, StatusCode.INTERNAL),
    ],
)
def test_a_reset_has_the_status_that_grpc_gives_it(http2_code, code):
    assert framing.error_of_reset(http2_code).code is code


def test_metadata_keeps_every_occurrence_in_order():
    headers = [(b":path", b"/a/b"), (b"exclude-patterns", b"x"), (b"exclude-patterns", b"!y")]
    assert framing.metadata_of(headers) == {":path": ["/a/b"], "exclude-patterns": ["x", "!y"]}
