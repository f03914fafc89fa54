"""The table of hostile manifests; a manifest stands in the place of a context."""

import stat
from collections.abc import Sequence
from struct import pack
from typing import Any, Final

from function_builder.contract.manifest import Row, content_name, pack_manifest
from tests.adversarial.hostile.cases import COPIES_ALL, Case, Entry, built, file, folder, refused
from tests.support.manifests import digest_of, file_row, raw_manifest

MANIFEST: Final = "com.function-builder.manifest"
DOCKERFILE: Final = file_row("Dockerfile", COPIES_ALL)
NOT_HELD: Final = "send those of `missing`"


def content(data: bytes, claimed: bytes | None = None) -> bytes:
    """A content that was sent, under its digest or under another's."""
    return file(content_name(digest_of(data if claimed is None else claimed)), data)


def table(*rows: Row) -> bytes:
    return file(MANIFEST, pack_manifest(rows))


def million() -> bytes:
    row = pack(">IQq", stat.S_IFREG, 5, 0)
    names = b"".join(b"context/%d\0" % number for number in range(1_000_000))
    return _raw(1_000_000, row * 1_000_000 + names)


def unfolding() -> bytes:
    """Of 5 KB, which unfold to 5 MB."""
    return _raw(1, bytes(5 << 20), size=20)


def claims(files: int = 50_000) -> bytes:
    """So many files, of which none was sent."""
    rows = [file_row(f"f{number}", b"%d" % number) for number in range(files)]
    return table(DOCKERFILE, *rows)


def _refused(words: str, *entries: Entry, **how: Any) -> Case:
    return refused(words, *entries, content(COPIES_ALL), dockerfile=None, **how)


def _built(image: dict[str, str | bytes], *entries: Entry) -> Case:
    return built(image, *entries, content(COPIES_ALL), dockerfile=None)


def _raw(count: int, table: bytes, *, size: int | None = None) -> bytes:
    digests = bytes(32) * min(count, 1_000_000)
    return file(MANIFEST, raw_manifest(count, digests, table, size=size))


_SHARED: Final[Sequence[Row]] = [file_row(name, b"shared") for name in "abc"]

MANIFESTS: Final = {
    "what it is for": _built(
        {"a": b"shared", "b": b"shared", "c": b"shared"},
        table(DOCKERFILE, *_SHARED),
        content(b"shared"),
    ),
    "nothing of it was sent before": _refused(NOT_HELD, table(DOCKERFILE, *_SHARED), status=409),
    "no Dockerfile is sent": refused(NOT_HELD, table(DOCKERFILE), dockerfile=None, status=409),
    "a content of its size under another's digest": _refused(
        "does not have the digest", table(DOCKERFILE, *_SHARED), content(b"sharks", b"shared")
    ),
    "a content that was not sent, under another's digest and size": _refused(
        NOT_HELD, table(DOCKERFILE, _SHARED[0], _SHARED[1]._replace(size=7)), status=409
    ),
    "one content for files of two sizes": _refused(
        "its content has 6",
        table(DOCKERFILE, _SHARED[0], _SHARED[1]._replace(size=7)),
        content(b"shared"),
    ),
    "another size": _refused(
        "its content has 6", table(DOCKERFILE, _SHARED[0]._replace(size=7)), content(b"shared")
    ),
    "a path twice": _refused("is there twice", table(DOCKERFILE, DOCKERFILE)),
    "climbs out": _refused("could leave the archive", table(DOCKERFILE, file_row("../../x", b""))),
    "a hard link out": _refused(
        "could leave the archive", table(DOCKERFILE, Row("context/l", 0, 0, 0, "../../etc/passwd"))
    ),
    "below a link": _refused(
        "not a folder",
        table(DOCKERFILE, Row("context/l", stat.S_IFLNK, 0, 0, "/etc"), file_row("l/passwd", b"")),
    ),
    "cut short": _refused("is cut short", _raw(5, bytes(20 * 4))),
    "cut in its table": _refused(
        "the size that it names", file(MANIFEST, pack_manifest([DOCKERFILE])[:-1])
    ),
    "a table without rows": _refused("not the table", _raw(0, bytes(32))),
    "a table that unfolds to more than it names": _refused("follows its table", unfolding),
    "a table of a thousand times its size": _refused(
        "too long in total", lambda: _raw(2, bytes(64 << 20)), status=413, megabytes=96
    ),
    "four billion rows": _refused("more than 200000 entries", _raw(2**32 - 1, b"x"), status=413),
    "a million digests": _refused("more than 200000 entries", million, status=413),
    "50,000 files that were never sent": _refused(NOT_HELD, claims, status=409, megabytes=96),
    "200 TB by reference": _refused(
        "are larger than",
        table(DOCKERFILE, *(file_row(f"{n}", b"x")._replace(size=1 << 40) for n in range(200))),
        status=413,
    ),
    "deep folders that it does not list": _refused(
        "too long in total",
        table(DOCKERFILE, *(file_row(f"{n}/{'d/' * 2000}f", b"") for n in range(100))),
        status=413,
        megabytes=96,
    ),
    "links to one another": _refused(
        "points to itself",
        table(
            DOCKERFILE,
            Row("context/a", 0, 0, 0, "context/b"),
            Row("context/b", 0, 0, 0, "context/a"),
        ),
    ),
    "a context beside it": _refused("send one of them", table(DOCKERFILE), folder("context")),
    "two manifests": _built({}, table(*_SHARED), table(DOCKERFILE)),
}
