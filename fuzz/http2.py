"""One HTTP/2 connection and the gRPC on it: whatever BuildKit's side sends, and however cut.

The first byte says which side we are, whether we answer, and how the rest is meant: as raw bytes,
or as frames whose lengths and preface are right. The second says where the bytes are cut.
"""

from collections.abc import Iterator

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError as H2ProtocolError

from aiobuildkit.errors import ProtocolError
from aiobuildkit.fsutil.filter import Wanted
from aiobuildkit.http2.connection import (
    HTTP2,
    DataReceived,
    HeadersReceived,
    StreamEnded,
    StreamReset,
)
from aiobuildkit.rpc import framing
from fuzz.slices import Slices

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes(3) + b"\x04" + bytes(5)

CLIENT, ANSWERING, FRAMED = 1, 2, 4

_REQUEST = framing.request_headers("/s/m", scheme="http", authority="x")


def run(data: bytes) -> None:
    """Feed one connection, then, if we only listen, another with the bytes cut otherwise."""
    steps = Slices(data)
    how, cut = steps.byte(), steps.byte()
    sent = b"".join(_frames(steps)) if how & FRAMED else steps.rest()
    if how & FRAMED:
        sent = (b"" if how & CLIENT else PREFACE) + _SETTINGS + sent
    side = _Side(client=bool(how & CLIENT), answering=bool(how & ANSWERING))
    side.receive_data(sent, cut + 1)
    side.check_messages()
    if not side.answering:
        whole = _Side(client=side.client, answering=False)
        whole.receive_data(sent, len(sent) or 1)
        # What came before a mistake in the same piece is lost with it.
        assert side.broken is whole.broken
        if not side.broken:
            assert side.heard == whole.heard
            assert side.messages == whole.messages
        heard = _as_h2_hears(sent, client=side.client)
        if heard is not None and not side.broken:
            assert side.heard == heard


def _frames(steps: Slices) -> Iterator[bytes]:
    """Frames: type, flags, stream, and a body of 255 bytes at most."""
    while steps:
        kind, flags, stream, body = steps.byte(), steps.byte(), steps.byte(), steps.piece()
        yield len(body).to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, stream)) + body


def _as_h2_hears(sent: bytes, *, client: bool) -> dict[int, list[str]] | None:
    """What each stream brought, apart from its data; None for what h2 takes for a mistake.

    Neither is the stricter: h2 knows what requests must be like, and lets too much padding pass.
    """
    connection = H2Connection(
        H2Configuration(
            client_side=client,
            header_encoding=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
    )
    connection.initiate_connection()
    if client:
        for stream in (1, 3, 5):
            connection.send_headers(stream, _REQUEST)
    heard: dict[int, list[str]] = {}
    try:
        events = connection.receive_data(sent)
    except H2ProtocolError:
        return None
    for event in events:
        match event:
            case (
                h2.events.ConnectionTerminated()
                | h2.events.InformationalResponseReceived()
                # Its own answer to a mistake.
                | h2.events.StreamReset(remote_reset=False)
            ):
                return None
            case h2.events.RequestReceived(stream_id=stream, headers=headers):
                heard.setdefault(stream, []).append(f"True {headers}")
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                heard.setdefault(event.stream_id, []).append(f"False {event.headers}")
            case h2.events.StreamEnded(stream_id=stream):
                heard.setdefault(stream, []).append(str(StreamEnded(stream)))
            case h2.events.StreamReset(stream_id=stream):
                heard.setdefault(stream, []).append(str(StreamReset(stream, int(event.error_code))))
    return heard


class _Side:
    """Our side of a connection.

    Attributes:
        broken: the peer broke HTTP/2.
        heard: what each stream brought, apart from its data.
        messages: what each stream's data held; None after a message that is none.
    """

    def __init__(self, *, client: bool, answering: bool) -> None:
        self.client = client
        self.answering = answering
        self.broken = False
        self.heard: dict[int, list[str]] = {}
        self.messages: dict[int, list[bytes] | None] = {}
        self._readers: dict[int, framing.MessageReader] = {}
        self._data: dict[int, bytes] = {}
        self._http2 = HTTP2(client=client)
        if client:
            for _ in range(3):
                stream = self._http2.open(_REQUEST)
                self._http2.send(stream, framing.prefix(b"hello"), b"hello")
        self._http2.data_to_send()

    def receive_data(self, sent: bytes, size: int) -> None:
        for start in range(0, len(sent), size):
            try:
                events = self._http2.receive_data(sent[start : start + size])
            except ProtocolError as error:
                assert str(error)
                self.broken = True
                break
            for event in events:
                self._handle(event)
            if self.answering:
                self._http2.data_to_send()
        self._http2.data_to_send()

    def check_messages(self) -> None:
        """Data that comes in pieces holds the messages that it holds as a whole."""
        for stream, messages in self.messages.items():
            if messages is not None:
                assert messages == framing.MessageReader().receive_data(self._data[stream])

    def _handle(self, event: object) -> None:
        match event:
            case DataReceived(stream, data, size):
                assert len(data) <= size
                self._http2.acknowledge(stream, size)
                self._read(stream, data)
            case HeadersReceived(stream, headers, opened):
                Wanted.parse(framing.metadata_of(headers))
                framing.error_of_trailers(headers)
                self.heard.setdefault(stream, []).append(f"{opened} {headers}")
                if self.answering and opened:
                    self._http2.respond(stream, framing.response_headers())
                    self._http2.send(stream, framing.prefix(b"answer"), b"answer")
            case StreamEnded(stream) | StreamReset(stream, _):
                self.heard.setdefault(stream, []).append(str(event))
                if self.answering:
                    self._http2.end(stream, None if self.client else framing.trailers_only(2, "é"))  # type: ignore[arg-type]

    def _read(self, stream: int, data: bytes) -> None:
        messages = self.messages.setdefault(stream, [])
        if messages is None:
            return
        self._data[stream] = self._data.get(stream, b"") + data
        reader = self._readers.setdefault(stream, framing.MessageReader())
        try:
            messages += reader.receive_data(data)
        except ProtocolError:
            self.messages[stream] = None
            if self.answering:
                self._http2.reset(stream)
        assert reader.partial <= framing.MAX_MESSAGE
