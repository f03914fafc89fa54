"""The sending side of a file transfer: whatever BuildKit says, and whenever.

The input is a list of steps: a byte that says which, and what the step needs.
"""

import stat

from aiobuildkit.errors import ProtocolError, RPCError
from aiobuildkit.fsutil.sender import Entry, Request, Sender, State, file_mode
from aiobuildkit.protos.fsutil_pb2 import Packet
from fuzz.slices import Slices

_KINDS = (stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def run(data: bytes) -> None:
    """Play the steps, and hold the sender to what was announced and asked for."""
    steps = Slices(data)
    play = _Play()
    moves = (
        lambda: play.announce(steps),
        lambda: play.receive(steps.piece()),
        lambda: play.receive(_packet(steps)),
        lambda: play.serve(steps.byte() % 4),
        play.end_list,
        lambda: play.receive(Packet(type=Packet.FIN).SerializeToString()),
    )
    while steps and not play.over:
        moves[steps.byte() % len(moves)]()


def _packet(steps: Slices) -> bytes:
    """A packet of the receiver's that is well-formed at least."""
    kind = steps.byte() % 5
    number = steps.byte()
    return Packet(type=kind, id=number, data=steps.piece()).SerializeToString()  # type: ignore[arg-type]


class _Play:
    """One transfer.

    Attributes:
        over: the sender has given up, or has said FIN: it is asked no more.
    """

    def __init__(self) -> None:
        self.over = False
        self._sender = Sender()
        self._entries: list[Entry] = []
        self._given: set[int] = set()
        self._unanswered = 0
        self._ended = False

    def announce(self, steps: Slices) -> None:
        if self._ended:
            return
        kind = _KINDS[steps.byte() % len(_KINDS)]
        group = steps.byte() % 3 if kind == stat.S_IFREG else 0
        target = steps.text() if kind == stat.S_IFLNK else ""
        name = f"{len(self._entries)}{steps.text()}"
        entry = Entry(name, file_mode(kind | 0o644), 9, -1, target, group)
        packet = _read(self._sender.announce(entry))
        assert packet.type == Packet.STAT
        assert packet.stat.path == name
        if group:
            first = next((other for other in self._entries if other.link_group == group), entry)
            assert packet.stat.linkname == (first.path if first is not entry else "")
            assert packet.stat.size == entry.size
        self._entries.append(entry)

    def end_list(self) -> None:
        if not self._ended:
            self._ended = True
            packet = _read(self._sender.end_list())
            assert not packet.HasField("stat")

    def receive(self, message: bytes) -> None:
        try:
            self._sender.receive(message)
        except (ProtocolError, RPCError) as error:
            assert str(error)
            self.over = True
            return
        packet = Packet.FromString(message)
        if packet.type == Packet.FIN:
            assert self._ended
            assert self._unanswered == 0
            assert self._sender.state is State.CLOSING
            assert _read(self._sender.fin()).type == Packet.FIN
            self.over = True
        else:
            assert packet.type == Packet.REQ
            self._unanswered += 1

    def serve(self, pieces: int) -> None:
        request = self._sender.next_request()
        if request is None:
            return
        self._check(request)
        for _ in range(pieces):
            packet = _read(self._sender.data(request, b"data"))
            assert (packet.type, packet.id, packet.data) == (Packet.DATA, request.id, b"data")
        packet = _read(self._sender.end_file(request))
        assert (packet.type, packet.id, packet.data) == (Packet.DATA, request.id, b"")
        self._unanswered -= 1

    def _check(self, request: Request) -> None:
        """It was announced, is a regular file, and was not given before."""
        assert request.entry is self._entries[request.id]
        assert not request.entry.is_directory
        assert not request.entry.is_symlink
        assert request.id not in self._given
        self._given.add(request.id)


def _read(message: bytes) -> Packet:
    return Packet.FromString(message)
