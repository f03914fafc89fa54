"""The body of a request: a directory packed as the contract's tar, with its signature.

The signature covers the whole body and travels in a header, so the body must exist before its first
byte is sent. It is written once to an unlinked file, hashed on the way: memory stays flat however
large the directory is, a repeated attempt reads it again, and nothing is left behind.

Everything in the directory is sent; ``.dockerignore`` is BuildKit's to apply, so that a build here
and a ``docker build`` of the same directory see the same files.
"""

import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Self

from function_builder.client.errors import ContextError
from function_builder.contract.config import CONFIG_NAME, BuildConfig
from function_builder.contract.secrets import SECRETS_NAME
from function_builder.contract.signature import Signature

_BLOCK = 512
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SignedBody:
    """A request's body, in an unlinked file that goes when this is closed.

    Attributes:
        file: the tar; read from offset 0.
        size: its length in bytes.
        signature: the value of ``X-Build-Signature``; None for a builder that checks none.
    """

    file: IO[bytes]
    size: int
    signature: str | None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()


def pack(
    directory: Path,
    config: BuildConfig,
    payload_secret: bytes | None,
    *,
    secrets: bytes | None = None,
    abandoned: Event | None = None,
) -> SignedBody:
    """Pack ``directory``, ``config`` and sealed secrets into a signed body.

    It blocks; run it in a thread. The same directory gives the same bytes: entries are
    sorted, owners are 0:0, times are whole seconds. Setting ``abandoned`` ends it early, since a
    thread cannot be cancelled.

    Raises:
        ContextError: the directory is none, has no Dockerfile, or holds what cannot be sent.
    """
    if not directory.is_dir():
        raise ContextError(f"{directory} is no directory")
    if not any((directory / name).is_file() for name in ("Dockerfile", "dockerfile")):
        raise ContextError(f"{directory} has no Dockerfile")
    spool = _Spool(payload_secret, abandoned or Event())
    try:
        _write_document(spool, CONFIG_NAME, config.to_json())
        if secrets is not None:
            _write_document(spool, SECRETS_NAME, secrets)
        _write_context(spool, directory)
        return spool.finish()
    except BaseException:
        with suppress(OSError):  # closing writes what a full disk refused before
            spool.file.close()
        raise


class _Spool:
    """The unlinked file being written, and the signature of what is in it."""

    def __init__(self, payload_secret: bytes | None, abandoned: Event) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - outlives this call
        self._size = 0
        self._abandoned = abandoned
        self._signature = Signature([payload_secret]) if payload_secret is not None else None

    def write(self, data: bytes) -> None:
        if self._abandoned.is_set():
            raise ContextError("packing was abandoned")
        with self._errors():
            self.file.write(data)
        self._size += len(data)
        if self._signature is not None:
            self._signature.update(data)

    def finish(self) -> SignedBody:
        self.write(bytes(2 * _BLOCK))
        with self._errors():
            self.file.flush()
        value = self._signature.value() if self._signature is not None else None
        return SignedBody(self.file, self._size, value)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ContextError(
                f"cannot pack the directory in {tempfile.gettempdir()}: {error.strerror}; "
                "TMPDIR names another place"
            ) from error


def _write_document(spool: _Spool, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    spool.write(_header(info))
    spool.write(content + bytes(-len(content) % _BLOCK))


def _write_context(spool: _Spool, directory: Path) -> None:
    first_names: dict[tuple[int, int], str] = {}
    try:
        for name, path, status in _walk(directory):
            _write_entry(spool, name, path, status, first_names)
    except OSError as error:
        raise ContextError(
            f"cannot read {error.filename or directory}: {error.strerror}"
        ) from error


def _walk(directory: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Names in the archive with their paths, parents first, each directory's names sorted."""
    waiting = [("context", directory)]
    while waiting:
        name, path = waiting.pop()
        status = path.stat() if path is directory else path.lstat()
        yield name, path, status
        if stat.S_ISDIR(status.st_mode):
            children = sorted((child.name for child in path.iterdir()), reverse=True)
            waiting += [(f"{name}/{child}", path / child) for child in children]


def _write_entry(
    spool: _Spool,
    name: str,
    path: Path,
    status: os.stat_result,
    first_names: dict[tuple[int, int], str],
) -> None:
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(status.st_mode)
    info.mtime = status.st_mtime_ns // 1_000_000_000
    first_name = first_names.get((status.st_dev, status.st_ino))
    if stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115 - keeps "./"
    elif not stat.S_ISREG(status.st_mode):
        _check_left_out(path, status)
        return
    elif first_name is not None:
        info.type, info.linkname = tarfile.LNKTYPE, first_name
    else:
        if status.st_nlink > 1:
            first_names[status.st_dev, status.st_ino] = name
        _write_file(spool, info, path)
        return
    spool.write(_header(info))


def _check_left_out(path: Path, status: os.stat_result) -> None:
    """A socket is left out, as tar and docker do; what else is no file has no place in an image."""
    if not stat.S_ISSOCK(status.st_mode):
        raise ContextError(f"{path} is a device or a fifo, which no build can take: remove it")


def _write_file(spool: _Spool, info: tarfile.TarInfo, path: Path) -> None:
    with path.open("rb") as file:
        info.size = left = os.fstat(file.fileno()).st_size
        spool.write(_header(info))
        while left:
            data = file.read(min(left, _CHUNK))
            if not data:
                raise ContextError(f"{path} changed while it was read: build again")
            spool.write(data)
            left -= len(data)
    spool.write(bytes(-info.size % _BLOCK))


def _header(info: tarfile.TarInfo) -> bytes:
    for name in (info.name, info.linkname):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ContextError(f"{os.fsencode(name)!r} is not UTF-8: rename it") from error
    return info.tobuf(tarfile.PAX_FORMAT)
