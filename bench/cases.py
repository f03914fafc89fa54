"""What is built, and how it differs from one build to the next."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.contexts import Context, Files, many_files, one_large_file, tiny

Change = Callable[[Context, int], None]
"""Makes the context ready for the build of that number, which no other build has."""


def _nothing(context: Context, number: int) -> None:
    del context, number


def _edit(context: Context, number: int) -> None:
    # Content of its own for each build: BuildKit knows content whoever sent it, and would let
    # the second contender find in its cache what the first one paid for.
    context.edit(number)


def _touch(context: Context, number: int) -> None:
    del number
    context.touch()


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table.

    Attributes:
        name: what CASE= calls it.
        title: what the table calls it.
        files: makes the context.
        change: what differs from one build to the next.
        buildctl: what the time, divided by buildctl's, should at most be.
        go: the same by the Go reference's.
        cold: whether BuildKit's cache, the base image aside, is emptied before each build.
        clients: how many build at the same time.
        builds: how many builds one measurement holds.
        reproducible: whether they have `SOURCE_DATE_EPOCH`, with which no time is noise.
        manifest: what the time of a request with a manifest, divided by buildctl's, should at most
            be; None: it is not measured.
    """

    name: str
    title: str
    files: Callable[[], Files]
    change: Change
    buildctl: float
    go: float
    cold: bool = False
    clients: int = 1
    builds: int = 1
    reproducible: bool = True
    manifest: float | None = None


def _rate(clients: int, builds: int) -> Case:
    title = f"cached builds, {clients} client{'s' if clients > 1 else ''}"
    # The target is in builds a second, where more is better; here it is in seconds a build.
    return Case(
        *(f"clients-{clients}", title, tiny, _nothing, 1 / 1.2, 1.0),
        clients=clients,
        builds=builds,
    )


CASES = (
    Case("tiny", "tiny function, all cached", tiny, _nothing, 0.80, 1.0),
    Case("tiny-edited", "tiny function, one file edited, RUN cached", tiny, _edit, 0.88, 1.0),
    Case(
        *("10k-one-changed", "10,000 files, one changed", many_files, _edit, 0.9, 0.3),
        manifest=0.95,
    ),
    Case(
        *("10k-new-mtimes", "10,000 files, every mtime new", many_files, _touch, 0.4, 0.2),
        reproducible=False,
    ),
    Case(
        *("10k-unchanged", "10,000 files, unchanged", many_files, _nothing, 1.0, 0.3),
        manifest=0.6,
    ),
    Case("10k-cold", "10,000 files, cold", many_files, _edit, 1.0, 0.9, cold=True),
    Case("200mb-cold", "one 200 MB file, cold", one_large_file, _edit, 0.8, 0.6, cold=True),
    Case(
        *("200mb-unchanged", "one 200 MB file, unchanged", one_large_file, _nothing, 4.0, 0.6),
        manifest=0.8,
    ),
    Case(
        *("200mb-other-changed", "200 MB, another file changed", one_large_file, _edit, 4.0, 0.6),
        manifest=0.9,
    ),
    _rate(clients=1, builds=8),
    _rate(clients=4, builds=16),
    _rate(clients=16, builds=32),
)
