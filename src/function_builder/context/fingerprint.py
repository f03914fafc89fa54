"""Fingerprints of a context: whether BuildKit would get the same as in an earlier build."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import sha256
from stat import S_ISDIR
from typing import NamedTuple

from function_builder.contract.context import ContextEntry


class Fingerprint(NamedTuple):
    """Digests of all entries of a context, with their contents.

    Attributes:
        exact: equal only for equal contexts.
        timeless: the same, but it does not depend on the entries' mtimes.
    """

    exact: bytes
    timeless: bytes

    def beside(self, *, inputs: bytes) -> Fingerprint:
        """That of a context together with other inputs."""
        exact, timeless = (sha256(each + inputs).digest() for each in self)
        return Fingerprint(exact, timeless)


def fingerprint(entries: Sequence[ContextEntry], digests: Sequence[bytes]) -> Fingerprint:
    """The fingerprint of a context.

    Args:
        entries: the context; it does not depend on where the archive has a content.
        digests: of their contents.
    """
    return _fingerprint(entries, digests, (entry.mtime for entry in entries))


def in_directories(entries: Sequence[ContextEntry], digests: Sequence[bytes], view: bytes) -> bytes:
    """Digest everything whose change would make BuildKit change a directory's mtime.

    All entries in directories; their modes, not their mtimes; and what decides which of them
    BuildKit reads, because it deletes the others: `view`, Dockerfiles and ignore files.
    """
    inside = [
        (entry, digest)
        for entry, digest in zip(entries, digests, strict=True)
        if "/" in entry.path or S_ISDIR(entry.mode) or "docker" in entry.path.lower()
    ]
    files = [entry for entry, _ in inside]
    times = (0 if S_ISDIR(entry.mode) else entry.mtime for entry in files)
    whole = _fingerprint(files, [digest for _, digest in inside], times)
    return whole.beside(inputs=view).exact


def _fingerprint(
    entries: Sequence[ContextEntry], digests: Sequence[bytes], mtimes: Iterable[int]
) -> Fingerprint:
    whole = sha256(b"%d " % len(entries))
    if entries:
        names, modes, sizes, _, targets, groups, _ = zip(*entries, strict=True)
        # Not marshal, whose bytes differ where equal strings are one object.
        for numbers in (modes, sizes, groups, list(map(len, digests))):
            whole.update(array("q", numbers))
        whole.update("\0".join((*names, *targets, "")).encode() + b"".join(digests))
    timeless = whole.digest()
    whole.update(array("q", mtimes))
    return Fingerprint(whole.digest(), timeless)
