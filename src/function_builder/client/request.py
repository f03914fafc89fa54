"""The body of a request: a directory packed as the contract's tar, with its signature.

The signature covers the whole body and travels in a header, so the body must exist before its first
byte is sent. It is written once, and hashed on the way. A large one is written to an unlinked file:
memory stays flat however large the directory is, and nothing is left behind. A repeated attempt
reads it again.

It contains what `function_builder.client.context` finds in the directory: everything that its
ignore file does not exclude.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import IO, NamedTuple, Self

from function_builder.client.context import (
    FoundEntry,
    OnLeftOut,
    cannot_read,
    dockerfile_names,
    find_entries,
)
from function_builder.client.errors import ContextError
from function_builder.client.options import File, Files
from function_builder.client.tar import pack_header
from function_builder.contract.config import BuildConfig
from function_builder.contract.names import CONFIG_NAME, CONTEXT, SECRETS_NAME
from function_builder.contract.signature import Signature
from function_builder.contract.tarfields import BLOCK

_CHUNK = 1024 * 1024
_IN_MEMORY_BYTES = 2 << 20
"""A smaller body is kept in memory, such as a manifest of 20,000 files."""

_NO_TIME = 315_619_200
"""The time of files that have none: 2 January 1980, because ZIP archives start with 1980."""

_KIND_BITS = 0o170000


class SignedBody(NamedTuple):
    """A request's body, in memory or in an unlinked file, which `close` deletes.

    Attributes:
        file: the tar; read from offset 0.
        size: its length in bytes.
        signature: the value of `X-Build-Signature`; None without a payload secret.
    """

    file: IO[bytes]
    size: int
    signature: str | None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()


def pack(
    context: Path | Files,
    config: BuildConfig,
    payload_secret: bytes | None,
    *,
    folders: Mapping[str, Path] = MappingProxyType({}),
    secrets: bytes | None = None,
    abandoned: Event | None = None,
    on_left_out: OnLeftOut | None = None,
) -> SignedBody:
    """Pack a context, `config`, the folders that it names and secrets into a signed body.

    It blocks; run it in a thread. The same context gives the same bytes: entries are sorted, owners
    are 0:0, times are whole seconds. Setting `abandoned` ends it early, since a thread cannot be
    cancelled.

    Raises:
        ContextError: the directory is missing, has no Dockerfile, or holds what cannot be sent.
    """
    with begun(config, payload_secret, secrets, abandoned or Event()) as spool:
        if isinstance(context, Path):
            _write_directory(spool, context, CONTEXT, config.dockerfile, on_left_out)
        else:
            _write_files(spool, context, config.dockerfile)
        for name, folder in folders.items():
            _write_directory(spool, folder, name, None)
        return spool.finish()


@contextmanager
def begun(
    config: BuildConfig, payload_secret: bytes | None, secrets: bytes | None, abandoned: Event
) -> Iterator[Spool]:
    """A body with its config and its secrets; its file is closed if the block fails."""
    spool = Spool(payload_secret, abandoned)
    try:
        write_document(spool, CONFIG_NAME, config.to_json())
        if secrets is not None:
            write_document(spool, SECRETS_NAME, secrets)
        yield spool
    except BaseException:
        with suppress(OSError):  # closing writes again what a full disk refused before
            spool.file.close()
        raise


class Spool:
    """The unlinked file being written, and the signature of what is in it.

    Args:
        payload_secret: signs it.
        abandoned: ends the writing.
    """

    def __init__(self, payload_secret: bytes | None, abandoned: Event) -> None:
        self.file: IO[bytes] = BytesIO()
        self._size = 0
        self._abandoned = abandoned
        self._signature = Signature([payload_secret]) if payload_secret is not None else None

    def write(self, data: bytes) -> None:
        """Write bytes.

        Raises:
            ContextError: the disk is full, or the request was abandoned.
        """
        if self._abandoned.is_set():
            raise ContextError("packing was abandoned")
        with self._errors():
            if self._size <= _IN_MEMORY_BYTES < self._size + len(data):
                self._move_to_disk()
            self.file.write(data)
        self._size += len(data)
        if self._signature is not None:
            self._signature.update(data)

    def finish(self) -> SignedBody:
        """End the tar."""
        self.write(bytes(2 * BLOCK))
        with self._errors():
            self.file.flush()
        value = self._signature.value() if self._signature is not None else None
        return SignedBody(self.file, self._size, value)

    def _move_to_disk(self) -> None:
        import tempfile

        memory, self.file = self.file, tempfile.TemporaryFile()  # noqa: SIM115 (outlives this call)
        memory.seek(0)
        self.file.write(memory.read())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            import tempfile

            raise ContextError(
                f"cannot pack the directory in {tempfile.gettempdir()}: {error.strerror}; "
                "TMPDIR names another place"
            ) from error


class Header(NamedTuple):
    """The header of an entry; a file's size and time are those of the moment when it is read.

    Attributes:
        name: in the tar.
        mode: in the form of `st_mode`; a hard link has no type bits.
        target: of a link.
    """

    name: str
    mode: int
    target: str = ""


def write_document(
    spool: Spool, name: str, content: bytes, *, mode: int = 0o644, mtime: int = 0
) -> None:
    """Write an entry that is in memory."""
    spool.write(_packed(Header(name, stat.S_IFREG | mode), len(content), mtime))
    spool.write(content + bytes(-len(content) % BLOCK))


def _write_files(spool: Spool, files: Files, dockerfile: str) -> None:
    names = dockerfile_names(dockerfile)
    if not any(name in files for name in names):
        raise ContextError(f"the files have no {names[0]}")
    for name in sorted(files):
        given = files[name]
        file = given if isinstance(given, File) else File(given)
        data = file.content.encode() if isinstance(file.content, str) else file.content
        write_document(spool, f"{CONTEXT}/{name}", data, mode=file.mode, mtime=_NO_TIME)


def directory_entries(
    directory: Path, root: str, dockerfile: str | None, on_left_out: OnLeftOut | None = None
) -> Iterator[tuple[Header, FoundEntry]]:
    """The entries to send of a directory, with their headers.

    Args:
        directory: a context.
        root: its folder in the tar.
        dockerfile: as for `find_entries`.
        on_left_out: as for `find_entries`.

    Raises:
        ContextError: as `pack`.
    """
    if not os.path.isdir(directory):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        raise ContextError(f"{directory} is not a directory")
    first_names: dict[tuple[int, int], str] = {}
    for entry in find_entries(directory, dockerfile, on_left_out):
        name, mode = f"{root}/{entry.name}" if entry.name else root, entry.status.st_mode
        kind = mode & _KIND_BITS
        if kind == stat.S_IFDIR or (kind == stat.S_IFREG and entry.status.st_nlink == 1):
            yield Header(name, mode), entry
        elif kind == stat.S_IFREG:
            identity = entry.status.st_dev, entry.status.st_ino
            first_name = first_names.setdefault(identity, name)
            is_first = first_name == name
            yield Header(*(name, mode) if is_first else (name, mode & 0o7777, first_name)), entry
        elif kind == stat.S_IFLNK:
            yield Header(name, mode, _target(entry)), entry
        elif kind != stat.S_IFSOCK:  # tar and docker leave those out too
            raise ContextError(
                f"{entry.path} is a device or a fifo, which no build can take: remove it, or leave"
                " it out with .dockerignore"
            )


def _target(link: FoundEntry) -> str:
    try:
        return os.readlink(link.path)  # noqa: PTH115 (keeps "./")
    except OSError as error:
        raise cannot_read(link.path, error) from error


def _write_directory(
    spool: Spool,
    directory: Path,
    root: str,
    dockerfile: str | None,
    on_left_out: OnLeftOut | None = None,
) -> None:
    for header, entry in directory_entries(directory, root, dockerfile, on_left_out):
        if stat.S_ISREG(header.mode):
            write_file(spool, header.name, entry)
        else:
            spool.write(_packed(header, 0, _seconds(entry.status)))


def write_file(
    spool: Spool, name: str, entry: FoundEntry, read: os.stat_result | None = None
) -> None:
    """Write a file.

    Args:
        spool: where to.
        name: in the tar.
        entry: the file.
        read: its status when it was read before, if it must be the same now.

    Raises:
        ContextError: it changed, or cannot be read.
    """
    with open_file(entry) as (file, before):
        if read is not None and version(read) != version(before):
            raise changed(entry)
        size = left = before.st_size
        spool.write(_packed(Header(name, before.st_mode), size, _seconds(before)))
        while left and (data := file.read(min(left, _CHUNK))):
            spool.write(data)
            left -= len(data)
        if left or version(os.fstat(file.fileno())) != version(before):
            raise changed(entry)
    spool.write(bytes(-size % BLOCK))


def version(status: os.stat_result) -> tuple[int, int]:
    """The values of a status that change with the file's content."""
    return status.st_size, status.st_mtime_ns


@contextmanager
def open_file(entry: FoundEntry) -> Iterator[tuple[IO[bytes], os.stat_result]]:
    """Open a regular file; returns its status too.

    Raises:
        ContextError: it is another kind of file by now, or cannot be read.
    """
    try:
        with open(entry.path, "rb", buffering=0, opener=_open_as_it_is) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise changed(entry)
            yield file, status
    except OSError as error:
        raise cannot_read(entry.path, error) from error


def _open_as_it_is(path: str, flags: int) -> int:
    """Open a path that may no longer be a file: do not follow a link, do not wait for a fifo."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def changed(entry: FoundEntry) -> ContextError:
    """The error for a file that changed while it was read."""
    return ContextError(
        f"{entry.path} changed while it was read: build again, or leave it out with .dockerignore"
    )


def _seconds(status: os.stat_result) -> int:
    return status.st_mtime_ns // 1_000_000_000


def _packed(header: Header, size: int, mtime: int) -> bytes:
    """The blocks of a header.

    Raises:
        ContextError: a name is not UTF-8.
    """
    for name in (header.name, header.target):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ContextError(f"{os.fsencode(name)!r} is not UTF-8: rename it") from error
    return pack_header(header.name, header.mode, size, mtime, header.target)
