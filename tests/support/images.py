"""Images as a registry holds them, pulled over its HTTP API and laid out in memory or on a disk.

Source: OCI distribution specification (pull), OCI image specification (layers, whiteouts).
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx2

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_ACCEPT = f"{_MANIFEST},application/vnd.docker.distribution.manifest.v2+json,{_INDEX}"


@dataclass(frozen=True)
class File:
    """One path of an image: what it is ("file", "dir", "symlink"), its mode, its bytes or target.

    `same_as` is the first path of the same layer that shares its file (a hard link).
    """

    kind: str
    mode: int
    content: bytes
    mtime: float
    same_as: str = ""


@dataclass(frozen=True)
class Image:
    """An image of one platform."""

    digest: str
    config: dict[str, Any]
    files: dict[str, File]

    def text(self, path: str) -> str:
        """A file's text."""
        return self.files[path].content.decode()


def pull(registry: str, repository: str, reference: str) -> Image:
    """Pull an image, and check every digest on the way."""
    with _repository(registry, repository) as http:
        digest, manifest = _manifest(http, reference)
        config = json.loads(_blob(http, manifest["config"]["digest"]))
        files: dict[str, File] = {}
        for layer in manifest["layers"]:
            _lay(files, _blob(http, layer["digest"]))
    return Image(digest, config, files)


def manifest(registry: str, repository: str, reference: str) -> dict[str, Any]:
    """A manifest or an index as it is, checked."""
    with _repository(registry, repository) as http:
        return _manifest(http, reference)[1]


def blob(registry: str, repository: str, digest: str) -> bytes:
    """A blob, checked."""
    with _repository(registry, repository) as http:
        return _blob(http, digest)


def push_base(
    registry: str,
    repository: str,
    tag: str,
    layer: Path,
    *,
    architecture: str = "amd64",
    entrypoint: Sequence[str] = (),
) -> dict[str, Any]:
    """Push an image of one tar, uncompressed: BuildKit would take long to compress a Debian.

    Returns:
        its descriptor, for `push_index`.
    """
    with layer.open("rb") as opened:
        digest = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": list(entrypoint),
            },
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
    ).encode()
    config_digest = _digest(config)
    described = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor("config.v1+json", config_digest, len(config)),
            "layers": [_descriptor("layer.v1.tar", digest, layer.stat().st_size)],
        }
    ).encode()
    with _repository(registry, repository) as http, layer.open("rb") as opened:
        _push_blob(http, config_digest, config)
        _push_blob(http, digest, opened)
        _push_manifest(http, tag, _MANIFEST, described)
    descriptor = _descriptor("manifest.v1+json", _digest(described), len(described))
    return {**descriptor, "platform": {"os": "linux", "architecture": architecture}}


def push_index(
    registry: str, repository: str, tag: str, descriptors: Sequence[Mapping[str, Any]]
) -> None:
    """Push one image of several platforms, whose own images are in the repository."""
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors}
    with _repository(registry, repository) as http:
        _push_manifest(http, tag, _INDEX, json.dumps(index).encode())


def _push_manifest(http: httpx2.Client, tag: str, kind: str, described: bytes) -> None:
    sent = {"Content-Type": kind}
    http.put(f"manifests/{tag}", content=described, headers=sent).raise_for_status()


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": size}


def _push_blob(http: httpx2.Client, digest: str, blob: bytes | BinaryIO) -> None:
    begun = http.post("blobs/uploads/").raise_for_status()
    place = httpx2.URL(begun.headers["Location"]).copy_merge_params({"digest": digest})
    http.put(place, content=blob).raise_for_status()


def unpack(registry: str, repository: str, reference: str, root: Path) -> None:
    """Pull an image whose layers remove nothing onto a disk, with its owners and modes; as root."""
    with _repository(registry, repository) as http:
        _, manifest = _manifest(http, reference)
        for layer in manifest["layers"]:
            packed = ["--gzip"] if layer["mediaType"].endswith("gzip") else []
            subprocess.run(
                ["tar", "--extract", *packed, "--preserve-permissions", "--numeric-owner"],
                check=True,
                cwd=root,
                input=_blob(http, layer["digest"]),
            )
    assert not list(root.rglob(".wh.*"))


def _repository(registry: str, repository: str) -> httpx2.Client:
    return httpx2.Client(base_url=f"http://{registry}/v2/{repository}/", timeout=60, verify=False)


def _manifest(http: httpx2.Client, reference: str) -> tuple[str, dict[str, Any]]:
    answer = http.get(f"manifests/{reference}", headers={"Accept": _ACCEPT})
    answer.raise_for_status()
    digest = _digest(answer.content)
    assert answer.headers["docker-content-digest"] == digest
    return digest, answer.json()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _blob(http: httpx2.Client, digest: str) -> bytes:
    answer = http.get(f"blobs/{digest}")
    answer.raise_for_status()
    assert _digest(answer.content) == digest
    return answer.content


def _lay(files: dict[str, File], layer: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        members = archive.getmembers()
        for member in members:
            folder, _, name = member.name.rpartition("/")
            if name == ".wh..wh..opq":
                _remove(files, folder, keep=True)
            elif name.startswith(".wh."):
                _remove(files, f"{folder}/{name[4:]}".lstrip("/"))
        for member in members:
            if not member.name.rpartition("/")[2].startswith(".wh."):
                files[member.name.rstrip("/")] = _file(archive, member, files)


def _remove(files: dict[str, File], path: str, *, keep: bool = False) -> None:
    for name in [
        name for name in files if name.startswith(path + "/") or (name == path and not keep)
    ]:
        del files[name]


def _file(archive: tarfile.TarFile, member: tarfile.TarInfo, files: dict[str, File]) -> File:
    if member.isdir():
        return File("dir", member.mode, b"", member.mtime)
    if member.issym():
        return File("symlink", member.mode, member.linkname.encode(), member.mtime)
    if member.islnk():
        first = files[member.linkname]
        return File(first.kind, first.mode, first.content, first.mtime, member.linkname)
    assert member.isreg(), f"{member.name} is neither file, directory nor link"
    content = archive.extractfile(member)
    assert content is not None
    return File("file", member.mode, content.read(), member.mtime)
