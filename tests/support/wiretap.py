"""A proxy before BuildKit that reads along: what a builder says, in frames, calls and packets.

It takes HTTP/2 apart by itself, so that a fault of the builder's own framing cannot hide here.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from hpack import Decoder

from aiobuildkit.protos.control_pb2 import BytesMessage
from aiobuildkit.protos.fsutil_pb2 import Packet
from tests.support.proxies import Link, hand_on, unix_proxy

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_END_HEADERS, _PADDED_OR_PRIORITY = 0x4, 0x28
SESSION = "/moby.buildkit.v1.Control/Session"
_SOLVE = "/moby.buildkit.v1.Control/Solve"
_DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
_AUTH = "/moby.filesync.v1.Auth/"
_HEALTH = "/grpc.health.v1.Health/Check"

Heard = Callable[[int, str, bool, bytes], None]
"""Told of each message: the call's number and path, whether its client sent it, and the message."""


class Tap:
    """What went over one connection of the builder's, as far as it is the builder's doing.

    Attributes:
        calls: what the builder asked of BuildKit.
        called_back: what BuildKit asked of the build's sessions; their health aside, which it asks
            for by the clock.
        packets: of file transfers, by their kind: STAT, REQ, DATA, FIN.
        content: bytes of files in them.
        auth: messages of BuildKit's questions for credentials and tokens, and of their answers.
        frames: HTTP/2 frames to BuildKit that carry data.
        sent: bytes to BuildKit.
    """

    def __init__(self) -> None:
        self.packets: Counter[str] = Counter()
        self.content = 0
        self.auth: list[bytes] = []
        self.sent = 0
        self._outer = _HTTP2(self._hear)
        # By the number of the call that carries a session.
        self._inner = defaultdict[int, _HTTP2](lambda: _HTTP2(self._hear_in_session))

    def feed(self, data: bytes, *, to_buildkit: bool) -> None:
        """Take what went over the connection."""
        if to_buildkit:
            self.sent += len(data)
        self._outer.feed(data, by_client=to_buildkit)

    @property
    def calls(self) -> Counter[str]:
        return _names(self._outer)

    @property
    def called_back(self) -> Counter[str]:
        return sum(map(_names, self._inner.values()), Counter())

    @property
    def frames(self) -> int:
        return self._outer.data_frames[True]

    @property
    def is_build(self) -> bool:
        """Whether it carried a Solve: a builder also asks BuildKit how it is, by the clock."""
        return _SOLVE in self._outer.paths.values()

    def stream(self, path: str) -> int:
        """The number of the latest call of this path."""
        return max(number for number, called in self._outer.paths.items() if called == path)

    def _hear(self, call: int, path: str, by_client: bool, message: bytes) -> None:
        if path == SESSION:
            # On the connection inside the session BuildKit is the client.
            self._inner[call].feed(BytesMessage.FromString(message).data, by_client=not by_client)

    def _hear_in_session(self, call: int, path: str, by_client: bool, message: bytes) -> None:
        del call, by_client  # a packet's kind says who sent it
        if path.startswith(_AUTH):
            self.auth.append(message)
        if path == _DIFF_COPY:
            packet = Packet.FromString(message)
            self.packets[Packet.Type.Name(packet.type)] += 1
            self.content += len(packet.data)


def _names(connection: "_HTTP2") -> Counter[str]:
    paths = connection.paths.values()
    return Counter(path.rpartition("/")[2] for path in paths if path != _HEALTH)


class _HTTP2:
    """Both directions of a connection; True is what its client says."""

    def __init__(self, heard: Heard) -> None:
        self.paths: dict[int, str] = {}
        self.data_frames: Counter[bool] = Counter()
        self._heard = heard
        self._partial = {True: bytearray(), False: bytearray()}
        self._blocks = {True: bytearray(), False: bytearray()}
        self._decoders = {True: Decoder(), False: Decoder()}
        self._messages: dict[tuple[int, bool], bytearray] = defaultdict(bytearray)
        self._preface = len(_PREFACE)

    def feed(self, data: bytes, *, by_client: bool) -> None:
        if by_client and self._preface:
            skipped = min(self._preface, len(data))
            self._preface -= skipped
            data = data[skipped:]
        partial = self._partial[by_client]
        partial += data
        while len(partial) >= 9:
            size = int.from_bytes(partial[:3], "big")
            if len(partial) < 9 + size:
                break
            kind, flags, stream = struct.unpack_from(">BBL", partial, 3)
            payload = bytes(partial[9 : 9 + size])
            del partial[: 9 + size]
            if kind in (_HEADERS, _CONTINUATION):
                self._take_headers(stream, flags, payload, by_client)
            elif kind == _DATA:
                self._take_data(stream, flags, payload, by_client)

    def _take_headers(self, stream: int, flags: int, payload: bytes, by_client: bool) -> None:
        assert not flags & _PADDED_OR_PRIORITY, "neither side pads"
        block = self._blocks[by_client]
        block += payload
        if flags & _END_HEADERS:
            # Each block, or the decoder would lose the others' words.
            headers = dict(self._decoders[by_client].decode(bytes(block), raw=True))
            block.clear()
            if b":path" in headers:
                self.paths[stream] = headers[b":path"].decode()

    def _take_data(self, stream: int, flags: int, payload: bytes, by_client: bool) -> None:
        assert not flags & _PADDED_OR_PRIORITY, "neither side pads"
        self.data_frames[by_client] += 1
        held = self._messages[stream, by_client]
        held += payload
        while len(held) >= 5 and len(held) >= (end := 5 + int.from_bytes(held[1:5], "big")):
            message = bytes(held[5:end])
            del held[:end]
            self._heard(stream, self.paths[stream], by_client, message)


@asynccontextmanager
async def wiretap(buildkit: str, path: Path) -> AsyncIterator[tuple[str, list[Tap]]]:
    """Another address, a socket at `path`, for a BuildKit; and what went over each connection."""
    taps: list[Tap] = []

    def pumps(link: Link) -> Iterable[Coroutine[None, None, None]]:
        tap = Tap()
        taps.append(tap)
        yield hand_on(link.reader, link.back, partial(tap.feed, to_buildkit=True))
        yield hand_on(link.there, link.writer, partial(tap.feed, to_buildkit=False))

    async with unix_proxy(buildkit, path, pumps) as address:
        yield address, taps
