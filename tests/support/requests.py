"""Requests made by hand, so that tests depend on no client of ours."""

import hashlib
import hmac
import io
import json
import tarfile
import time
from collections.abc import Mapping
from typing import Any

SECRET = "only-for-tests"


def make_tar(
    files: Mapping[str, bytes | str | tarfile.TarInfo],
    config: Mapping[str, Any] | bytes | None,
    *,
    mtime: int | None = None,
    secrets: bytes | None = None,
) -> bytes:
    """A request's body: files by their path in the context, and the config."""
    now = int(time.time()) if mtime is None else mtime
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, content in files.items():
                if isinstance(content, tarfile.TarInfo):
                    archive.addfile(content)
                else:
                    data = content.encode() if isinstance(content, str) else content
                    _add(archive, f"context/{path}", data, now)
            if secrets is not None:
                _add(archive, "com.openfaas.secrets", secrets, 0)
            if config is not None:
                data = config if isinstance(config, bytes) else json.dumps(config).encode()
                _add(archive, "com.openfaas.docker.config", data, 0)
        return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mtime: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = mtime
    info.mode = 0o644
    archive.addfile(info, io.BytesIO(data))


def signature(body: bytes, secret: str = SECRET) -> str:
    """The header's value."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def headers(body: bytes, *, stream: bool = False) -> dict[str, str]:
    """The headers of a signed request."""
    signed = {"X-Build-Signature": signature(body), "Content-Type": "application/octet-stream"}
    return signed | ({"Accept": "application/x-ndjson"} if stream else {})
