"""Build contexts, as a directory and as a request: the same names, modes, times, content.

Their Dockerfiles write to `/` alone, which no layer holds: the time of any other directory would be
that of the build, and no image would be like another.
"""

import io
import json
import os
import random
import stat
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path

from function_builder.contract.manifest import (
    MANIFEST_NAME,
    PART_BYTES,
    Row,
    content_digest,
    content_name,
    pack_manifest,
)

_FIRST_MTIME = 1_700_000_000

Files = dict[str, bytes]


def tiny() -> Files:
    """A function of three files with a RUN step that its handler does not touch."""
    return {
        "Dockerfile": b"FROM busybox AS deps\nCOPY deps.txt /\n"
        b"RUN cp deps.txt installed.txt && touch -d @0 installed.txt\n"
        b"FROM busybox\nCOPY --from=deps /installed.txt /\nCOPY . /\n",
        "deps.txt": b"one\ntwo\n",
        "handler.sh": b"#!/bin/sh\necho hello\n",
    }


def many_files(number: int = 10_000) -> Files:
    """Files that compress to about a half; 10,000 are 46 MB as a tar."""
    generator = random.Random(5)
    files = {
        f"node_modules/package{each // 50:03d}/file{each:05d}.js": _text(generator, 3900)
        for each in range(number - 2)
    }
    return {"Dockerfile": _COPY_ALL, "handler.sh": b"#!/bin/sh\necho hello\n"} | files


def one_large_file(size: int = 200_000_000) -> Files:
    """One file of this many bytes that compresses to about a quarter, beside the Dockerfile."""
    generator = random.Random(5)
    block = b"".join(generator.randbytes(4096) + bytes(12288) for _ in range(61))
    return {
        "Dockerfile": _COPY_ALL,
        "handler.sh": b"#!/bin/sh\necho hello\n",
        "model.bin": (block * (size // len(block) + 1))[:size],
    }


_COPY_ALL = b"FROM busybox\nCOPY . /\n"


def _text(generator: random.Random, size: int) -> bytes:
    return generator.randbytes(size // 2).hex().encode()


class Context:
    """A build context in `directory`, and the requests that carry the same.

    Changes get later and later times, so that each is one that BuildKit must notice.
    """

    def __init__(self, directory: Path, files: Files) -> None:
        self.directory = directory
        self._files = dict(files)
        self._digests: dict[str, tuple[bytes, bytes]] = {}
        self._directories = sorted(
            {str(parent) for path in files for parent in Path(path).parents} - {"."}
        )
        self._mtimes = dict.fromkeys([*self._directories, *files], _FIRST_MTIME)
        self._now = _FIRST_MTIME
        directory.mkdir(parents=True)
        for name in self._directories:
            (directory / name).mkdir()
        for path, data in files.items():
            (directory / path).write_bytes(data)
        self._set_times()

    def edit(self, number: int) -> None:
        """Change `handler.sh` to content that belongs to `number` alone; its size stays."""
        self._now += 1
        path = "handler.sh"
        self._files[path] = b"#!/bin/sh\necho %09d\n" % number
        self._mtimes[path] = self._now
        target = self.directory / path
        target.write_bytes(self._files[path])
        os.utime(target, (self._now, self._now))

    def touch(self) -> None:
        """Give every file and directory a time that it never had."""
        self._now += 1
        self._mtimes = dict.fromkeys(self._mtimes, self._now)
        self._set_times()

    def request(self, image: str, build_args: dict[str, str]) -> bytes:
        """The body of a request that builds this as `image`."""
        config = json.dumps({"image": image, "buildArgs": build_args}).encode()
        with io.BytesIO() as buffer:
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                _add(archive, "com.openfaas.docker.config", config, 0)
                for name in self._directories:
                    _add(archive, f"context/{name}", None, self._mtimes[name])
                for path, data in self._files.items():
                    _add(archive, f"context/{path}", data, self._mtimes[path])
            return buffer.getvalue()

    def manifest(self, config: Mapping[str, object], sent: Collection[str] | None = None) -> bytes:
        """The body of a request with a manifest, and the contents of some files; None: of all."""
        rows = [
            Row(f"context/{name}", stat.S_IFDIR | 0o755, 0, self._mtimes[name] * 10**9)
            for name in self._directories
        ]
        contents = {}
        for path, data in self._files.items():
            digest = self._digest(path)
            times = self._mtimes[path] * 10**9
            rows.append(
                Row(f"context/{path}", stat.S_IFREG | 0o644, len(data), times, digest=digest)
            )
            if sent is None or path in sent:
                contents[content_name(digest)] = data
        with io.BytesIO() as buffer:
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
                _add(archive, "com.openfaas.docker.config", json.dumps(config).encode(), 0)
                _add(archive, MANIFEST_NAME, pack_manifest(rows), 0)
                for name, data in contents.items():
                    _add(archive, name, data, 0)
            return buffer.getvalue()

    def _digest(self, path: str) -> bytes:
        data = self._files[path]
        known = self._digests.get(path)
        if known is None or known[0] is not data:
            starts = range(0, len(data), PART_BYTES)
            digest = content_digest(data[start : start + PART_BYTES] for start in starts)
            known = self._digests[path] = data, digest
        return known[1]

    def _set_times(self) -> None:
        # Deepest first: nothing is written afterwards, so a directory's time stays.
        for path in sorted(self._mtimes, reverse=True):
            os.utime(self.directory / path, (self._mtimes[path], self._mtimes[path]))


def _add(archive: tarfile.TarFile, name: str, data: bytes | None, mtime: int) -> None:
    member = tarfile.TarInfo(name)
    member.mtime = mtime
    if data is None:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    else:
        member.size, member.mode = len(data), 0o644
        archive.addfile(member, io.BytesIO(data))
