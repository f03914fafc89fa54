"""A request's archive: where its config, its secrets and its build context are.

Strategy: the entries are laid out as `tar -x` would lay them out in an empty directory, but in a
dictionary; nothing is ever written. GNU tar is the judge of what equal names and hard links mean:
a later entry takes the place of an earlier one, but not of a directory that holds something; a hard
link shares the file that has the name at that moment. What an extraction would fail at, or would
follow a symbolic link for, is refused; only a hard link may come before its target.
"""

import re
import stat
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from function_builder.contract.config import CONFIG_NAME, MAX_CONFIG_BYTES
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.expanded import Expanded
from function_builder.contract.reader import ReadAhead, Reader
from function_builder.contract.secrets import MAX_SECRETS_BYTES, SECRETS_NAME
from function_builder.contract.tar import Kind, Member, index

CONTEXT: Final = "context"
_INSIDE: Final = CONTEXT + "/"

# Linux's NAME_MAX and PATH_MAX, the final NUL counted: BuildKit could not store more.
_MAX_COMPONENT: Final = 255
_MAX_PATH: Final = 4095
# BuildKit's time for a path grows with nearly the cube of its depth: half a second for so many
# folders in one another, half a minute for the two thousand that a path can hold.
_MAX_DEPTH: Final = 256
# All names and targets together, parents that have no entry included: an archive of deep paths
# must not cost a thousand times its own size.
_MAX_NAMES: Final = 64 << 20
# Linux's limit of symbolic links followed in one path.
_MAX_LINKS: Final = 40
# An ignore file has dozens of lines; those that were written for whole organisations, hundreds.
_MAX_IGNORE_LINES: Final = 10_000
_MAX_IGNORE_BYTES: Final = 1 << 20
# BuildKit reads it with Go's bufio.Scanner, which takes no longer ones.
_MAX_IGNORE_LINE: Final = (1 << 16) - 1
_MAX_EXPANDED: Final = 1 << 30
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")

# Parents without an entry: the mode that tar gives them, and a time that never changes. Before
# 1980 zip archives made of them in a RUN step would fail.
_PARENT_MODE: Final = 0o755
_PARENT_MTIME: Final = 315_532_800 * 1_000_000_000

_TYPES: Final = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
}
# A tuple is searched by identity; the hash of an enumeration's member is Python code.
_ALLOWED: Final = (*_TYPES, Kind.HARDLINK)


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


@dataclass(frozen=True, slots=True)
class Archive:
    """What a request's archive holds.

    Attributes:
        config: the build's config, JSON, not yet parsed.
        secrets: the sealed secrets, YAML, not yet parsed; None without any.
        context: the build context, every parent before what is in it, ordered by path component
            as BuildKit wants it; the context's own root is left out.
        dockerfile: the regular file that BuildKit will read as the Dockerfile.
        reader: what to read the files from: the archive, its sparse files expanded.
    """

    config: bytes
    secrets: bytes | None
    context: Sequence[ContextEntry]
    dockerfile: ContextEntry
    reader: Reader


def open_archive(reader: Reader, *, max_entries: int, max_bytes: int = _MAX_EXPANDED) -> Archive:
    """Read the layout of a request's archive; no data but the config and the secrets.

    Args:
        reader: its bytes.
        max_entries: how many it may have.
        max_bytes: how large it may be with its sparse files expanded, where it has any.

    Raises:
        Refusal: 400, 413 or 415, as the API's table of refusals has it.
    """
    tree = _Tree(max_entries)
    expanded = Expanded(reader, max_bytes)
    for member in index(ReadAhead(reader), max_entries=max_entries):
        tree.add(member if member.sparse is None else _expanded(member, expanded))
    reader = expanded.reader
    tree.resolve_links()
    members = tree.members
    if CONFIG_NAME not in members:
        raise Refusal(400, f"The archive has no {CONFIG_NAME}.")
    if CONTEXT not in members:
        raise Refusal(400, f"The archive has no {CONTEXT}/ folder.")
    context = _context(members)
    entries = {entry.path: entry for entry in context}
    _check_ignore_files(reader, entries)
    secrets = members.get(SECRETS_NAME)
    return Archive(
        config=_document(reader, members[CONFIG_NAME], MAX_CONFIG_BYTES),
        secrets=_document(reader, secrets, MAX_SECRETS_BYTES) if secrets else None,
        context=context,
        dockerfile=_dockerfile(entries),
        reader=reader,
    )


class _Tree:
    """The archive's entries as an extraction would leave them: clean name to member.

    Names that share a file hold the same Member object. A hard link whose target has not come yet
    stands as itself until `resolve_links`.
    """

    def __init__(self, max_entries: int) -> None:
        self.members: dict[str, Member] = {}
        self._max_entries = max_entries
        # Once a directory holds something it always will: nothing is removed, only replaced.
        self._populated = {""}
        self._names = 0

    def add(self, member: Member) -> None:
        if max(len(member.name), len(member.target)) > 2 * _MAX_PATH:
            raise Refusal(400, f"The entry {shown(member.name)} has too long a name or target.")
        self._hold(len(member.name) + len(member.target))
        path = _clean(member.name, member.name)
        if not path:
            if member.kind is not Kind.DIRECTORY:
                raise Refusal(400, f"The entry {shown(member.name)} has no name of its own.")
            return
        _check(path, member)
        if path not in self.members:
            self._make_parents(path)
        elif path == CONFIG_NAME:
            raise Refusal(400, f"The archive has two {CONFIG_NAME}: which one is meant?")
        elif path in self._populated and member.kind is not Kind.DIRECTORY:
            raise Refusal(400, f"The entry {shown(path)} would replace a folder that is not empty.")
        if member.kind is Kind.HARDLINK:
            target = _clean(member.target, member.name)
            found = self.members.get(target)
            if found is None or found.kind is Kind.HARDLINK or target == path:
                member = member._replace(target=target)
            else:
                member = _shared(path, found)
        self.members[path] = member

    def _hold(self, characters: int) -> None:
        self._names += characters
        if self._names > _MAX_NAMES:
            raise Refusal(413, "The names in the archive are too long, taken together.")

    def _make_parents(self, path: str) -> None:
        """Make the parents that a new path lacks."""
        while True:
            parent = path.rpartition("/")[0]
            if parent in self._populated:
                return
            self._populated.add(parent)
            holder = self.members.get(parent)
            if holder is not None:
                if holder.kind is Kind.DIRECTORY:
                    return
                raise Refusal(
                    400, f"The entry {shown(path)} lies in {shown(parent)}, which is no folder."
                )
            if len(self.members) >= self._max_entries:
                raise Refusal(413, f"The archive has more than {self._max_entries} entries.")
            self._hold(len(parent))
            self.members[parent] = Member(
                parent, Kind.DIRECTORY, _PARENT_MODE, 0, _PARENT_MTIME, "", 0
            )
            path = parent

    def resolve_links(self) -> None:
        """Give every hard link that came before its target the file that it shares."""
        for path, member in self.members.items():
            if member.kind is Kind.HARDLINK:
                self._resolve_link(path)

    def _resolve_link(self, path: str) -> None:
        chain: dict[str, Member] = {}
        while (member := self.members[path]).kind is Kind.HARDLINK:
            if path in chain:
                raise Refusal(400, f"The hard link {shown(path)} leads back to itself.")
            chain[path] = member
            if member.target not in self.members:
                raise Refusal(
                    400,
                    f"The hard link {shown(path)} leads to {shown(member.target)},"
                    " which is not in the archive.",
                )
            path = member.target
        for name in chain:
            self.members[name] = _shared(name, member)


def _expanded(member: Member, expanded: Expanded) -> Member:
    """A sparse file as one that is stored whole."""
    assert member.sparse is not None
    return member._replace(offset=expanded.add(member.sparse), sparse=None)


def _shared(path: str, found: Member) -> Member:
    """What the hard link `path` shares; links share files and symbolic links only."""
    if found.kind not in (Kind.FILE, Kind.SYMLINK):
        raise Refusal(400, f"The hard link {shown(path)} leads to a folder or a device.")
    return found


def _clean(name: str, entry: str) -> str:
    """`name` without `.` and empty components; "" for the archive's root."""
    if name[:1] not in ("", "/", ".") and "//" not in name and "/." not in name:
        # Nearly every name, and a third of the time.
        return name.removesuffix("/")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        what = "entry" if name == entry else "hard link"
        raise Refusal(
            400,
            f"The {what} {shown(entry)} could leave the archive:"
            " names and hard links must be relative and without '..'.",
        )
    return "/".join([part for part in parts if part not in ("", ".")])


def _check(path: str, member: Member) -> None:
    """Refuse what BuildKit must not get, or could not store."""
    if path in (CONFIG_NAME, SECRETS_NAME) and member.kind is not Kind.FILE:
        raise Refusal(400, f"{path} must be a regular file.")
    if path == CONTEXT and member.kind is not Kind.DIRECTORY:
        raise Refusal(400, f"{CONTEXT} must be a folder.")
    if not path.startswith(_INSIDE):
        return
    if member.kind not in _ALLOWED:
        raise Refusal(400, f"The entry {shown(path)} is a device or a fifo: leave it out.")
    encoded = _encoded(path.removeprefix(_INSIDE), path)
    too_long = len(encoded) > _MAX_COMPONENT and (
        len(encoded) > _MAX_PATH or max(map(len, encoded.split(b"/"))) > _MAX_COMPONENT
    )
    if too_long or (member.kind is Kind.SYMLINK and len(member.target) > _MAX_PATH):
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


def _document(reader: Reader, member: Member, limit: int) -> bytes:
    if member.size > limit:
        raise Refusal(400, f"{shown(member.name)} is larger than {limit} bytes.")
    return reader.read(member.offset, member.size)


def _context(members: Mapping[str, Member]) -> list[ContextEntry]:
    """The members below `context/`, in BuildKit's order."""
    paths = [path for path in members if path.startswith(_INSIDE)]
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
        entries.append(_entry(path.removeprefix(_INSIDE), member, group))
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


def _check_ignore_files(reader: Reader, entries: Mapping[str, ContextEntry]) -> None:
    """Refuse an ignore file that nobody wrote by hand, or that cannot be sent back.

    BuildKit sends each of its lines back as a header of one request, and a hundred thousand headers
    take seconds to decode, in which nothing else is served. Headers hold no control characters.
    """
    for name in (".dockerignore", "Dockerfile.dockerignore", "dockerfile.dockerignore"):
        entry = _follow(entries, name)
        if entry is None or not stat.S_ISREG(entry.mode):
            continue
        text = reader.read(entry.offset, min(entry.size, _MAX_IGNORE_BYTES))
        if entry.size > _MAX_IGNORE_BYTES or text.count(b"\n") >= _MAX_IGNORE_LINES:
            raise Refusal(
                400,
                f"{CONTEXT}/{name} has {_MAX_IGNORE_LINES} lines or {_MAX_IGNORE_BYTES} bytes,"
                " or more: use fewer and wider patterns.",
            )
        lines = text.split(b"\n")
        if len(max(lines, key=len)) > _MAX_IGNORE_LINE:
            raise Refusal(
                400,
                f"{CONTEXT}/{name} has a line of more than {_MAX_IGNORE_LINE} bytes,"
                " which BuildKit does not read: use shorter patterns.",
            )
        lines[0] = lines[0].removeprefix(BOM_UTF8)
        for number, line in enumerate(lines, 1):
            if _CONTROL.search(line.strip()) and not line.startswith(b"#"):
                raise Refusal(
                    400, f"{CONTEXT}/{name} has a control character in line {number}: remove it."
                )


def _dockerfile(entries: Mapping[str, ContextEntry]) -> ContextEntry:
    """The file that BuildKit reads: it tries the second name where the first gives nothing."""
    for name in ("Dockerfile", "dockerfile"):
        entry = _follow(entries, name)
        if entry and stat.S_ISREG(entry.mode):
            return entry
    raise Refusal(
        400,
        f"{CONTEXT}/ has no Dockerfile (or dockerfile) that is a regular file,"
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
