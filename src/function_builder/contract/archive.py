"""A request's archive: where its config, its secrets and its build context are.

Strategy: the entries are laid out as `tar -x` would lay them out in an empty directory, but in a
dictionary; nothing is ever written. GNU tar is the judge of what equal names and hard links mean:
a later entry takes the place of an earlier one, but not of a directory that holds something; a hard
link shares the file that has the name at that moment. What an extraction would fail at, or would
follow a symbolic link for, is refused; only a hard link may come before its target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from function_builder.contract.config import MAX_CONFIG_BYTES
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.expanded import Expanded
from function_builder.contract.names import CONFIG_NAME, CONTEXT, MAX_PATH
from function_builder.contract.reader import ReadAhead, Reader
from function_builder.contract.secrets import MAX_SECRETS_BYTES, SECRETS_NAME
from function_builder.contract.tar import Kind, Member, index

# All names and targets together, parents that have no entry included: an archive of deep paths
# must not cost a thousand times its own size.
_MAX_NAMES: Final = 64 << 20
# What an archive with sparse files may take, unless the caller says: a body's own limit.
_MAX_EXPANDED: Final = 1 << 30
# Parents without an entry: the mode that tar gives them, and a time that never changes. Before
# 1980 zip archives made of them in a RUN step would fail.
_PARENT_MODE: Final = 0o755
_PARENT_MTIME: Final = 315_532_800 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Archive:
    """What a request's archive holds.

    Attributes:
        config: the build's config, JSON, not yet parsed.
        secrets: the sealed secrets, YAML, not yet parsed; None without any.
        members: all entries by their clean names, every parent included; names that share a file
            hold the same member.
        reader: what to read files from: the archive's bytes, its sparse files expanded.
    """

    config: bytes
    secrets: bytes | None
    members: Mapping[str, Member]
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
        raise Refusal(400, f"The archive has no {CONFIG_NAME}.{_backslashes(members)}")
    if CONTEXT not in members:
        raise Refusal(400, f"The archive has no {CONTEXT}/ folder.{_backslashes(members)}")
    secrets = members.get(SECRETS_NAME)
    return Archive(
        config=_document(reader, members[CONFIG_NAME], MAX_CONFIG_BYTES),
        secrets=_document(reader, secrets, MAX_SECRETS_BYTES) if secrets else None,
        members=members,
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
        if max(len(member.name), len(member.target)) > 2 * MAX_PATH:
            raise Refusal(400, f"The entry {shown(member.name)} has too long a name or target.")
        self._hold(len(member.name) + len(member.target))
        path = _clean(member.name, member.name)
        if not path:
            if member.kind is not Kind.DIRECTORY:
                raise Refusal(400, f"The entry {shown(member.name)} has no name of its own.")
            return
        _check_kind(path, member.kind)
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


def _check_kind(path: str, kind: Kind) -> None:
    if path in (CONFIG_NAME, SECRETS_NAME) and kind is not Kind.FILE:
        raise Refusal(400, f"{path} must be a regular file.")
    if path == CONTEXT and kind is not Kind.DIRECTORY:
        raise Refusal(400, f"{CONTEXT} must be a folder.")


def _backslashes(members: Mapping[str, Member]) -> str:
    """What to do where a program on Windows has written its own paths into the archive."""
    odd = next((name for name in members if "\\" in name and "/" not in name), "")
    return f" The name {shown(odd)} has backslashes: write '/' between folders." if odd else ""


def _document(reader: Reader, member: Member, limit: int) -> bytes:
    if member.size > limit:
        raise Refusal(400, f"{shown(member.name)} is larger than {limit} bytes.")
    return reader.read(member.offset, member.size)
