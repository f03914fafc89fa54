"""The table of hostile archives: each class that we know of, its cases, and the answer to each."""

import bz2
import gzip
import lzma
from collections.abc import Iterable
from itertools import repeat
from typing import Final

from tests.adversarial.hostile.cases import (
    CONFIG,
    COPIES_ALL,
    COPIES_ITSELF,
    DIRECTORY,
    MARK,
    SECRETS,
    Body,
    archive,
    built,
    file,
    folder,
    hardlink,
    long_name,
    many,
    pax,
    refused,
    symlink,
)
from tests.support.archives import BLOCK, END, extended, header, octal, padded, record

LEAVES: Final = "could leave the archive"
LINUX: Final = "a name or target that is too long"
UTF8: Final = "not UTF-8"
DEVICE: Final = "is a device or a fifo: leave it out"
NO_FOLDER: Final = "which is not a folder"
CUT: Final = "is cut short"

MAP: Final = "map that does not fit its data"


def _sparse(size: int, *pieces: tuple[int, int]) -> bytes:
    """The pax header of a sparse file: without pieces, their map is in the file's data."""
    numbers = b",".join(b"%d,%d" % piece for piece in pieces)
    version = [(b"GNU.sparse.map", numbers)] if pieces else [(b"GNU.sparse.major", b"1")]
    minor = [] if pieces else [(b"GNU.sparse.minor", b"0")]
    return pax(*version, *minor, (b"GNU.sparse.realsize", b"%d" % size))


NAMES: Final = {
    "climbs out": refused(LEAVES, file(f"../{MARK}")),
    "climbs out of the context": refused(LEAVES, file(f"context/../../../../tmp/{MARK}")),
    "climbs within": refused(LEAVES, file("context/a/../b")),
    "ends in two dots": refused(LEAVES, folder("context/..")),
    "absolute": refused(LEAVES, file(f"/tmp/{MARK}")),
    "absolute behind a slash": refused(LEAVES, file(f"//context/{MARK}")),
    "absolute in a pax header": refused(
        LEAVES, pax((b"path", f"/tmp/{MARK}".encode())), file("context/a")
    ),
    "absolute in a GNU long name": refused(
        LEAVES, long_name(f"/tmp/{MARK}".encode()), file("context/a")
    ),
    "absolute in ustar's prefix": refused(LEAVES, header(MARK.encode(), prefix=b"/tmp")),
    "climbs out beside the context": refused(LEAVES, file(f"other/../../{MARK}")),
    "with backslashes and a drive": built(
        {"..\\..\\a": b"1", "C:\\b": b"2"},
        file("context/..\\..\\a", b"1"),
        file("context/C:\\b", b"2"),
    ),
    "with dots that are none": built(
        {"...": b"1", "\uff0e\uff0e": b"2", "\u2024\u2024": b"3"},
        file("context/...", b"1"),
        file("context/\uff0e\uff0e", b"2"),
        file("context/\u2024\u2024", b"3"),
    ),
    "with an overlong slash": refused(UTF8, file(b"context/\xc0\xae\xc0\xae\xc0\xaf" + b"a")),
    "that is not UTF-8": refused(UTF8, file(b"context/\xff")),
    "with half a surrogate pair": refused(UTF8, file(b"context/\xed\xa0\x80")),
    "empty": refused("has no name", file("")),
    "that is a dot": refused("has no name", file("./.")),
    "cut at a NUL": built({"a": b"1"}, file(b"context/a\0b/../../c", b"1")),
    "with a NUL in a pax header": refused(
        "a path with a NUL", pax((b"path", b"context/a\0/../../b")), file("context/a")
    ),
    "with line ends and escapes": built(
        {"a\nb": b"1", "\x1b[2J\r": b"2", "\u202egpj.exe": b"3"},
        file("context/a\nb", b"1"),
        file("context/\x1b[2J\r", b"2"),
        file("context/\u202egpj.exe", b"3"),
    ),
    "with escapes, in a refusal": refused("a\\n\\x1b[2J\\u202e", file("../a\n\x1b[2J\u202e")),
    "that looks like an option": built(
        {"-rf": b"1", "--": b"2"}, file("context/-rf", b"1"), file("context/--", b"2")
    ),
    "like whiteouts of a layer": built(
        None, file("context/.wh.Dockerfile"), file("context/.wh..wh..opq")
    ),
    "of 255 bytes": built({"n" * 255: b"1"}, file("context/" + "n" * 255, b"1")),
    "of 256 bytes": refused(LINUX, file("context/" + "n" * 256)),
    "of 128 letters and 256 bytes": refused(LINUX, file("context/" + "é" * 128)),
    "of 4,096 bytes": refused(LINUX, file("context/" + "n" * 4096)),
    "of a megabyte": refused("too long a name", long_name(b"n" * 1_000_000), file("a")),
    "that repeats ./ for a megabyte": refused(
        "too long a name", long_name(b"./" * 500_000 + b"a"), file("a")
    ),
    "of 256 folders": built(None, file("context/" + "d/" * 256 + "f", b"1")),
    "of 257 folders": refused("more than 256 nested folders", file("context/" + "d/" * 257 + "f")),
    "of three thousand folders": refused(
        "more than 256 nested folders", file("context/" + "d/" * 3000 + "f")
    ),
}

SAME_NAMES: Final = {
    "two configs": refused("two com.openfaas.docker.config", file(CONFIG, b"{}")),
    "two configs, one as ./": refused("two com.openfaas.docker.config", file(f"./{CONFIG}", b"{}")),
    "two files": built({"a": b"second"}, file("context/a", b"first"), file("context/a", b"second")),
    "two Dockerfiles": built(
        None, file("context/Dockerfile", b"FRO\n"), file("context//./Dockerfile", COPIES_ALL)
    ),
    "a folder for a file": built(
        {"a": DIRECTORY, "a/b": b"1"},
        file("context/a", b"0"),
        folder("context/a"),
        file("context/a/b", b"1"),
    ),
    "a file for a folder that holds something": refused(
        "would replace a folder", file("context/a/b"), file("context/a")
    ),
    "a symlink for a folder that holds something": refused(
        "would replace a folder", file("context/a/b"), symlink("context/a", f"/tmp/{MARK}")
    ),
    "that differ in case": built(
        {"readme": b"1", "README": b"2", "DOCKERFILE": b"3", "dockerfile": b"4"},
        file("context/readme", b"1"),
        file("context/README", b"2"),
        file("context/DOCKERFILE", b"3"),
        file("context/dockerfile", b"4"),
    ),
    "that differ in Unicode's form": built(
        {"\u00e9": b"1", "e\u0301": b"2", "\ufb01": b"3", "fi": b"4"},
        file("context/\u00e9", b"1"),
        file("context/e\u0301", b"2"),
        file("context/\ufb01", b"3"),
        file("context/fi", b"4"),
    ),
    "a config that only looks so": refused(
        f"has no {CONFIG}", file("com.openfaas.docker.conf\u0456g", b"{}"), config=None
    ),
    "a config in capitals": refused(f"has no {CONFIG}", file(CONFIG.upper(), b"{}"), config=None),
    "a context that only looks so": refused(
        "has no context/", file("c\u043entext/Dockerfile", COPIES_ALL), dockerfile=None
    ),
    "a Dockerfile that only looks so": refused(
        "no Dockerfile", file("context/D\u043eckerfile", COPIES_ALL), dockerfile=None
    ),
}

LINKS: Final = {
    "symlinks that leave": built(
        {"a": "-> /etc/passwd", "b": "-> ../../../../etc/passwd", "c": "-> /"},
        symlink("context/a", "/etc/passwd"),
        symlink("context/b", "../../../../etc/passwd"),
        symlink("context/c", "/"),
    ),
    "a COPY through one that leaves": refused(
        '"/l/passwd": not found',
        symlink("context/l", "/etc"),
        dockerfile=b"FROM scratch\nCOPY l/passwd /f/\n",
        status=500,
    ),
    "a symlink as a parent": refused(
        NO_FOLDER, symlink("context/l", "/tmp"), file(f"context/l/{MARK}")
    ),
    "a symlink as a parent, beside the context": refused(
        NO_FOLDER, symlink("l", "/tmp"), file(f"l/{MARK}")
    ),
    "a symlink as a parent, then a folder": refused(
        NO_FOLDER, symlink("context/l", "/tmp"), file(f"context/l/{MARK}"), folder("context/l")
    ),
    "a symlink that takes an empty folder's place": refused(
        NO_FOLDER,
        folder("context/l"),
        symlink("context/l", "/tmp"),
        file(f"context/l/{MARK}"),
    ),
    "a symlink as context": refused(
        "context must be a folder", symlink("context", "/etc"), dockerfile=None
    ),
    "a symlink as Dockerfile, out": refused(
        "no Dockerfile", symlink("context/Dockerfile", "/etc/passwd"), dockerfile=None
    ),
    "a symlink as Dockerfile, to the config": refused(
        "no Dockerfile", symlink("context/Dockerfile", f"../{CONFIG}"), dockerfile=None
    ),
    "a symlink as Dockerfile, to itself": refused(
        "no Dockerfile", symlink("context/Dockerfile", "Dockerfile"), dockerfile=None
    ),
    "a symlink as Dockerfile, a chain of 256": refused(
        "no Dockerfile",
        symlink("context/Dockerfile", "0"),
        *(symlink(f"context/{n}", f"{n + 1}") for n in range(256)),
        file("context/256", COPIES_ALL),
        dockerfile=None,
    ),
    "a symlink as Dockerfile, inside": built(
        {"a": DIRECTORY, "a/b": COPIES_ALL},
        symlink("context/Dockerfile", "../../a/../a/b"),
        file("context/a/b", COPIES_ALL),
        dockerfile=None,
    ),
    "a symlink as config": refused(
        "must be a regular file", symlink(CONFIG, "/etc/passwd"), config=None
    ),
    "a symlink as secrets": refused("must be a regular file", symlink(SECRETS, "/etc/passwd")),
    "a symlink as .dockerignore": built(
        {".dockerignore": "-> /etc/passwd", "a": b"1"},
        symlink("context/.dockerignore", "/etc/passwd"),
        file("context/a", b"1"),
    ),
    "symlinks in a circle": built(
        {"a": "-> b", "b": "-> a"}, symlink("context/a", "b"), symlink("context/b", "a")
    ),
    "a symlink to nothing": refused("has no target", symlink("context/a", "")),
    "a symlink to 4,096 bytes": refused(LINUX, symlink("context/a", "t" * 4096)),
    "a symlink to what is not UTF-8": refused(UTF8, symlink("context/a", b"\xff")),
    "a symlink with a NUL": refused(
        "a linkpath with a NUL", pax((b"linkpath", b"a\0b")), symlink("context/a", "b")
    ),
    "a hard link out": refused(LEAVES, hardlink("context/a", "/etc/passwd")),
    "a hard link that climbs out": refused(LEAVES, hardlink("context/a", "../../etc/passwd")),
    "a hard link to nothing": refused("not in the archive", hardlink("context/a", "context/b")),
    "a hard link to a folder": refused(
        "a folder or a device", folder("context/b"), hardlink("context/a", "context/b")
    ),
    "a hard link to the archive itself": refused("not in the archive", hardlink("context/a", ".")),
    "a hard link to a device": refused(
        "a folder or a device", file("null", flag=b"3"), hardlink("context/a", "null")
    ),
    "a hard link to itself": refused("points to itself", hardlink("context/a", "context/a")),
    "hard links in a circle": refused(
        "points to itself", hardlink("context/a", "context/b"), hardlink("context/b", "context/a")
    ),
    "a hard link as a parent": refused(
        NO_FOLDER, hardlink("context/a", "context/Dockerfile"), file("context/a/b")
    ),
    "a hard link forward": built(
        {"a": b"1", "b": b"1"}, hardlink("context/a", "context/b"), file("context/b", b"1")
    ),
    "a hard link to a symlink": built(
        {"a": "-> /etc/passwd", "b": "-> /etc/passwd"},
        symlink("context/a", "/etc/passwd"),
        hardlink("context/b", "context/a"),
    ),
    "a hard link whose target is replaced": built(
        {"a": b"new", "b": b"old"},
        file("context/a", b"old"),
        hardlink("context/b", "context/a"),
        file("context/a", b"new"),
    ),
    "hard links forward, 20,000 in a chain": built(
        None,
        many(lambda n: hardlink(f"context/{n}", f"context/{n + 1}"), 20_000),
        file("context/20000", b"1"),
        dockerfile=COPIES_ITSELF,
    ),
}

TYPES: Final = {
    "a character device": refused(DEVICE, file("context/a", flag=b"3")),
    "a block device": refused(DEVICE, file("context/a", flag=b"4")),
    "a fifo": refused(DEVICE, file("context/a", flag=b"6")),
    "a fifo as Dockerfile": refused(DEVICE, file("context/Dockerfile", flag=b"6"), dockerfile=None),
    "devices that .dockerignore leaves out": built(
        None,
        file("context/.dockerignore", b"data"),
        file("context/data/null", flag=b"3"),
        file("context/data/pipe", flag=b"6"),
        file("context/data/" + "n" * 300),
    ),
    "a fifo as .dockerignore": refused(DEVICE, file("context/.dockerignore", flag=b"6")),
    "a fifo as config": refused("must be a regular file", file(CONFIG, flag=b"6"), config=None),
    "a folder as Dockerfile": refused(
        "no Dockerfile", folder("context/Dockerfile"), dockerfile=None
    ),
    "a file as context": refused("context must be a folder", file("context"), dockerfile=None),
    "devices beside the context": built({}, file("null", flag=b"3"), file("pipe", flag=b"6")),
    "a socket, as some tars have it": refused(
        "few tar programs support", file("context/a", flag=b"s")
    ),
    "an unknown type": refused("few tar programs support", file("context/a", flag=b"\xff")),
    "of several volumes": refused("few tar programs support", file("context/a", flag=b"M")),
    "a volume's label, beside the context": refused(
        "few tar programs support", file("v", flag=b"V")
    ),
    "a sparse file without its map": refused(MAP, file("context/a", b"1", flag=b"S")),
    "a GNU sparse file": built(
        {"a": bytes(999_999) + b"1"}, _sparse(1_000_000, (999_999, 1)), file("context/a", b"1")
    ),
    "a pax sparse file without its size": refused(
        MAP, pax((b"GNU.sparse.major", b"1")), file("context/a", b"1")
    ),
    "a sparse file of an exabyte": refused(
        "their holes count too", _sparse(10**18, (0, 1)), file("context/a", b"1"), status=413
    ),
    "a thousand sparse files of 10 MB": refused(
        "their holes count too",
        many(lambda n: _sparse(10_000_000, (0, 1)) + file(f"context/{n}", b"1"), 1000),
        status=413,
    ),
    "a sparse file of 200,000 pieces": refused(
        "pieces", _sparse(10**6) + file("context/a", b"200000\n" + b"1\n0\n" * 200_000), status=413
    ),
    "a map whose pieces overlap": refused(
        MAP, _sparse(10, (0, 2), (1, 2)), file("context/a", b"1234")
    ),
    "a file that is contiguous": built({"a": b"1"}, file("context/a", b"1", flag=b"7")),
    "a file whose name ends in a slash": refused(
        "ends with '/', but is a file", file("context/a/", b"data")
    ),
    "with every bit of a mode": built({"a": b"1"}, file("context/a", b"1", mode=b"7777777\0")),
}

_CLAIMS: Final = b"\x80\0\0\0" + (10 << 30).to_bytes(8, "big")

HEADERS: Final = {
    "claims 10 GB": refused(CUT, file("context/a", b"1", size=_CLAIMS)),
    "claims 8 GB in octal": refused(CUT, file("context/a", b"1", size=octal(8 << 30)[:12])),
    "claims 10 GB in a pax header": refused(
        CUT, pax((b"size", b"%d" % (10 << 30))), file("context/a", b"1")
    ),
    "claims 10 GB for a config": refused(CUT, file(CONFIG, b"{}", size=_CLAIMS), config=None),
    "claims 10 GB for a pax header": refused(
        "larger than 1 MiB", header(flag=b"x", size=_CLAIMS), file("context/a")
    ),
    "claims 10 GB for a long name": refused(
        "larger than 1 MiB", header(flag=b"L", size=_CLAIMS), file("context/a")
    ),
    "claims 2^80 bytes": refused(
        CUT, file("context/a", b"1", size=b"\x80" + (1 << 80).to_bytes(11, "big"))
    ),
    "claims less than nothing": refused(
        "an invalid size", file("context/a", b"1", size=b"\xff" * 12)
    ),
    "claims less than nothing for a pax header": refused(
        "larger than 1 MiB", header(flag=b"x", size=b"\xff" * 12), file("context/a")
    ),
    "claims 10 GB for a folder": built(
        {"a": DIRECTORY, "b": b"1"},
        file("context/a", flag=b"5", size=_CLAIMS),
        file("context/b", b"1"),
    ),
    "claims 10 GB for a link": refused(
        "has a size, but is not a file", file("context/a", flag=b"2", target=b"b", size=_CLAIMS)
    ),
    "a base-256 size": built(
        {"a": b"1"}, file("context/a", b"1", size=b"\x80" + bytes(10) + b"\1")
    ),
    "a size in letters": refused("no valid size", file("context/a", size=b"10 apples\0\0\0")),
    "a size with a sign": refused("no valid size", file("context/a", size=b"-0000000001\0")),
    "a size in pax that is none": refused(
        "an invalid size", pax((b"size", b"1e3")), file("context/a")
    ),
    "a size in pax that is too small": refused(
        "bad header checksum", pax((b"size", b"1")), file("context/a", b"x" * 513)
    ),
    "a size in pax that hides an entry": built(
        {"a": b"", "b": b"2"},
        pax((b"size", b"0")),
        header(b"context/a", octal(1024)),
        file("context/b", b"2"),
    ),
    "a mode that is none": refused("no valid mode", file("context/a", mode=b"rwxr-xr\0")),
    "a checksum that is wrong": refused(
        "bad header checksum at byte",
        bytes(header(b"context/a")[:148] + b"0000000\0") + header()[156:],
    ),
    "a checksum that is none": refused(
        "bad header checksum at byte",
        bytes(header(b"context/a")[:148] + b"\xff" * 8) + header()[156:],
    ),
    "a checksum of signed bytes": built({"é": b""}, header("context/é".encode(), signed=True)),
    "a time before 1970": built({"a": b"1"}, pax((b"mtime", b"-1.5")), file("context/a", b"1")),
    "a time before all": built(
        {"a": b"1"}, pax((b"mtime", b"-" + b"9" * 20)), file("context/a", b"1")
    ),
    "a time after all": built({"a": b"1"}, pax((b"mtime", b"9" * 20)), file("context/a", b"1")),
    "a base-256 time after all": built(
        {"a": b"1"}, file("context/a", b"1", mtime=b"\x80" + b"\x7f" * 11)
    ),
    "a time that is none": refused(
        "an invalid modification time", pax((b"mtime", b"nan")), file("context/a")
    ),
    "a time of a thousand digits": refused(
        "an invalid modification time", pax((b"mtime", b"1" * 1000)), file("context/a")
    ),
}

EXTENSIONS: Final = {
    "two long names": refused("two 'L' headers", long_name(b"a"), long_name(b"b"), file("c")),
    "a long name and a pax path": refused(
        "has two names for one entry", long_name(b"a"), pax((b"path", b"b")), file("c")
    ),
    "two pax headers": refused(
        "two 'x' headers", pax((b"path", b"a")), pax((b"path", b"b")), file("c")
    ),
    "a chain of 10,000 long names": refused("two 'L' headers", lambda: long_name(b"a") * 10_000),
    "a long name of a long name": refused(
        "two 'L' headers", extended(long_name(b"context/a"), b"L"), long_name(b"b"), file("c")
    ),
    "a long name for nothing": refused("before the entry it is for", long_name(b"a")),
    "a long name that goes on behind its end": refused(
        "has bytes after its end",
        header(flag=b"L", size=octal(9)) + padded(b"context/ab"),
        file("context/b"),
    ),
    "an empty long name": refused("an empty path", long_name(b""), file("context/a")),
    "an empty pax path": refused("an empty path", pax((b"path", b"")), file("context/a")),
    "an empty pax size": refused("an empty size", pax((b"size", b"")), file("context/a", b"1")),
    "a long name and a long target": built(
        {"a" * 150: "-> " + "b" * 150},
        long_name(b"context/" + b"a" * 150),
        long_name(b"b" * 150, b"K"),
        symlink("context/cut", "cut"),
    ),
    "a pax header that is cut": refused(
        CUT, header(flag=b"x", size=octal(1000)) + b"30 path=", end=b""
    ),
    "a record behind the end of its header": refused(
        "has bytes after its end",
        header(flag=b"x", size=octal(len(record(b"mtime", b"1"))))
        + padded(record(b"mtime", b"1") + record(b"path", b"context/b")),
        file("context/a"),
    ),
    "a record that lies of its length": refused(
        "malformed record", extended(b"99 path=context/b\n"), file("context/a")
    ),
    "a record without a length": refused(
        "malformed record", extended(b"path=context/b\n"), file("context/a")
    ),
    "a record of no length": refused("malformed record", extended(b"0 path=b\n"), file("a")),
    "a megabyte of records": refused(
        "records or more", lambda: extended(record(b"a", b"") * 190_000), file("context/a")
    ),
    "one path for all": refused(
        "every entry the same path",
        extended(record(b"path", b"context/b"), b"g"),
        file("context/a"),
    ),
    "attributes of files": built(
        {"a": b"1"},
        pax((b"SCHILY.xattr.security.capability", b"\1\0\0\2" + bytes(16)), (b"uid", b"-1")),
        file("context/a", b"1"),
    ),
}

_GOOD: Final = file("context/a", b"1")

ENDS: Final = {
    "no body": refused("not a tar", body=lambda _: [b""]),
    "one byte": refused("not a tar", body=lambda _: [b"x"]),
    "random bytes": refused("not a tar", body=lambda _: [bytes(range(256)) * 40]),
    "a zip": refused("not a tar", body=lambda _: [b"PK\x03\x04" + bytes(600)]),
    "nothing but its end": refused(f"has no {CONFIG}", body=lambda _: [END]),
    "no end": built({"a": b"1"}, _GOOD, end=b""),
    "no end, and no padding": built({"a": b"1"}, _GOOD[:-1], end=b""),
    "half an end": refused(CUT, _GOOD, end=bytes(BLOCK - 1)),
    "one block of it": built({"a": b"1"}, _GOOD, end=bytes(BLOCK)),
    "a megabyte of it": built({"a": b"1"}, _GOOD, end=bytes(1 << 20)),
    "entries after it": refused(
        "data after its end-of-archive marker", _GOOD, END, file(f"../{MARK}")
    ),
    "a byte after it": refused("data after its end-of-archive marker", end=END + b"x"),
    "another archive after it": refused(
        "data after its end-of-archive marker", END, file(CONFIG, b"{}"), _GOOD
    ),
    "cut in a header": refused("", _GOOD[:300], end=b""),
    "cut in a file": refused(CUT, file("context/a", b"12")[: BLOCK + 1], end=b""),
}


def _repeated(block: bytes, times: int) -> Body:
    """So many blocks, without the memory for all."""

    def body(_: str) -> Iterable[bytes]:
        piece = block * 2048
        yield from repeat(piece, times // 2048)

    return body


def _numbered(directory: bytes, times: int) -> Body:
    """So many empty files of their own names, and a good request."""
    block = header(directory + b"/0000000")
    start, end = len(directory) + 1, len(directory) + 8
    checksum = int(block[148:154], 8) - sum(b"0000000")

    def one(number: int) -> bytes:
        digits = b"%07d" % number
        summed = b"%06o\0 " % (checksum + sum(digits))
        return block[:start] + digits + block[end:148] + summed + block[156:]

    def body(image: str) -> Iterable[bytes]:
        for first in range(0, times, 5000):
            yield b"".join(map(one, range(first, first + 5000)))
        yield from archive(dockerfile=COPIES_ITSELF)(image)

    return body


AMOUNTS: Final = {
    "two million entries": refused(
        "more than 200000 entries",
        body=_repeated(header(b"context/a"), 2_000_000),
        status=413,
        seconds=200,
        megabytes=128,
    ),
    "250,000 headers for all": refused(
        "more than 200000 entries",
        body=_repeated(extended(record(b"comment", b"x"), b"g"), 250_000),
        status=413,
        seconds=90,
    ),
    "256 MB of zeros": refused(
        f"has no {CONFIG}", body=_repeated(bytes(BLOCK), 500_000), seconds=90
    ),
    "more bytes than allowed": refused(
        "larger than the 1073741824 bytes",
        body=_repeated(header(b"context/a"), 2_100_000),
        status=413,
        seconds=200,
    ),
    "195,000 empty files": built(
        None, body=_numbered(b"context", 195_000), seconds=200, megabytes=512
    ),
    "195,000 empty files beside the context": built(
        None, body=_numbered(b"beside", 195_000), seconds=200, megabytes=512
    ),
    "a thousand files, each in 250 folders of its own": refused(
        "more than 200000 entries",
        many(lambda n: file(f"context/{n}/" + "d/" * 250 + "f"), 1000),
        status=413,
        megabytes=256,
    ),
    "names of 64 MB in all": refused(
        "too long in total",
        many(lambda n: file(f"context/{n}/" + ("d" * 250 + "/") * 14 + "f"), 5000),
        status=413,
        megabytes=256,
    ),
    "20,000 hard links to 4 MB": built(
        None,
        file("context/a", bytes(4 << 20)),
        many(lambda n: hardlink(f"context/{n}", "context/a"), 20_000),
        dockerfile=COPIES_ITSELF,
        megabytes=96,
    ),
}

_BOMB: Final = bytes(10 << 20)

COMPRESSIONS: Final = {
    "a gzip bomb": refused(
        "compressed (gzip)", body=lambda _: [gzip.compress(_BOMB, mtime=0)], status=415
    ),
    "a bzip2 bomb": refused("compressed (bzip2)", body=lambda _: [bz2.compress(_BOMB)], status=415),
    "an xz bomb": refused("compressed (xz)", body=lambda _: [lzma.compress(_BOMB)], status=415),
    "a zstd bomb": refused(
        "compressed (zstd)",
        # A frame of 128 KiB blocks, each of one byte repeated (RFC 8878, RLE_Block).
        body=lambda _: [b"\x28\xb5\x2f\xfd\x00\x88" + b"\x02\x00\x10\x00" * 80],
        status=415,
    ),
    "a gzip bomb as a file": built(
        {"bomb.gz": gzip.compress(_BOMB, mtime=0)},
        file("context/bomb.gz", gzip.compress(_BOMB, mtime=0)),
    ),
}
