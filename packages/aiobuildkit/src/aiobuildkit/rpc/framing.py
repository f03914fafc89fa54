"""gRPC over HTTP/2, without I/O: messages in DATA, statuses in trailers, metadata in headers.

Source: grpc/grpc `doc/PROTOCOL-HTTP2.md`. This side does not offer compression, so a compressed
message is a protocol error of the peer.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.message import DecodeError

from aiobuildkit.errors import ErrorDetail, ProtocolError, RPCError, StatusCode
from aiobuildkit.http2.compression import MalformedHeaders, plain
from aiobuildkit.protos.control_pb2 import RPCStatus

Headers = Sequence[tuple[bytes, bytes]]

__all__ = [
    "MAX_MESSAGE",
    "PREFIX",
    "MessageReader",
    "error_of_malformed",
    "error_of_reset",
    "error_of_trailers",
    "metadata_of",
    "prefix",
    "request_headers",
    "response_headers",
    "trailers",
    "trailers_only",
]

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes; BuildKit's own limit in both directions (containerd's `defaults`)."""

_PREFIX = struct.Struct(">BI")

PREFIX = _PREFIX.size
"""Bytes before each message."""

_PRINTABLE = frozenset(range(0x20, 0x7F)) - {ord("%")}


def prefix(message: bytes) -> bytes:
    """The prefix of a message in DATA: the flag «not compressed» and its length."""
    return _PREFIX.pack(0, len(message))


class MessageReader:
    """Cuts a stream's DATA, which may be split anywhere, into messages."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._wanted = PREFIX

    @property
    def partial(self) -> int:
        """Bytes of an incomplete message."""
        return len(self._partial)

    def receive_data(self, data: bytes) -> list[bytes]:
        """Receive DATA and return complete messages.

        Raises:
            ProtocolError: a compressed message, or one of more than MAX_MESSAGE bytes.
        """
        if self._partial:
            self._partial += data
            if len(self._partial) < self._wanted:
                return []  # so that the pieces of a large message are joined only once
            data = bytes(self._partial)
            self._partial.clear()
        messages: list[bytes] = []
        start, end, wanted = 0, len(data), PREFIX
        while end - start >= PREFIX:
            wanted = PREFIX + self._length(data, start)
            if start + wanted > end:
                break
            messages.append(data[start + PREFIX : start + wanted])
            start += wanted
            wanted = PREFIX
        if start < end:
            self._partial += memoryview(data)[start:]
            self._wanted = wanted
        return messages

    @staticmethod
    def _length(data: bytes, start: int) -> int:
        compressed, length = _PREFIX.unpack_from(data, start)
        if compressed:
            raise ProtocolError("a compressed message, although compression was not offered")
        if length > MAX_MESSAGE:
            raise ProtocolError(f"a message of {length} bytes exceeds {MAX_MESSAGE}")
        return int(length)


def request_headers(
    path: str,
    *,
    scheme: str,
    authority: str,
    metadata: Iterable[tuple[str, str]] = (),
) -> list[tuple[bytes, bytes]]:
    """Headers that open a call; metadata keys are in lower case and may repeat."""
    return [
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"aiobuildkit"),
        *((key.encode(), value.encode()) for key, value in metadata),
    ]


def response_headers() -> list[tuple[bytes, bytes]]:
    """Headers before a call's first message."""
    return [(b":status", b"200"), (b"content-type", b"application/grpc")]


def trailers(code: StatusCode, message: str = "") -> list[tuple[bytes, bytes]]:
    """Trailers that end a call with a status."""
    fields = [(b"grpc-status", b"%d" % code)]
    if message:
        fields.append((b"grpc-message", _percent_encode(message)))
    return fields


def trailers_only(code: StatusCode, message: str = "") -> list[tuple[bytes, bytes]]:
    """Headers and trailers in one block, for a call that ends without a message."""
    return response_headers() + trailers(code, message)


def metadata_of(headers: Headers) -> Mapping[str, Sequence[str]]:
    """A call's headers by name, each with all its values in order."""
    metadata: dict[str, list[str]] = {}
    for key, value in headers:
        metadata.setdefault(key.decode("latin-1"), []).append(
            plain(value).decode("utf-8", "replace")
        )
    return metadata


def error_of_trailers(headers: Headers) -> RPCError | ProtocolError | None:
    """The error of a call's last headers; None for success."""
    try:
        fields = {key: plain(value) for key, value in headers}
    except MalformedHeaders as error:
        return error_of_malformed(error)
    number = fields.get(b"grpc-status")
    if number is None:
        status = fields.get(b":status", b"200").decode("latin-1")
        return ProtocolError(f"a call ended without grpc-status (HTTP status {status})")
    if not number.isdigit() or len(number) > 3:
        return ProtocolError(f"grpc-status is not a number: {number!r}")
    code = StatusCode.of(int(number))
    if code is StatusCode.OK:
        return None
    message = _percent_decode(fields.get(b"grpc-message", b"")).decode("utf-8", "replace")
    return RPCError(code, message, _details(fields.get(b"grpc-status-details-bin", b"")))


def error_of_malformed(error: MalformedHeaders) -> ProtocolError:
    """The error of a call whose last headers cannot be decoded."""
    return ProtocolError(f"a call ended with invalid headers: {error}")


def _details(encoded: bytes) -> list[ErrorDetail]:
    """The details of a status. Invalid ones are ignored, so that they do not hide the error."""
    try:
        # Padding is optional in gRPC, and b64decode ignores excess padding.
        status = RPCStatus.FromString(base64.b64decode(encoded + b"=="))
    except (binascii.Error, DecodeError):
        return []
    return [ErrorDetail(detail.type_url, detail.value) for detail in status.details]


_RESETS = {
    0x7: StatusCode.UNAVAILABLE,  # REFUSED_STREAM
    0x8: StatusCode.CANCELLED,  # CANCEL
    0xB: StatusCode.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: StatusCode.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}


def error_of_reset(http2_code: int) -> RPCError:
    """The gRPC status of a call whose stream the peer has reset."""
    code = _RESETS.get(http2_code, StatusCode.INTERNAL)
    return RPCError(code, f"the call was reset by the peer with HTTP/2 error code {http2_code}")


def _percent_decode(message: bytes) -> bytes:
    # A failed build's has megabytes. This is 30 times as fast as `urllib.parse.unquote_to_bytes`,
    # because quoted-printable (RFC 2045, section 6.7) only has "=" in the place of "%".
    return binascii.a2b_qp(message.replace(b"=", b"=3D").replace(b"%", b"="))


def _percent_encode(message: str) -> bytes:
    # A file's name may contain surrogates, which UTF-8 cannot encode.
    data = message.encode(errors="replace")
    return b"".join(bytes([byte]) if byte in _PRINTABLE else b"%%%02X" % byte for byte in data)
