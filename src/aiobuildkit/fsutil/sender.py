"""The sending side of fsutil's file transfer, without I/O.

The receiver (BuildKit) is told of every entry in order, asks for the contents it lacks by the
entry's number, and says FIN when it has them::

    sender                       receiver
      STAT STAT … STAT (empty)  →
                                 ←  REQ id …          (from the first STAT on)
      DATA … DATA (empty)       →                     (for each REQ)
                                 ←  FIN
      FIN                       →

Either side may send ERR with a text at any time, which ends the call. The source of record is
tonistiigi/fsutil: ``receive.go``, ``send.go``, ``types/*.proto``.

Packets are coded by protobuf's generated code. Measured for 10,000 entries against a codec by
hand: STATs 11 ms (the message reused) against 31 ms, REQs 7 ms against 5 ms, and no difference
for DATA, whose cost is the copy.
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

# Go's os.FileMode (Go's io/fs/fs.go): its type and flag bits are not those of st_mode.
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
# entry with this bit differs from any that it holds. chmod(2) and the checksums by which BuildKit
# finds built steps use other bits only (Go's `syscallMode` and `tar.FileInfoHeader`).
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
        path: relative to the tree's root, clean, ``/``-separated.
        mode: Go's ``os.FileMode``; `file_mode` translates a unix one.
        size: of a regular file, in bytes.
        mtime: nanoseconds since the epoch, within 64 signed bits.
        target: of a symbolic link, as it is written in it.
        link_group: names of one regular file (hard links) share a number; 0 for a file with
            one name.
        unreadable: why it is not known what is in a directory; empty if it is known.
        resend: whether the receiver must take the entry again, although all that it compares may
            be equal: a file's content, a directory's mode and mtime.
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
    """Translate a unix ``st_mode``, with its type bits, to Go's ``os.FileMode``."""
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
    """Where a transfer stands."""

    ANNOUNCING = auto()
    """The list is being sent; contents may be asked for already."""
    SERVING = auto()
    """The list is complete."""
    CLOSING = auto()
    """The receiver has all it wants and waits for our FIN."""
    CLOSED = auto()
    """FIN was exchanged, or the transfer was given up."""


class Request(NamedTuple):
    """The receiver wants an entry's content."""

    id: int
    entry: Entry


class Sender:
    """The sending side of one transfer: what to send, and what the receiver asked for.

    Each method that gives bytes gives one packet, which must be sent before the next one is
    asked for.
    """

    def __init__(self) -> None:
        self.state = State.ANNOUNCING
        self.announced = 0
        """STATs so far."""
        self.requested = 0
        """REQs so far."""
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
                # The size stays: with 0, as fsutil's own sender has it, BuildKit's receiver
                # finds the link changed at the next build and leaves temporary names behind.
                first = self._first_names.setdefault(entry.link_group, entry.path)
                fields.linkname = first if first != entry.path else ""
            if entry.resend and not fields.linkname:
                self._due.add(self.announced)
        elif kind == SYMLINK:
            fields.size = len(entry.target.encode())
        self.announced += 1
        return self._packet.SerializeToString()

    def end_list(self) -> bytes:
        """Say that every entry has been announced."""
        self.state = State.SERVING
        return Packet(type=Packet.STAT).SerializeToString()

    def receive(self, message: bytes) -> None:
        """Take a packet of the receiver's.

        Raises:
            ProtocolError: it is no packet, or none that may come now; its text says why.
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
                raise RPCError(StatusCode.ABORTED, f"BuildKit gave up the transfer: {text}")
            case _:
                raise ProtocolError(f"{_name(packet)} packets go to the receiver only")

    def _receive_request(self, number: int) -> None:
        entry = self._askable.pop(number, None)
        if entry is None:
            why = "not announced, no regular file, or asked for before"
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
            raise ProtocolError(f"FIN without a REQ for {len(self._due)} files that must be resent")
        self.state = State.CLOSING

    def next_request(self) -> Request | None:
        """The next file to send, in the order of asking; None if there is none now."""
        return self._requests.popleft() if self._requests else None

    def data(self, request: Request, content: bytes) -> bytes:
        """Send a part of a file, in order; at most `CHUNK` bytes and at least one."""
        return Packet(type=Packet.DATA, id=request.id, data=content).SerializeToString()

    def end_file(self, request: Request) -> bytes:
        """Say that a file is complete."""
        self._unanswered -= 1
        return Packet(type=Packet.DATA, id=request.id).SerializeToString()

    def fin(self) -> bytes:
        """Answer the receiver's FIN."""
        self.state = State.CLOSED
        return Packet(type=Packet.FIN).SerializeToString()


def error_packet(text: str) -> bytes:
    """Tell the receiver why the transfer fails; BuildKit shows it as the build's error."""
    return Packet(type=Packet.ERR, data=text.encode(errors="replace")).SerializeToString()


def _name(packet: Packet) -> str:
    names = {value: name for name, value in Packet.Type.items()}
    return names.get(packet.type, f"packet of type {packet.type}")
