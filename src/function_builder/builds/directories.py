"""The directories of a build that BuildKit reads: the Dockerfile's and the contexts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from threading import Lock
from typing import NamedTuple

from aiobuildkit import Entry, FileSync, FileTree
from function_builder.buildkits.daemon import Daemon
from function_builder.builds import epoch, options
from function_builder.builds.build import BuildRequest
from function_builder.builds.frontends import BUILT_IN
from function_builder.context.fingerprint import Fingerprint
from function_builder.context.mtimes import Lease, NotHeld
from function_builder.context.tree import BuildContext, absent_numbers, recorded_entries, trees
from function_builder.contract.context import DOCKERFILE, ContextEntry
from function_builder.contract.manifest import MissingContent

_SESSION_ATTR = "local-sessionid:"
"""Of the Dockerfile frontend: the session of a directory. Source: `frontend/dockerui/config.go`."""


def lease(
    daemon: Daemon, request: BuildRequest, attrs: Mapping[str, str], *, exports_cache: bool
) -> Lease:
    """Lease a generation for the contexts of a build; slow for many files.

    Args:
        daemon: the BuildKit.
        request: what to build.
        attrs: of the frontend.
        exports_cache: whether BuildKit exports its cache.

    Raises:
        MissingContent: BuildKit lacks content that the request does not have.
    """
    asked = _asked(request, attrs, exports_cache=exports_cache)
    try:
        return daemon.records.lease(
            request.cache_scope,
            asked.entries,
            request.digests,
            view=asked.view,
            absent=asked.absent,
            whole=asked.whole,
        )
    except NotHeld as missing:
        raise asked.refusal(missing.numbers) from None


def refuse_missing(
    daemon: Daemon, request: BuildRequest, attrs: Mapping[str, str], *, exports_cache: bool
) -> None:
    """Raise what `lease` would raise now; nothing is leased."""
    assert request.cache_scope is not None
    asked = _asked(request, attrs, exports_cache=exports_cache)
    missing = daemon.records.missing(
        request.cache_scope,
        asked.entries,
        request.digests,
        view=asked.view,
        absent=asked.absent,
        whole=asked.whole,
    )
    if missing:
        raise asked.refusal(missing)


class _Asked(NamedTuple):
    """What the content records are asked about a build.

    Attributes:
        entries: of all contexts.
        view: as for `ContentRecords.lease`.
        absent: the numbers of the files whose content the client did not send.
        whole: the fingerprint of all directories.
    """

    entries: Sequence[ContextEntry]
    view: bytes
    absent: Collection[int]
    whole: Fingerprint | None

    def refusal(self, numbers: Collection[int]) -> MissingContent:
        """The answer that asks for the contents of these entries."""
        return MissingContent(-1 - self.entries[number].offset for number in numbers)


def _asked(request: BuildRequest, attrs: Mapping[str, str], *, exports_cache: bool) -> _Asked:
    entries = recorded_entries(request.context, request.folders)
    return _Asked(
        entries,
        epoch.view(request, attrs),
        absent_numbers(entries) if request.partial else (),
        fingerprint(request, attrs, exports_cache=exports_cache),
    )


def fingerprint(
    request: BuildRequest, attrs: Mapping[str, str], *, exports_cache: bool
) -> Fingerprint | None:
    """The fingerprint of all directories; None if BuildKit must read them, changed or not.

    It must if it exports its cache: other BuildKits find a step there by the digests of the files,
    which BuildKit only computes from files that it has read. It also must if the image has
    attestations: the provenance publishes all attributes, and who knows a session's ID could make
    BuildKit use that session's files in another build.

    Args:
        request: what to build.
        attrs: of the frontend.
        exports_cache: whether BuildKit exports its cache.
    """
    if exports_cache or options.attests(request.config):
        return None
    inputs = (
        epoch.view(request, attrs),
        # The Dockerfile's directory depends on these.
        _is_built_in(attrs),
        request.config.dockerfile,
        list(options.folder_trees(request.config).items()),
    )
    return request.fingerprint.beside(inputs=repr(inputs).encode())


def named(session: str, request: BuildRequest) -> Mapping[str, str]:
    """The attributes that name the session of all directories; none for an empty session."""
    if not session:
        return {}
    names = ["dockerfile", *options.context_trees(request.config)]
    return {f"{_SESSION_ATTR}{name}": session for name in names}


def file_sync(lease: Lease, request: BuildRequest, attrs: Mapping[str, str]) -> FileSync:
    """Serve the directories, as they are announced under a lease."""
    made = _Directories(lease, request, attrs)
    names = ["dockerfile", *options.context_trees(request.config)]
    return FileSync({name: _Directory(made, name) for name in names})


class _Directories:
    """All directories. They are only made if BuildKit asks for one: it may have them."""

    def __init__(self, lease: Lease, request: BuildRequest, attrs: Mapping[str, str]) -> None:
        self._lease = lease
        self._request = request
        self._attrs = attrs
        self._lock = Lock()

    def __getitem__(self, name: str) -> FileTree:
        with self._lock:
            return self._trees[name]

    @cached_property
    def _trees(self) -> Mapping[str, FileTree]:
        request = self._request
        mtimes, resend, _ = self._lease.announced
        ends = accumulate(map(len, (request.context, *request.folders.values())))

        def tree(entries: Sequence[ContextEntry]) -> BuildContext:
            end = next(ends)
            start = end - len(entries)
            marked = {number - start for number in resend if start <= number < end}
            return BuildContext(request.reader, entries, mtimes[start:end], marked)

        context = tree(request.context)
        names = options.folder_trees(request.config)
        folders = {names[name]: tree(entries) for name, entries in request.folders.items()}
        dockerfile = request.config.dockerfile or DOCKERFILE
        return trees(
            context,
            built_in=_is_built_in(self._attrs),
            dockerfile=dockerfile,
            folders=folders,
        )


class _Directory:
    """A FileTree: one of the directories."""

    def __init__(self, made: _Directories, name: str) -> None:
        self._made = made
        self._name = name

    def entries(self) -> Sequence[Entry]:
        return self._made[self._name].entries()

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        return self._made[self._name].read(entry, offset, size)


def _is_built_in(attrs: Mapping[str, str]) -> bool:
    return BUILT_IN.items() <= attrs.items()
