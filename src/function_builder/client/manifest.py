"""A request with a manifest: a table of the context's files, and the contents to send.

The first attempt sends the contents that are new to this client, if they are small. The builder's
answer names what else it lacks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import IO, Final, NamedTuple

from function_builder.client.context import FoundEntry, OnLeftOut, dockerfile_names
from function_builder.client.errors import ContextError
from function_builder.client.request import (
    Header,
    SignedBody,
    begun,
    changed,
    directory_entries,
    open_file,
    version,
    write_document,
    write_file,
)
from function_builder.client.stat_cache import StatCache
from function_builder.contract.config import BuildConfig
from function_builder.contract.manifest import (
    MANIFEST_NAME,
    PART_BYTES,
    SMALL_BYTES,
    Row,
    content_digest,
    content_name,
    pack_manifest,
)
from function_builder.contract.names import CONTEXT

_UNASKED_BYTES: Final = 1 << 20
"""New contents up to this size are sent at once. The builder may have more, from another client."""

_THREADS: Final = 8
_IGNORE: Final = ".dockerignore"
_SECOND: Final = 1_000_000_000
_NO_DIGEST: Final = bytes(32)
_KIND_BITS: Final = 0o170000
_MANY_BYTES: Final = 4 << 20
"""Less is read without threads, whose start takes longer."""


class Listing(NamedTuple):
    """The entries of a request.

    Attributes:
        rows: of the manifest.
        files: the entry of each row, and its status when it was read.
        new: the rows whose content is new to this client.
    """

    rows: list[Row]
    files: list[tuple[FoundEntry, os.stat_result]]
    new: set[int]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(row.size for row in self.rows)

    def first(self, dockerfile: str) -> set[int]:
        """The rows whose content is sent before the builder has named what it lacks.

        Args:
            dockerfile: as in the config. Every builder reads it, and the ignore files.
        """
        names = dockerfile_names(dockerfile)
        always = {f"{CONTEXT}/{each}" for each in (*names, f"{names[0]}{_IGNORE}", _IGNORE)}
        needed = {number for number, (path, *_) in enumerate(self.rows) if path in always}
        new = sum(self.rows[number].size for number in self.new)
        return needed | self.new if new <= _UNASKED_BYTES else needed

    def named(self, ranges: Iterable[Sequence[int]]) -> set[int]:
        """The rows of a builder's `missing` that exist."""
        named: set[int] = set()
        end = 0
        # Each row is added once, because a hostile answer may name all rows many times.
        for first, count in sorted(map(tuple, ranges)):
            start, end = max(first, end), max(end, min(first + count, len(self.rows)))
            named.update(range(start, end))
        return named


Found = Sequence[tuple[Path, Sequence[tuple[Header, FoundEntry]]]]
"""The entries of each directory of a request."""


def find_directories(
    context: Path,
    folders: Mapping[str, Path],
    config: BuildConfig,
    on_left_out: OnLeftOut | None = None,
) -> Found | None:
    """Find the entries of a context and its folders; None if their files are small.

    It blocks, but reads no file.

    Args:
        context: the build context.
        folders: the folder of the tar -> a directory.
        config: names the Dockerfile.
        on_left_out: as for `find_entries`, about the context.

    Raises:
        ContextError: as `pack`.
    """
    roots = [
        (context, CONTEXT, config.dockerfile, on_left_out),
        *((d, name, None, None) for name, d in folders.items()),
    ]
    found = [(root[0], list(directory_entries(*root))) for root in roots]
    sizes = [
        entry.status.st_size
        for _, entries in found
        for header, entry in entries
        if header.mode & _KIND_BITS == stat.S_IFREG
    ]
    return found if sum(sizes) >= SMALL_BYTES else None


def list_found(found: Found, *, abandoned: Event, caches: Path | None) -> Listing:
    """List the found entries, with the digests of the files.

    It blocks, because it reads the files that have changed since the last build.

    Args:
        found: the entries.
        abandoned: ends the reading.
        caches: the directory of the digests of earlier builds; None: none are stored.

    Raises:
        ContextError: as `pack`.
    """
    listing = Listing([], [], set())
    for directory, entries in found:
        cache = StatCache(directory, caches)
        _list(listing, entries, cache, abandoned)
        cache.write()
    return listing


def _list(
    listing: Listing,
    entries: Sequence[tuple[Header, FoundEntry]],
    cache: StatCache,
    abandoned: Event,
) -> None:
    regular = [entry for (_, mode, _), entry in entries if mode & _KIND_BITS == stat.S_IFREG]
    known = cache.known(regular)
    unread = [entry for entry in regular if entry.name not in known]
    read = dict(zip((entry.name for entry in unread), _read_all(unread, abandoned), strict=True))
    rows, files = listing.rows, listing.files
    # `Row(…)` itself takes twice the time of the tuple that it makes.
    new = tuple.__new__
    for (path, mode, target), entry in entries:
        name, _, status = entry
        size, digest = 0, _NO_DIGEST
        if mode & _KIND_BITS == stat.S_IFREG:
            if name in read:
                status, digest = read[name]
                cache.put(name, status, digest)
                if cache.last(name) != digest:
                    listing.new.add(len(rows))
            else:
                digest = known[name]
            size = status.st_size
        mtime = status.st_mtime_ns // _SECOND * _SECOND
        rows.append(new(Row, (path, mode, size, mtime, target, digest)))
        files.append((entry, status))


def _read_all(
    entries: Sequence[FoundEntry], abandoned: Event
) -> Iterable[tuple[os.stat_result, bytes]]:
    read = partial(_read, abandoned=abandoned)
    if sum(entry.status.st_size for entry in entries) < _MANY_BYTES:
        return map(read, entries)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        return list(threads.map(read, entries))


def _read(entry: FoundEntry, abandoned: Event) -> tuple[os.stat_result, bytes]:
    """Digest a file; returns its status at that time too."""

    def parts(file: IO[bytes]) -> Iterator[bytes]:
        while data := file.read(PART_BYTES):
            if abandoned.is_set():
                raise ContextError("reading was abandoned")
            yield data

    with open_file(entry) as (file, before):
        digest = content_digest(parts(file))
        if version(before) != version(os.fstat(file.fileno())):
            raise changed(entry)
        return before, digest


def pack_listed(
    listing: Listing,
    send: Collection[int],
    config: BuildConfig,
    payload_secret: bytes | None,
    *,
    secrets: bytes | None = None,
    abandoned: Event,
) -> SignedBody:
    """Pack a manifest, and the contents of some of its rows.

    It blocks.

    Raises:
        ContextError: a file changed since it was listed, or a name is not UTF-8.
    """
    with begun(config, payload_secret, secrets, abandoned) as spool:
        try:
            manifest = pack_manifest(listing.rows)
        except UnicodeEncodeError as error:
            raise ContextError(f"{os.fsencode(error.object)!r} is not UTF-8: rename it") from error
        write_document(spool, MANIFEST_NAME, manifest)
        sent = set()
        for number in sorted(send):
            row, (entry, status) = listing.rows[number], listing.files[number]
            if stat.S_ISREG(row.mode) and row.size and row.digest not in sent:
                sent.add(row.digest)
                write_file(spool, content_name(row.digest), entry, status)
        return spool.finish()
