"""A base image with a static busybox, pushed over the registry's HTTP API.

A machine without access to an image registry can build functions with it. The bytes only depend on
the busybox, so its digest, and caches of builds from it, stay valid for a new registry.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import platform
import struct
import subprocess
import tarfile
from typing import Any

import httpx2

from function_builder.engine.errors import EngineError
from function_builder.engine.tools import find_tool

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OTHER_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}

_FILES = {
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
}
_DIRECTORIES = {
    "bin": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "root": 0o700,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
}

_PT_INTERP = 3


async def seed_base_image(registry: str, image: str = "library/busybox:latest") -> bool:
    """Push the base image as `image` unless the registry has one of that name.

    Args:
        registry: `host:port` of a registry over plain HTTP.
        image: repository and tag.

    Returns:
        Whether it was pushed.

    Raises:
        ToolMissing: there is no busybox.
        EngineError: the busybox is not a static one, or the registry refused the image.
    """
    repository, _, tag = image.rpartition(":")
    try:
        # trust_env would send requests for our own registry to a proxy.
        async with httpx2.AsyncClient(base_url=f"http://{registry}/v2/", trust_env=False) as http:
            accept = {"Accept": ", ".join((_MANIFEST, *_OTHER_MANIFESTS))}
            known = await http.head(f"{repository}/manifests/{tag}", headers=accept)
            if known.status_code == 200:
                return False
            await _push(http, repository, tag, await asyncio.to_thread(_layer))
    except httpx2.HTTPError as error:
        raise EngineError(f"registry {registry} did not accept {image}: {error}") from error
    return True


async def _push(http: httpx2.AsyncClient, repository: str, tag: str, layer: bytes) -> None:
    archive = gzip.compress(layer, mtime=0)
    config = _json(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "created": "1970-01-01T00:00:00Z",
            "os": "linux",
            "rootfs": {"diff_ids": [_digest(layer)], "type": "layers"},
        }
    )
    manifest = {
        "config": await _push_blob(http, repository, _CONFIG, config),
        "layers": [await _push_blob(http, repository, _LAYER, archive)],
        "mediaType": _MANIFEST,
        "schemaVersion": 2,
    }
    answer = await http.put(
        f"{repository}/manifests/{tag}",
        content=_json(manifest),
        headers={"Content-Type": _MANIFEST},
    )
    answer.raise_for_status()


async def _push_blob(
    http: httpx2.AsyncClient, repository: str, media_type: str, blob: bytes
) -> dict[str, Any]:
    digest = _digest(blob)
    begun = await http.post(f"{repository}/blobs/uploads/")
    begun.raise_for_status()
    upload = httpx2.URL(begun.headers["Location"]).copy_merge_params({"digest": digest})
    (await http.put(upload, content=blob)).raise_for_status()
    return {"mediaType": media_type, "digest": digest, "size": len(blob)}


def _layer() -> bytes:
    path = find_tool("busybox")
    busybox = path.read_bytes()
    if not is_static(busybox):
        raise EngineError(f"{path} is not static: `apt-get install busybox-static`")
    listed = subprocess.run([path, "--list"], check=True, capture_output=True, text=True)  # noqa: S603 (no shell)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode in _DIRECTORIES.items():
            _add(tar, name, tarfile.DIRTYPE, mode)
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, content=busybox)
        for applet in sorted({*listed.stdout.split()} - {"busybox"}):
            _add(tar, f"bin/{applet}", tarfile.SYMTYPE, 0o777, target="busybox")
        # Scripts rely on two absolute paths: /bin/sh and /usr/bin/env.
        _add(tar, "usr/bin/env", tarfile.SYMTYPE, 0o777, target="../../bin/busybox")
        for name, content in _FILES.items():
            _add(tar, name, tarfile.REGTYPE, 0o644, content=content)
    return output.getvalue()


def _add(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes,
    mode: int,
    *,
    content: bytes = b"",
    target: str = "",
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname, member.size = kind, mode, target, len(content)
    tar.addfile(member, io.BytesIO(content))


def is_static(program: bytes) -> bool:
    """Whether a 64-bit ELF file names no interpreter, which is the dynamic loader (elf(5))."""
    if program[:5] != b"\x7fELF\x02":
        return False
    order = "<" if program[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", program, 0x20)
    size, count = struct.unpack_from(f"{order}HH", program, 0x36)
    kinds = [struct.unpack_from(f"{order}I", program, table + n * size)[0] for n in range(count)]
    return _PT_INTERP not in kinds


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
