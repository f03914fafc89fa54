"""The files of a directory to send: all that its ignore file does not exclude.

BuildKit applies the ignore file too, so a client need not. But the excluded files can be most of a
directory (`node_modules`). They may also be files that cannot be sent: an unreadable file, a fifo,
a name that is not UTF-8. The client uses the same matcher as the server
(`aiobuildkit.fsutil.patternmatcher`), so a pattern means the same to both.

The Dockerfile and the ignore file are always sent, with the targets of their symbolic links,
because BuildKit reads them without the patterns.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from function_builder.client.errors import ContextError
from function_builder.contract.errors import shown
from function_builder.contract.names import LIKE_DOCKERFILE

if TYPE_CHECKING:
    from aiobuildkit.fsutil.patternmatcher import Below, PatternMatcher, Results

DOCKERFILES: Final = ("Dockerfile", "dockerfile")
_IGNORE_FILE: Final = ".dockerignore"
_MAX_LINKS: Final = 40
"""Links that Linux follows in one path."""

_GONE: Final = (
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP),
    *(errno.EISDIR, errno.ENXIO, errno.EINVAL),
)
"""The entry was removed, or is of another kind, since its directory was listed."""

_DENIED: Final = (errno.EACCES, errno.EPERM)


_NAME: Final = itemgetter(1)

OnLeftOut: TypeAlias = Callable[[int, int], None]
"""Called with the numbers of files and of directories that an ignore file leaves out.

A directory that is left out counts as one, because the walk does not enter it: to list
`node_modules` takes longer than all other files. So the bytes are not known either.
"""


class FoundEntry(NamedTuple):
    """An entry to send.

    Attributes:
        name: relative to the directory, with slashes; empty for the directory itself.
        path: of the entry on this machine.
        status: its own, not that of a link's target. A regular file may have changed since.
    """

    name: str
    path: str
    status: os.stat_result


def find_entries(
    directory: Path, dockerfile: str | None = "", on_left_out: OnLeftOut | None = None
) -> Iterator[FoundEntry]:
    """Find what to send: parents first, the names of each directory sorted.

    A directory that is left out is not read unless an exception (`!`) can match in it.

    Args:
        directory: a context.
        dockerfile: the Dockerfile's path there; empty: `Dockerfile`; None: there is none to send.
        on_left_out: called at the end, if something is left out.

    Raises:
        ContextError: there is no Dockerfile, the ignore file cannot be understood, or what may have
            to be sent cannot be read.
    """
    try:
        always, matcher = _read_rules(directory, dockerfile)
        walk = _Walk(directory, always, matcher)
        yield from walk.entries()
        if on_left_out is not None and any(walk.left_out):
            on_left_out(*walk.left_out)
    except OSError as error:
        raise cannot_read(str(error.filename or directory), error) from error


def cannot_read(path: str, error: OSError) -> ContextError:
    """The error for an entry that cannot be read."""
    if error.errno in _GONE:
        return ContextError(f"{path} changed while it was read: build again")
    hint = f"; {_IGNORE_FILE} can leave it out" if error.errno in _DENIED else ""
    return ContextError(f"cannot read {path}: {error.strerror}{hint}")


def dockerfile_names(dockerfile: str) -> tuple[str, ...]:
    """The names that BuildKit tries for a Dockerfile: `Dockerfile` may also be in lower case."""
    path = dockerfile or DOCKERFILES[0]
    folder, slash, name = path.rpartition("/")
    return (path, folder + slash + DOCKERFILES[1]) if name == DOCKERFILES[0] else (path,)


def _no_dockerfile(directory: Path, wanted: str) -> ContextError:
    """The error for a directory without its Dockerfile; it names a file with a similar name."""
    text = f"{directory} has no {wanted}"
    try:
        beside = sorted(entry.name for entry in (directory / wanted).parent.iterdir())
    except OSError:
        return ContextError(text)
    like = next(filter(LIKE_DOCKERFILE.fullmatch, beside), "")
    hint = f"; there is {shown(like)}: name it with --file, or in dockerfile"
    return ContextError(text + hint if like else text)


def _read_rules(directory: Path, dockerfile: str | None) -> tuple[set[str], PatternMatcher | None]:
    """The paths that are always sent, and the patterns if there are any."""
    always: set[str] = set()
    ignore_files = [_IGNORE_FILE]
    if dockerfile is not None:
        names = dockerfile_names(dockerfile)
        found = next((name for name in names if (directory / name).is_file()), None)
        if found is None:
            raise _no_dockerfile(directory, names[0])
        always = set(_followed(directory, found))
        # BuildKit names it after the first name, however the file is written.
        ignore_files.insert(0, f"{names[0]}{_IGNORE_FILE}")
    for name in ignore_files:
        if os.path.lexists(directory / name):
            followed = list(_followed(directory, name))
            return always | set(followed), _read_patterns(directory / followed[-1])
    return always, None


def _read_patterns(file: Path) -> PatternMatcher | None:
    """The patterns of an ignore file; None if there are none."""
    if not file.is_file() or file.is_symlink():
        return None  # BuildKit reports what is wrong with it, if anything is
    content = file.read_bytes()
    if not content:
        return None
    # Half of the client's other imports together: paid for where there is an ignore file.
    from aiobuildkit.fsutil.filepath import BadPattern
    from aiobuildkit.fsutil.ignorefile import ignore_matcher

    try:
        return ignore_matcher(content)
    except BadPattern as error:
        raise ContextError(f"{file}: {error}") from error


def _followed(directory: Path, name: str) -> Iterator[str]:
    """A name, the links in its path and their targets, with the directory as BuildKit's root.

    The last one is the final target.
    """
    parts = name.split("/")[::-1]
    at: list[str] = []
    links = 0
    while parts:
        part = parts.pop()
        if part == "..":
            at = at[:-1]
        elif part not in ("", "."):
            at.append(part)
            path = "/".join(at)
            yield path
            if (directory / path).is_symlink() and (links := links + 1) <= _MAX_LINKS:
                target = os.readlink(directory / path)  # noqa: PTH115 (keeps "./")
                at = [] if target.startswith("/") else at[:-1]
                parts += target.split("/")[::-1]


class _Directory:
    """A directory that the walk is in.

    Attributes:
        entry: the directory itself.
        parent: the directory above it.
        results: what its path matched.
        given: whether it has been sent.
    """

    __slots__ = ("entry", "given", "parent", "results")

    def __init__(
        self, entry: FoundEntry, parent: _Directory | None, results: Results, *, given: bool
    ) -> None:
        self.entry = entry
        self.parent = parent
        self.results = results
        self.given = given


_Child: TypeAlias = tuple[_Directory, str, os.stat_result, bool]
"""The parent, the name and the status of an entry that is sent, or of a directory that is looked
into; and whether it is sent itself."""


class _Walk:
    """A walk through a directory that yields the entries to send.

    Args:
        directory: its root, which may be reached by a link.
        always: paths that are sent whatever the patterns say.
        matcher: the patterns; None sends everything.

    Attributes:
        left_out: the files and the directories that were.
    """

    def __init__(self, directory: Path, always: set[str], matcher: PatternMatcher | None) -> None:
        self._root = directory
        self._always = always
        self._matcher = matcher
        self.left_out = [0, 0]
        self._below: Below | None = None
        if matcher is not None:
            from aiobuildkit.fsutil.patternmatcher import Below

            self._below = Below(matcher, exceptions=True)

    def entries(self) -> Iterator[FoundEntry]:
        """The directory itself, then what is in it."""
        entry = FoundEntry("", str(self._root), self._root.stat())
        yield entry
        inside = os.path.join(self._root, "")  # noqa: PTH118 (once, and not for each file)
        top = self._matcher.top if self._matcher is not None else ()
        waiting = self._children(_Directory(entry, None, top, given=True))
        while waiting:
            parent, name, status, kept = waiting.pop()
            found = FoundEntry(name, inside + name, status)
            if kept:
                if not parent.given:
                    yield from _give(parent)
                yield found
            if stat.S_ISDIR(status.st_mode):
                results = self._results(name, parent)
                waiting += self._children(_Directory(found, parent, results, given=kept))

    def _is_ignored(self, name: str, parent: _Directory) -> bool:
        return self._matcher is not None and self._matcher.matches(name, parent.results)

    def _may_keep_below(self, name: str) -> bool:
        prefix = f"{name}/"
        below = self._below is None or self._below.may_match(prefix)
        return below or any(path.startswith(prefix) for path in self._always)

    def _results(self, name: str, parent: _Directory) -> Results:
        return self._matcher.results(name, parent.results) if self._matcher is not None else ()

    def _children(self, directory: _Directory) -> list[_Child]:
        """The entries of a directory that are not left out, the first name last."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if directory.parent is not None:
            # A link that has replaced the directory since is not followed.
            flags |= os.O_NOFOLLOW
        descriptor = os.open(directory.entry.path, flags)
        try:
            with os.scandir(descriptor) as listing:
                children = list(self._looked_at(directory, listing))
        except OSError as error:
            # It is a name alone, because the directory was open.
            error.filename = f"{directory.entry.path}/{error.filename}"
            raise
        finally:
            os.close(descriptor)
        children.sort(key=_NAME, reverse=True)
        return children

    def _looked_at(
        self, directory: _Directory, listing: Iterable[os.DirEntry[str]]
    ) -> Iterator[_Child]:
        """Read the status of each while their directory is open, which is the fastest way."""
        prefix = f"{directory.entry.name}/".removeprefix("/")
        all_kept = self._matcher is None
        for child in listing:
            name = prefix + child.name
            kept = all_kept or name in self._always or not self._is_ignored(name, directory)
            if not kept:
                is_directory = child.is_dir(follow_symlinks=False)
                if not (is_directory and self._may_keep_below(name)):
                    self.left_out[is_directory] += 1
                    continue
            yield directory, name, child.stat(follow_symlinks=False), kept


def _give(directory: _Directory) -> Iterator[FoundEntry]:
    """Directories that were left out themselves, and have an entry that is not left out."""
    missing = []
    above: _Directory | None = directory
    while above is not None and not above.given:
        missing.append(above)
        above = above.parent
    for one in reversed(missing):
        one.given = True
        yield one.entry
