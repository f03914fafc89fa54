"""Requests with a manifest, made by hand."""

import io
import json
import stat
import tarfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from struct import pack
from typing import Any

from function_builder.contract.manifest import (
    MANIFEST_NAME,
    PART_BYTES,
    Row,
    content_digest,
    content_name,
    pack_manifest,
)


def digest_of(content: bytes) -> bytes:
    """The digest of a content in a manifest."""
    return content_digest(
        content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)
    )


def file_row(path: str, content: bytes, *, mtime: int = 0, mode: int = 0o644) -> Row:
    """The row of a file of the context; `mtime` in seconds."""
    kind = stat.S_IFREG | mode
    return Row(f"context/{path}", kind, len(content), mtime * 10**9, digest=digest_of(content))


def raw_manifest(count: int, digests: bytes, table: bytes, *, size: int | None = None) -> bytes:
    """A manifest of any bytes; `size` is what it says of its table."""
    named = len(table) if size is None else size
    return pack(">4sII", b"FBM2", count, named) + digests + zlib.compress(table)


def manifest_tar(
    rows: Sequence[Row] | bytes,
    config: Mapping[str, Any],
    contents: Collection[bytes] = (),
) -> bytes:
    """A request's body: a manifest of these rows, and these contents."""
    table = rows if isinstance(rows, bytes) else pack_manifest(rows)
    entries = {"com.openfaas.docker.config": json.dumps(config).encode(), MANIFEST_NAME: table}
    entries |= {content_name(digest_of(content)): content for content in contents}
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in entries.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()
