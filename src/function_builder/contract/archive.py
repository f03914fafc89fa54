"""A request's archive: its config, its secrets and its build context.

Strategy: compute in a dictionary the tree that `tar -x` would create in an empty directory, without
writing files. Equal names and hard links have GNU tar's meaning: a later entry replaces an earlier
one, but not a directory with entries; a hard link shares the file that has the name at that point.
An entry is refused if an extraction would fail, or would follow a symbolic link. Only a hard link
may come before its target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from function_builder.contract.config import MAX_CONFIG_BYTES
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.expanded import Expanded
from function_builder.contract.manifest import (
    MANIFEST_NAME,
    SentContent,
    listed,
    read_manifest,
)
from function_builder.contract.names import CONFIG_NAME, CONTEXT, MAX_PATH, SECRETS_NAME
from function_builder.contract.reader import ReadAhead, Reader
from function_builder.contract.secrets import MAX_SECRETS_BYTES
from function_builder.contract.tar import Kind, Member, index

# The most bytes of all names and targets, including parents without an entry, because an archive of
# deep paths must not take a thousand times its own size.
_MAX_NAMES: Final = 64 << 20
# The default limit of an archive with its sparse files: that of a body.
_MAX_EXPANDED: Final = 1 << 30
_FIXED: Final = frozenset((CONFIG_NAME, SECRETS_NAME, CONTEXT))
"""The names that must be of a certain kind."""
# Parents without an entry have tar's default mode, and a constant time. With a time before 1980, a
# RUN step could not make zip archives of them.
_PARENT_MODE: Final = 0o755
_PARENT_MTIME: Final = 315_532_800 * 1_000_000_000
# Python 3.11 takes long to look up a member of an enumeration, and each entry needs this one twice.
_HARDLINK: Final = Kind.HARDLINK


@dataclass(frozen=True, slots=True)
class Archive:
    """The content of a request's archive.

    Attributes:
        config: the build's config, JSON, not parsed.
        secrets: the sealed secrets, YAML, not parsed; None without any.
        members: all entries by their clean names, including every parent; names of one file have
            the same member.
        reader: reads files from the archive's bytes, with sparse files expanded.
        claims: the digests that a manifest gives its files, by their offset; the offset of a file
            that was not sent is negative. Empty without a manifest.
    """

    config: bytes
    secrets: bytes | None
    members: Mapping[str, Member]
    reader: Reader
    claims: Mapping[int, bytes] = field(default_factory=dict)


def open_archive(reader: Reader, *, max_entries: int, max_bytes: int = _MAX_EXPANDED) -> Archive:
    """Read a request's archive: its entries, and the data of the config and the secrets.

    Args:
        reader: its bytes.
        max_entries: the most entries.
        max_bytes: the largest size with sparse files expanded.

    Raises:
        Refusal: 400, 413 or 415, as in the API's table of refusals.
    """
    tree = _Tree(max_entries)
    expanded = Expanded(reader, max_bytes)
    for member in index(ReadAhead(reader), max_entries=max_entries):
        tree.add(member if member.sparse is None else _expanded(member, expanded))
    reader = expanded.reader
    tree.resolve_links()
    members: Mapping[str, Member] = tree.members
    claims: Mapping[int, bytes] = {}
    if CONFIG_NAME not in members:
        raise Refusal(400, f"The archive has no {CONFIG_NAME}.{_backslashes(members)}")
    secrets = members.get(SECRETS_NAME)
    config = _document(reader, members[CONFIG_NAME], MAX_CONFIG_BYTES)
    sealed = _document(reader, secrets, MAX_SECRETS_BYTES) if secrets else None
    if MANIFEST_NAME in members:
        members, claims = _listed(reader, members, max_entries, max_bytes)
        reader = SentContent(reader)
    if CONTEXT not in members:
        raise Refusal(400, f"The archive has no {CONTEXT}/ folder.{_backslashes(members)}")
    return Archive(config=config, secrets=sealed, members=members, reader=reader, claims=claims)


def _listed(
    reader: Reader, sent: Mapping[str, Member], max_entries: int, max_bytes: int
) -> tuple[Mapping[str, Member], Mapping[int, bytes]]:
    """The members that the manifest stands for, and the digests of its files by offset."""
    manifest = sent[MANIFEST_NAME]
    if CONTEXT in sent:
        raise Refusal(400, f"The archive has a manifest and a {CONTEXT}/ folder: send one of them.")
    if manifest.kind is not Kind.FILE:
        raise Refusal(400, f"{MANIFEST_NAME} must be a regular file.")
    rows = read_manifest(reader, manifest, max_entries=max_entries)
    members, claims = listed(rows, sent, max_bytes=max_bytes)
    tree = _Tree(max_entries)
    for member in members:
        tree.add(member)
    tree.resolve_links()
    return tree.members, claims


class _Tree:
    """The archive's entries as after an extraction: clean name to member.

    Names of one file have the same Member object. A hard link before its target remains a hard link
    until `resolve_links`.
    """

    def __init__(self, max_entries: int) -> None:
        self.members: dict[str, Member] = {}
        self._max_entries = max_entries
        # A directory with entries stays so, because entries are only replaced, not removed.
        self._populated = {""}
        self._names = 0

    def add(self, member: Member) -> None:
        name, kind, _, _, _, target, _, _ = member
        if len(name) > 2 * MAX_PATH or len(target) > 2 * MAX_PATH:
            raise Refusal(400, f"The entry {shown(name)} has too long a name or target.")
        self._hold(len(name) + len(target))
        path = _clean(name, name)
        if not path:
            if kind is not Kind.DIRECTORY:
                raise Refusal(400, f"The entry {shown(name)} has no name.")
            return
        if path in _FIXED:
            _check_kind(path, kind)
        if path not in self.members:
            self._make_parents(path)
        elif path == CONFIG_NAME:
            raise Refusal(400, f"The archive has two {CONFIG_NAME}: which one is meant?")
        elif path in self._populated and kind is not Kind.DIRECTORY:
            raise Refusal(400, f"The entry {shown(path)} would replace a folder that is not empty.")
        if kind is _HARDLINK:
            target = _clean(target, name)
            found = self.members.get(target)
            if found is None or found.kind is Kind.HARDLINK or target == path:
                member = member._replace(target=target)
            else:
                member = _shared(path, found)
        self.members[path] = member

    def _hold(self, characters: int) -> None:
        self._names += characters
        if self._names > _MAX_NAMES:
            raise Refusal(413, "The names in the archive are too long in total.")

    def _make_parents(self, path: str) -> None:
        """Make missing parents of a new path."""
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
                    400, f"The entry {shown(path)} is in {shown(parent)}, which is not a folder."
                )
            if len(self.members) >= self._max_entries:
                raise Refusal(413, f"The archive has more than {self._max_entries} entries.")
            self._hold(len(parent))
            self.members[parent] = Member(
                parent, Kind.DIRECTORY, _PARENT_MODE, 0, _PARENT_MTIME, "", 0
            )
            path = parent

    def resolve_links(self) -> None:
        """Resolve every hard link that came before its target."""
        for path, member in self.members.items():
            if member.kind is _HARDLINK:
                self._resolve_link(path)

    def _resolve_link(self, path: str) -> None:
        chain: dict[str, Member] = {}
        while (member := self.members[path]).kind is Kind.HARDLINK:
            if path in chain:
                raise Refusal(400, f"The hard link {shown(path)} points to itself.")
            chain[path] = member
            if member.target not in self.members:
                raise Refusal(
                    400,
                    f"The hard link {shown(path)} points to {shown(member.target)},"
                    " which is not in the archive.",
                )
            path = member.target
        for name in chain:
            self.members[name] = _shared(name, member)


def _expanded(member: Member, expanded: Expanded) -> Member:
    """A sparse file, expanded."""
    assert member.sparse is not None
    return member._replace(offset=expanded.add(member.sparse), sparse=None)


def _shared(path: str, found: Member) -> Member:
    """The target of the hard link `path`, which must be a file or a symbolic link."""
    if found.kind not in (Kind.FILE, Kind.SYMLINK):
        raise Refusal(400, f"The hard link {shown(path)} points to a folder or a device.")
    return found


def _clean(name: str, entry: str) -> str:
    """`name` without `.` and empty components; "" for the archive's root."""
    if name[:1] not in ("", "/", ".") and "//" not in name and "/." not in name:
        # A fast path for nearly every name, which saves a third of the time.
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
    if path == CONTEXT and kind is not Kind.DIRECTORY:
        raise Refusal(400, f"{CONTEXT} must be a folder.")
    if path != CONTEXT and kind is not Kind.FILE:
        raise Refusal(400, f"{path} must be a regular file.")


def _backslashes(members: Mapping[str, Member]) -> str:
    """The advice if a program on Windows wrote backslashes into the archive's paths."""
    odd = next((name for name in members if "\\" in name and "/" not in name), "")
    return f" The name {shown(odd)} has backslashes: write '/' between folders." if odd else ""


def _document(reader: Reader, member: Member, limit: int) -> bytes:
    if member.size > limit:
        raise Refusal(400, f"{shown(member.name)} is larger than {limit} bytes.")
    return reader.read(member.offset, member.size)
