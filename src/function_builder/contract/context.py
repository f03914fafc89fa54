"""The build context of a request's archive: the files that BuildKit will see.

The context is the folder `context/`; a named context is another top-level folder, which the config
names. Other entries of the archive are ignored, whatever they are.
"""

import re
import stat
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from function_builder.contract.archive import CONTEXT, MAX_PATH, Archive
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.reader import Reader
from function_builder.contract.tar import Kind, Member

DOCKERFILE: Final = "Dockerfile"
"""The path of the Dockerfile, unless the config names another."""

# Linux's NAME_MAX: BuildKit could not store more.
_MAX_COMPONENT: Final = 255
# BuildKit's time for a path grows with nearly the cube of its depth: half a second for so many
# folders in one another, half a minute for the two thousand that a path can hold.
_MAX_DEPTH: Final = 256
# Linux's limit of symbolic links followed in one path.
_MAX_LINKS: Final = 40
# An ignore file has dozens of lines; those that were written for whole organisations, hundreds.
_MAX_IGNORE_LINES: Final = 10_000
_MAX_IGNORE_BYTES: Final = 1 << 20
# BuildKit reads it with Go's bufio.Scanner, which takes no longer ones.
_MAX_IGNORE_LINE: Final = (1 << 16) - 1
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")

_TYPES: Final = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
}
# A tuple is searched by identity; the hash of an enumeration's member is Python code.
_ALLOWED: Final = tuple(_TYPES)


class ContextEntry(NamedTuple):
    """One file, directory or symbolic link of the build context.

    Attributes:
        path: relative to the context, clean, `/` between components; UTF-8.
        mode: as `st_mode` has it, type bits included.
        size: bytes; of a symbolic link, those of its target; of a directory, 0.
        mtime: nanoseconds since the epoch.
        target: of a symbolic link, as written.
        link_group: not 0 for names that share one file; equal for those that share the same.
        offset: where in the archive a file's data starts.
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
        entries: every parent before what is in it, ordered by path component as BuildKit wants it;
            the folder's own root is left out.
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
        Refusal: 400: BuildKit must not get an entry, or could not store it; or there is no
            Dockerfile.
    """
    context = _entries(archive.members, CONTEXT)
    entries = {entry.path: entry for entry in context}
    # BuildKit tries the second name where the first gives nothing.
    folder, slash, name = dockerfile.rpartition("/")
    names = [dockerfile, *([folder + slash + name.lower()] if name == DOCKERFILE else [])]
    for name in (".dockerignore", *(f"{name}.dockerignore" for name in names)):
        _check_ignore_file(archive.reader, entries, CONTEXT, name)
    return Context(context, _dockerfile(entries, names))


def read_folder(archive: Archive, folder: str) -> Sequence[ContextEntry]:
    """Read the layout of a named context: a top-level folder other than `context/`.

    Raises:
        Refusal: 400: there is no such folder, or what is in it is refused as in `read_context`.
    """
    root = archive.members.get(folder)
    if root is None or root.kind is not Kind.DIRECTORY:
        raise Refusal(400, f"The archive has no {shown(folder)} folder, which the config names.")
    entries = _entries(archive.members, folder)
    _check_ignore_file(
        archive.reader, {entry.path: entry for entry in entries}, folder, ".dockerignore"
    )
    return entries


def _check(path: str, name: str, member: Member) -> None:
    """Refuse what BuildKit must not get, or could not store.

    Args:
        path: in the archive.
        name: in its folder.
        member: what is there.
    """
    if member.kind not in _ALLOWED:
        raise Refusal(400, f"The entry {shown(path)} is a device or a fifo: leave it out.")
    encoded = _encoded(name, path)
    too_long = len(encoded) > _MAX_COMPONENT and (
        len(encoded) > MAX_PATH or max(map(len, encoded.split(b"/"))) > _MAX_COMPONENT
    )
    if too_long or (member.kind is Kind.SYMLINK and len(member.target) > MAX_PATH):
        raise Refusal(400, f"The entry {shown(path)} has a longer name or target than Linux takes.")
    if len(encoded) > _MAX_DEPTH and encoded.count(b"/") > _MAX_DEPTH:
        raise Refusal(400, f"The entry {shown(path)} lies in more than {_MAX_DEPTH} folders.")
    if member.kind is Kind.SYMLINK and not _encoded(member.target, path):
        raise Refusal(400, f"The symbolic link {shown(path)} has no target.")


def _encoded(text: str, path: str) -> bytes:
    """The UTF-8 of a name: BuildKit's protocol carries no other bytes."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Refusal(
            400, f"The entry {shown(path)} has a name or target that is not UTF-8: rename it."
        ) from None


def _entries(members: Mapping[str, Member], folder: str) -> list[ContextEntry]:
    """The members below a top-level folder, checked, in BuildKit's order."""
    inside = folder + "/"
    paths = [path for path in members if path.startswith(inside)]
    # The order of components, not of characters: "a/b" comes before "a.b".
    paths.sort(key=lambda path: path.replace("/", "\0"))
    names = Counter(id(members[path]) for path in paths)
    groups: dict[int, int] = {}
    entries = []
    for path in paths:
        member = members[path]
        group = 0
        if names[id(member)] > 1:
            group = groups.setdefault(id(member), len(groups) + 1)
        name = path.removeprefix(inside)
        _check(path, name, member)
        entries.append(_entry(name, member, group))
    return entries


def _entry(path: str, member: Member, group: int) -> ContextEntry:
    symlink = member.kind is Kind.SYMLINK
    return ContextEntry(
        path,
        # Linux gives every symbolic link this mode.
        _TYPES[member.kind] | (0o777 if symlink else member.mode),
        len(member.target.encode()) if symlink else member.size,
        member.mtime,
        member.target if symlink else "",
        0 if symlink else group,
        member.offset,
    )


def _check_ignore_file(
    reader: Reader, entries: Mapping[str, ContextEntry], folder: str, name: str
) -> None:
    """Refuse an ignore file that nobody wrote by hand, or that cannot be sent back.

    BuildKit sends each of its lines back as a header of one request, and a hundred thousand headers
    take seconds to decode, in which nothing else is served. Headers hold no control characters.
    """
    entry = _follow(entries, name)
    if entry is None or not stat.S_ISREG(entry.mode):
        return
    path = f"{folder}/{name}"
    text = reader.read(entry.offset, min(entry.size, _MAX_IGNORE_BYTES))
    if entry.size > _MAX_IGNORE_BYTES or text.count(b"\n") >= _MAX_IGNORE_LINES:
        raise Refusal(
            400,
            f"{path} has {_MAX_IGNORE_LINES} lines or {_MAX_IGNORE_BYTES} bytes,"
            " or more: use fewer and wider patterns.",
        )
    lines = text.split(b"\n")
    if len(max(lines, key=len)) > _MAX_IGNORE_LINE:
        raise Refusal(
            400,
            f"{path} has a line of more than {_MAX_IGNORE_LINE} bytes,"
            " which BuildKit does not read: use shorter patterns.",
        )
    lines[0] = lines[0].removeprefix(BOM_UTF8)
    for number, line in enumerate(lines, 1):
        if _CONTROL.search(line.strip()) and not line.startswith(b"#"):
            raise Refusal(400, f"{path} has a control character in line {number}: remove it.")


def _dockerfile(entries: Mapping[str, ContextEntry], names: Sequence[str]) -> ContextEntry:
    """The file that BuildKit reads: the first of the names that gives one."""
    for name in names:
        entry = _follow(entries, name)
        if entry and stat.S_ISREG(entry.mode):
            return entry
    wanted = "Dockerfile (or dockerfile)" if DOCKERFILE in names else shown(names[0])
    raise Refusal(
        400,
        f"{CONTEXT}/ has no {wanted} that is a regular file,"
        f" or a symbolic link to one inside {CONTEXT}/.",
    )


def _follow(entries: Mapping[str, ContextEntry], path: str) -> ContextEntry | None:
    """What `path` leads to with the context as the file system's root; None for nothing."""
    entry = None
    current: list[str] = []
    ahead = [path]
    links = 0
    while ahead:
        part = ahead.pop()
        if part in ("", ".", ".."):
            current = current[:-1] if part == ".." else current
            continue
        entry = entries.get("/".join([*current, part]))
        if entry is None or (ahead and stat.S_ISREG(entry.mode)):
            return None
        if stat.S_ISLNK(entry.mode):
            links += 1
            if links > _MAX_LINKS:
                return None
            current = [] if entry.target.startswith("/") else current
            ahead += reversed(entry.target.split("/"))
        else:
            current.append(part)
    return entries.get("/".join(current))
