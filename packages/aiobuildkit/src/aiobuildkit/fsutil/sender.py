"""The sending side of fsutil's file transfer, without I/O.

The sender announces every entry in order. The receiver (BuildKit) asks for the contents that it
lacks, by the entry's number, and sends FIN when it has them::

    sender                       receiver
      STAT STAT … STAT (empty)  →
                                 ←  REQ id …          (from the first STAT on)
      DATA … DATA (empty)       →                     (for each REQ)
                                 ←  FIN
      FIN                       →

Either side may send ERR with a text at any time, which ends the call. Source: tonistiigi/fsutil,
`receive.go`, `send.go`, `types/*.proto`.

protobuf's generated code encodes the packets. For 10,000 entries it was compared with a codec in
Python: STATs 11 ms (the message is reused) and 31 ms, REQs 7 ms and 5 ms, and no difference for
DATA, whose cost is the copy.
"""

from __future__ import annotations

import stat
from collections import deque
from enum import Enum, auto
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from aiobuildkit.errors import ProtocolError, RPCError, StatusCode
from aiobuildkit.protos.fsutil_pb2 import Packet

__all__ = [
    "CHUNK",
    "DIRECTORY",
    "SYMLINK",
    "Entry",
    "Request",
    "Sender",
    "State",
    "error_packet",
    "file_mode",
    "order",
]

CHUNK: Final = 256 * 1024
"""Bytes of content in one DATA packet: as fast as any size, far below gRPC's limits."""

# Go's os.FileMode (Go's io/fs/fs.go), whose type and flag bits differ from st_mode.
DIRECTORY: Final = 1 << 31
SYMLINK: Final = 1 << 27
_DEVICE: Final = 1 << 26
_FIFO: Final = 1 << 25
_SOCKET: Final = 1 << 24
_SETUID: Final = 1 << 23
_SETGID: Final = 1 << 22
_CHAR_DEVICE: Final = 1 << 21
_STICKY: Final = 1 << 20
_IRREGULAR: Final = 1 << 19
_TYPE: Final = DIRECTORY | SYMLINK | _DEVICE | _FIFO | _SOCKET | _CHAR_DEVICE | _IRREGULAR

# Go's ModeTemporary, which a Linux file never has. The receiver compares modes as a whole, so an
# entry with this bit differs from every entry that it has. chmod(2) and the checksums of BuildKit's
# cache only use other bits (Go's `syscallMode` and `tar.FileInfoHeader`).
_UNLIKE_ANY: Final = 1 << 28

_TYPES: Final = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFBLK: _DEVICE,
    stat.S_IFCHR: _DEVICE | _CHAR_DEVICE,
    stat.S_IFIFO: _FIFO,
    stat.S_IFSOCK: _SOCKET,
}


class Entry(NamedTuple):
    """One file, directory or symbolic link of a tree.

    Attributes:
        path: relative to the tree's root, clean, `/`-separated.
        mode: Go's `os.FileMode`; `file_mode` translates a unix one.
        size: of a regular file, in bytes.
        mtime: nanoseconds since the epoch, within 64 signed bits.
        target: of a symbolic link, unchanged.
        link_group: a number that all names (hard links) of one regular file share; 0 for a file
            with one name.
        unreadable: why a directory cannot be listed; empty if it can.
        resend: whether the receiver must receive the entry again (a file's content, a directory's
            mode and mtime), although all that it compares may be equal.
    """

    path: str
    mode: int
    size: int = 0
    mtime: int = 0
    target: str = ""
    link_group: int = 0
    unreadable: str = ""
    resend: bool = False

    @property
    def is_directory(self) -> bool:
        """Whether the entry is a directory."""
        return self.mode & DIRECTORY != 0

    @property
    def is_symlink(self) -> bool:
        """Whether the entry is a symbolic link."""
        return self.mode & SYMLINK != 0


def file_mode(st_mode: int) -> int:
    """Translate a unix `st_mode`, with its type bits, to Go's `os.FileMode`."""
    mode = stat.S_IMODE(st_mode) & 0o777 | _TYPES.get(stat.S_IFMT(st_mode), _IRREGULAR)
    if st_mode & stat.S_ISUID:
        mode |= _SETUID
    if st_mode & stat.S_ISGID:
        mode |= _SETGID
    if st_mode & stat.S_ISVTX:
        mode |= _STICKY
    return mode


def order(path: str) -> str:
    """The key by which fsutil orders paths: names compared one by one, parents first."""
    return path.replace("/", "\0")


class State(Enum):
    """The state of a transfer."""

    ANNOUNCING = auto()
    """The list is being sent; the receiver may already request contents."""
    SERVING = auto()
    """The list is complete."""
    CLOSING = auto()
    """The receiver has all contents, and waits for our FIN."""
    CLOSED = auto()
    """FIN was exchanged, or the transfer failed."""


class Request(NamedTuple):
    """The receiver requests an entry's content."""

    id: int
    entry: Entry


class Sender:
    """The sending side of one transfer: the packets to send, and the receiver's requests.

    Each method that returns bytes returns one packet. It must be sent before the next call.
    """

    def __init__(self) -> None:
        self.state = State.ANNOUNCING
        self.announced = 0
        """The number of STATs."""
        self.requested = 0
        """The number of REQs."""
        self._askable: dict[int, Entry] = {}
        self._requests: deque[Request] = deque()
        self._unanswered = 0
        self._due: set[int] = set()
        self._first_names: dict[int, str] = {}
        self._packet = Packet(type=Packet.STAT)

    def announce(self, entry: Entry) -> bytes:
        """Announce the next entry of the list; parents come before what is in them."""
        fields = self._packet.stat
        fields.path = entry.path
        fields.mode = entry.mode | _UNLIKE_ANY if entry.resend else entry.mode
        fields.mod_time = entry.mtime
        fields.size = entry.size
        fields.linkname = entry.target
        kind = entry.mode & _TYPE
        if not kind:
            self._askable[self.announced] = entry
            if entry.link_group:
                # Keep the size. With 0, as in fsutil's own sender, BuildKit's receiver finds # the
                # link changed at the next build, and leaves temporary names behind.
                first = self._first_names.setdefault(entry.link_group, entry.path)
                fields.linkname = first if first != entry.path else ""
            if entry.resend and not fields.linkname:
                self._due.add(self.announced)
        elif kind == SYMLINK:
            fields.size = len(entry.target.encode())
        self.announced += 1
        return self._packet.SerializeToString()

    def end_list(self) -> bytes:
        """The packet that ends the list."""
        self.state = State.SERVING
        return Packet(type=Packet.STAT).SerializeToString()

    def receive(self, message: bytes) -> None:
        """Receive a packet.

        Raises:
            ProtocolError: it is not a packet, or not allowed now; the text says why.
            RPCError: it is an ERR packet; ABORTED, with the receiver's text.
        """
        try:
            packet = Packet.FromString(message)
        except DecodeError as error:
            raise ProtocolError("not a packet of a file transfer") from error
        if self.state in {State.CLOSING, State.CLOSED}:
            raise ProtocolError(f"{_name(packet)} after the transfer's end")
        match packet.type:
            case Packet.REQ:
                self._receive_request(packet.id)
            case Packet.FIN:
                self._receive_fin()
            case Packet.ERR:
                text = packet.data.decode(errors="replace")
                raise RPCError(StatusCode.ABORTED, f"BuildKit aborted the transfer: {text}")
            case _:
                raise ProtocolError(f"{_name(packet)} packets go to the receiver only")

    def _receive_request(self, number: int) -> None:
        entry = self._askable.pop(number, None)
        if entry is None:
            why = "not announced, not a regular file, or already requested"
            raise ProtocolError(f"REQ for entry {number}: {why}")
        self._due.discard(number)
        self.requested += 1
        self._unanswered += 1
        self._requests.append(Request(number, entry))

    def _receive_fin(self) -> None:
        if self.state is State.ANNOUNCING:
            raise ProtocolError("FIN before the end of the list")
        if self._unanswered:
            raise ProtocolError(f"FIN while {self._unanswered} files are still to be sent")
        if self._due:
            raise ProtocolError(
                f"FIN without a REQ for {len(self._due)} files that must be sent again"
            )
        self.state = State.CLOSING

    def next_request(self) -> Request | None:
        """The next file to send, in the order of the requests; None if there is none now."""
        return self._requests.popleft() if self._requests else None

    def data(self, request: Request, content: bytes) -> bytes:
        """Send a part of a file, in order; at most `CHUNK` bytes and at least one."""
        return Packet(type=Packet.DATA, id=request.id, data=content).SerializeToString()

    def end_file(self, request: Request) -> bytes:
        """The packet that ends a file."""
        self._unanswered -= 1
        return Packet(type=Packet.DATA, id=request.id).SerializeToString()

    def fin(self) -> bytes:
        """Answer the receiver's FIN."""
        self.state = State.CLOSED
        return Packet(type=Packet.FIN).SerializeToString()


def error_packet(text: str) -> bytes:
    """The packet that fails the transfer; BuildKit shows its text as the build's error."""
    return Packet(type=Packet.ERR, data=text.encode(errors="replace")).SerializeToString()


def _name(packet: Packet) -> str:
    names = {value: name for name, value in Packet.Type.items()}
    return names.get(packet.type, f"packet of type {packet.type}")
