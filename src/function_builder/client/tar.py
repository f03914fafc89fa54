"""Headers of a tar (POSIX.1-2001, ustar and pax)."""

from __future__ import annotations

import stat
from struct import Struct
from typing import Final

_HEADER: Final = Struct("100s8s8s8s12s12s8s1s100s8s247x")
_ROOT: Final = b"0000000"
_NAME_BYTES: Final = 100
_MAX_OCTAL: Final = 8**11
_TYPES: Final = {stat.S_IFREG: b"0", 0: b"1", stat.S_IFLNK: b"2", stat.S_IFDIR: b"5"}


def pack_header(name: str, mode: int, size: int, mtime: int, target: str = "") -> bytes:
    """The blocks before an entry's content, owned by 0:0.

    The standard library writes the same bytes, and what no ustar header holds. Its import takes
    longer than a small request.

    Args:
        name: of the entry.
        mode: in the form of `st_mode`; a hard link has no type bits.
        size: bytes of its content.
        mtime: seconds since the epoch.
        target: of a link.
    """
    kind = _TYPES[stat.S_IFMT(mode)]
    path = f"{name}/" if kind == b"5" and not name.endswith("/") else name
    plain = path.isascii() and target.isascii() and max(len(path), len(target)) <= _NAME_BYTES
    if not plain or size >= _MAX_OCTAL or not 0 <= mtime < _MAX_OCTAL:
        return _pax_header(name, mode, size, mtime, target=target, kind=kind)
    fields = [
        *(path.encode(), b"%07o" % stat.S_IMODE(mode), _ROOT, _ROOT, b"%011o" % size),
        *(b"%011o" % mtime, b" " * 8, kind, target.encode(), b"ustar\x0000"),
    ]
    checksum = sum(_HEADER.pack(*fields))
    fields[6] = b"%06o\0 " % checksum
    return _HEADER.pack(*fields)


def _pax_header(name: str, mode: int, size: int, mtime: int, *, target: str, kind: bytes) -> bytes:
    import tarfile

    info = tarfile.TarInfo(name)
    info.mode, info.size, info.mtime = stat.S_IMODE(mode), size, mtime
    info.type, info.linkname = kind, target
    return info.tobuf(tarfile.PAX_FORMAT)
