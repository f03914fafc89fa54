"""The build context of a request's archive: the files for BuildKit.

The context is the folder `context/`; a named context is another top-level folder, which the config
names. All other entries of the archive are ignored.
"""

from __future__ import annotations

import stat
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.rootpath import UnclearPath, file_read
from aiobuildkit.fsutil.sender import Entry, file_mode
from function_builder.contract.archive import Archive
from function_builder.contract.dockerignore import IGNORE_FILE, MAX_IGNORE_BYTES, IgnoreFile
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.manifest import MissingContent
from function_builder.contract.names import CONTEXT, LIKE_DOCKERFILE, MAX_PATH
from function_builder.contract.tar import Kind, Member

DOCKERFILE: Final = "Dockerfile"
"""The path of the Dockerfile, unless the config names another."""

# Linux's NAME_MAX: BuildKit cannot store longer names.
_MAX_COMPONENT: Final = 255
# BuildKit's time for a path grows with nearly the cube of its depth: half a second for 256 nested
# folders, half a minute for the two thousand that a path can have.
_MAX_DEPTH: Final = 256
_BUDGET_SECONDS: Final = 10.0
"""Seconds of CPU time to find out which refused entries the ignore file excludes."""

_BY_KEY: Final = "name it in the key dockerfile."

_TYPES: Final = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
}
# A tuple, because its search compares identities; an enumeration's hash is slow Python code.
_ALLOWED: Final = tuple(_TYPES)
_PLAIN: Final = (Kind.FILE, Kind.DIRECTORY)


class ContextEntry(NamedTuple):
    """One file, directory or symbolic link of the build context.

    Attributes:
        path: relative to the context, clean, `/` between components; UTF-8.
        mode: in the form of `st_mode`, with type bits.
        size: in bytes; of a symbolic link, that of its target; of a directory, 0.
        mtime: nanoseconds since the epoch.
        target: of a symbolic link, unchanged.
        link_group: a number that all names of one file share; 0 for a file with one name.
        offset: of a file's data in the archive; negative if the data was not sent.
    """

    path: str
    mode: int
    size: int
    mtime: int
    target: str
    link_group: int
    offset: int


class Context(NamedTuple):
    """The folder `context/`.

    Attributes:
        entries: parents before their children, in BuildKit's order by path component; without the
            folder itself.
        dockerfile: the regular file that BuildKit will read as the Dockerfile.
    """

    entries: Sequence[ContextEntry]
    dockerfile: ContextEntry


def read_context(archive: Archive, dockerfile: str = DOCKERFILE) -> Context:
    """Read the layout of `context/`.

    Args:
        archive: the request's.
        dockerfile: the path of the Dockerfile in the context, clean.

    Raises:
        Refusal: 400: an entry is not allowed, or BuildKit could not store it, and the ignore file
            does not exclude it; the ignore file is invalid; or there is no Dockerfile. 409: a
            manifest does not have the content of a file that BuildKit always reads.
    """
    _require_content(archive, [*_fetched(dockerfile), IGNORE_FILE])
    context, faults = _entries(archive.members, CONTEXT)
    entries = {entry.path: entry for entry in context}
    fetched = _fetched(dockerfile)
    own = f"{dockerfile}{IGNORE_FILE}"
    found = _file(entries, own, fetched)
    name = own if found else IGNORE_FILE
    ignored = _ignored(archive, f"{CONTEXT}/{name}", found or _file(entries, name))
    _refuse_unless_ignored(archive, faults, ignored)
    return Context(context, _dockerfile(entries, fetched))


def _require_content(archive: Archive, names: Sequence[str]) -> None:
    found = [member for name in names if (member := archive.members.get(f"{CONTEXT}/{name}"))]
    if absent := [-1 - member.offset for member in found if member.offset < 0]:
        raise MissingContent(absent)


def read_folder(archive: Archive, folder: str) -> Sequence[ContextEntry]:
    """Read the layout of a named context: a top-level folder other than `context/`.

    Raises:
        Refusal: 400: there is no such folder, or an entry is refused as in `read_context`.
    """
    root = archive.members.get(folder)
    if root is None or root.kind is not Kind.DIRECTORY:
        raise Refusal(400, f"The archive has no {shown(folder)} folder, which the config names.")
    context, faults = _entries(archive.members, folder)
    entries = {entry.path: entry for entry in context}
    ignored = _ignored(archive, f"{folder}/{IGNORE_FILE}", _file(entries, IGNORE_FILE))
    _refuse_unless_ignored(archive, faults, ignored)
    return context


def check_spare_ignore_file(
    archive: Archive, context: Context, dockerfile: str = DOCKERFILE, *, pinned: bool
) -> None:
    """Also check `.dockerignore`, if a frontend's image may read it beside the Dockerfile's own.

    If the own file is empty, every image does, because gRPC carries an empty file like no file.

    Args:
        archive: the request's.
        context: its context.
        dockerfile: the path of the Dockerfile.
        pinned: the image is named by digest, and may be too old to support an own file.

    Raises:
        Refusal: 400: the file is invalid.
    """
    entries = {entry.path: entry for entry in context.entries}
    own = _file(entries, f"{dockerfile}{IGNORE_FILE}", _fetched(dockerfile))
    if own is not None and (pinned or not own.size):
        _ignored(archive, f"{CONTEXT}/{IGNORE_FILE}", _file(entries, IGNORE_FILE))


def _ignored(archive: Archive, path: str, entry: ContextEntry | None) -> IgnoreFile:
    """Read an ignore file.

    Args:
        archive: the request's.
        path: of the file in the archive, for refusals.
        entry: the file that BuildKit reads; None without one.
    """
    if entry is None:
        return IgnoreFile(b"", path)
    # One byte more than allowed is enough to detect that it is too large.
    content = archive.reader.read(entry.offset, min(entry.size, MAX_IGNORE_BYTES + 1))
    return IgnoreFile(content, path)


def _refuse_unless_ignored(archive: Archive, faults: Sequence[str], ignored: IgnoreFile) -> None:
    """Refuse the first invalid entry that the ignore file does not exclude."""
    began = time.thread_time()
    for path in faults:
        name = path.partition("/")[2]
        if time.thread_time() - began > _BUDGET_SECONDS or not ignored.leaves_out(name):
            _check(path, name, archive.members[path])


def _check(path: str, name: str, member: Member) -> None:
    """Refuse an entry that is not allowed, or that BuildKit could not store.

    Args:
        path: in the archive.
        name: in its folder.
        member: the entry.
    """
    if member.kind not in _ALLOWED:
        raise Refusal(400, f"The entry {shown(path)} is a device or a fifo: leave it out.")
    encoded = _encoded(name, path)
    too_long = len(encoded) > _MAX_COMPONENT and (
        len(encoded) > MAX_PATH or max(map(len, encoded.split(b"/"))) > _MAX_COMPONENT
    )
    if too_long or (member.kind is Kind.SYMLINK and len(member.target) > MAX_PATH):
        raise Refusal(400, f"The entry {shown(path)} has a name or target that is too long.")
    if len(encoded) > _MAX_DEPTH and encoded.count(b"/") > _MAX_DEPTH:
        raise Refusal(400, f"The entry {shown(path)} is in more than {_MAX_DEPTH} nested folders.")
    if member.kind is Kind.SYMLINK and not _encoded(member.target, path):
        raise Refusal(400, f"The symbolic link {shown(path)} has no target.")


def _encoded(text: str, path: str) -> bytes:
    """The UTF-8 of a name; BuildKit's protocol supports no other names."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Refusal(
            400, f"The entry {shown(path)} has a name or target that is not UTF-8: rename it."
        ) from None


def _entries(members: Mapping[str, Member], folder: str) -> tuple[list[ContextEntry], list[str]]:
    """The members below a top-level folder, in BuildKit's order, and the paths of those refused.

    All entries in a refused folder are refused too, because the folder's name is part of theirs.
    """
    inside = folder + "/"
    paths = [path for path in members if path.startswith(inside)]
    # Ordered by components instead of characters: "a/b" comes before "a.b".
    paths.sort(key=lambda path: path.replace("/", "\0"))
    faults: list[str] = []
    entries: list[ContextEntry] = []
    found: list[Member] = []
    start = len(inside)
    # Names of this function, because Python 3.11 takes long to look up a member of an enumeration.
    new, file, symlink = tuple.__new__, Kind.FILE, Kind.SYMLINK
    for path in paths:
        member = members[path]
        name = path[start:]
        _, kind, mode, size, mtime, _, offset, _ = member
        # Nothing can be wrong with nearly every entry, which saves a quarter of the time.
        if len(name) > _MAX_COMPONENT or kind not in _PLAIN or not name.isascii():
            try:
                _check(path, name, member)
            except Refusal:
                faults.append(path)
                continue
        found.append(member)
        if kind is symlink:
            entries.append(_symlink(name, member))
        else:
            bits = stat.S_IFREG if kind is file else stat.S_IFDIR
            # The class itself takes twice the time of the tuple that it makes.
            entries.append(new(ContextEntry, (name, bits | mode, size, mtime, "", 0, offset)))
    return _with_groups(entries, found), faults


def _with_groups(entries: list[ContextEntry], members: Sequence[Member]) -> list[ContextEntry]:
    """The entries with their link groups; several names of a file have one member."""
    names = Counter(map(id, members))
    if len(names) == len(members):
        return entries
    groups: dict[int, int] = {}
    for number, (entry, member) in enumerate(zip(entries, members, strict=True)):
        if names[id(member)] > 1 and member.kind is not Kind.SYMLINK:
            group = groups.setdefault(id(member), len(groups) + 1)
            entries[number] = entry._replace(link_group=group)
    return entries


def _symlink(path: str, member: Member) -> ContextEntry:
    # Linux gives every symbolic link this mode.
    mode, size = stat.S_IFLNK | 0o777, len(member.target.encode())
    return ContextEntry(path, mode, size, member.mtime, member.target, 0, member.offset)


def _fetched(dockerfile: str) -> Sequence[str]:
    """The paths that BuildKit asks for in one call.

    They are the Dockerfile, its own ignore file, and the Dockerfile in lower case, which BuildKit
    tries if the first does not exist. Source: `frontend/dockerui/config.go`.
    """
    folder, slash, name = dockerfile.rpartition("/")
    lower = [folder + slash + name.lower()] if name == DOCKERFILE else []
    return [dockerfile, f"{dockerfile}{IGNORE_FILE}", *lower]


def _dockerfile(entries: Mapping[str, ContextEntry], fetched: Sequence[str]) -> ContextEntry:
    """The file that BuildKit reads: that of the first name that exists."""
    dockerfile, _, *lower = fetched
    for name in (dockerfile, *lower):
        entry = _file(entries, name, fetched)
        if entry is not None:
            return entry
    wanted = "Dockerfile (or dockerfile)" if dockerfile == DOCKERFILE else shown(dockerfile)
    raise Refusal(
        400,
        f"{CONTEXT}/ has no {wanted} that is a regular file,"
        f" or a symbolic link to one inside {CONTEXT}/.{_look_alike(entries, dockerfile)}",
    )


def _look_alike(entries: Mapping[str, ContextEntry], wanted: str) -> str:
    """Name a file that may be meant as the Dockerfile, in the same folder or below."""
    folder, slash, name = wanted.rpartition("/")
    inside = folder + slash
    for path, entry in entries.items():
        beside = path.startswith(inside) and LIKE_DOCKERFILE.fullmatch(path, len(inside))
        if beside and stat.S_ISREG(entry.mode):
            return f" There is {shown(path)}: rename it to {shown(name)}, or {_BY_KEY}"
    below = [
        path
        for path, entry in entries.items()
        if path.endswith(f"/{name}") and stat.S_ISREG(entry.mode)
    ]
    found = min(below, key=len, default="")
    meant = f"send its folder as {CONTEXT}/, or {_BY_KEY}"
    return f" There is {shown(found)}: {meant}" if found else ""


def _file(
    entries: Mapping[str, ContextEntry], path: str, fetched: Sequence[str] = (IGNORE_FILE,)
) -> ContextEntry | None:
    """The regular file that BuildKit reads for a path; None if there is none.

    Args:
        entries: of the folder, in BuildKit's order.
        path: in the folder.
        fetched: the paths that BuildKit requests in the same call.

    Raises:
        Refusal: 400: links make it depend on BuildKit's machine, or are invalid patterns.
    """
    way = accumulate(path.split("/"), "{}/{}".format)
    if not any((entry := entries.get(place)) and stat.S_ISLNK(entry.mode) for place in way):
        entry = entries.get(path)
        return entry if entry and stat.S_ISREG(entry.mode) else None
    tree = [Entry(each.path, file_mode(each.mode), target=each.target) for each in entries.values()]
    try:
        found = file_read(tree, fetched, path)
    except (UnclearPath, BadPattern) as error:
        raise Refusal(
            400,
            f"BuildKit could read another file for {shown(path)} than the one that its links point"
            " to: make it a link to the file itself, without '..' and wildcards.",
        ) from error
    return entries[found.path] if found else None
