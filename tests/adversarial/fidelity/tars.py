"""Archives of a directory, each written by a program that clients of the builder use."""

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from function_builder.engine import find_tool

TOOLS = Path(__file__).parents[2] / "tools"

CONFIG = "com.openfaas.docker.config"
CONTEXT = "context"

Writer = Callable[[Path, Path], None]
"""Archives the config and the context in a directory: the directory, the archive to write."""


def gnu(*options: str) -> Writer:
    """GNU tar with options."""

    def write(root: Path, archive: Path) -> None:
        command = ["tar", "--create", f"--directory={root}", f"--file={archive}"]
        _run([*command, *options, CONFIG, CONTEXT])

    return write


def gnu_dot(root: Path, archive: Path) -> None:
    """GNU tar of the whole directory, so that names start with `./`."""
    _run(["tar", "--create", f"--directory={root}", f"--file={archive}", "."])


def gnu_without_directories(root: Path, archive: Path) -> None:
    """GNU tar of all that is no directory, so that none has an entry."""
    names = [str(path.relative_to(root)) for path in root.rglob("*") if _is_no_directory(path)]
    listed = "\0".join(names).encode()
    options = ["--null", "--verbatim-files-from", "--files-from=-"]
    command = ["tar", "--create", f"--directory={root}", f"--file={archive}", *options]
    _run(command, input=listed)


def bsd(form: str) -> Writer:
    """libarchive's tar in one of its formats."""

    def write(root: Path, archive: Path) -> None:
        bsdtar = shutil.which("bsdtar")
        assert bsdtar, "bsdtar is missing: apt-get install libarchive-tools"
        _run([bsdtar, "-c", f"--format={form}", "-C", root, "-f", archive, CONFIG, CONTEXT])

    return write


def python(form: int, *, backwards: bool = False) -> Writer:
    """Python's tarfile in one of its formats; `backwards`: children before their directories."""

    def write(root: Path, archive: Path) -> None:
        paths = sorted(path.relative_to(root) for path in _below(root))
        with tarfile.open(archive, "w", format=form) as tar:
            for path in reversed(paths) if backwards else paths:
                tar.add(root / path, str(path), recursive=False)

    return write


def go(form: str) -> Writer:
    """Go's archive/tar in one of its formats, or the one that it chooses."""

    def write(root: Path, archive: Path) -> None:
        _run([find_tool("gotar"), form, root, archive])

    return write


def node(*options: str) -> Writer:
    """Node's `tar`, as a client on axios uses it."""

    def write(root: Path, archive: Path) -> None:
        _run(["node", TOOLS / "nodetar" / "pack.js", root, archive, *options])

    return write


def php(root: Path, archive: Path) -> None:
    """PHP's PharData."""
    program = "$tar = new PharData($argv[2]); $tar->buildFromDirectory($argv[1]);"
    made = archive.with_suffix(".php.tar")
    _run(["php", "-d", "error_reporting=-1", "-r", program, "--", root, made])
    made.rename(archive)


def extract(archive: Path, directory: Path) -> None:
    """Unpack an archive as a builder that unpacks would."""
    directory.mkdir()
    _run(["tar", "--extract", "--preserve-permissions", f"--directory={directory}", "-f", archive])


def _below(root: Path) -> Iterator[Path]:
    """Everything in a directory; links are not followed."""
    for path in root.iterdir():
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def _is_no_directory(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir()


def _run(command: Sequence[str | Path], *, input: bytes | None = None) -> None:  # noqa: A002 (subprocess's name)
    done = subprocess.run(command, input=input, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
