import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiobuildkit import Entry, LocalDirectory, file_mode
from aiobuildkit.fsutil.sender import order


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def test_entries_are_in_fsutils_order_with_their_directories(tmp_path):
    write(tmp_path, "a/b", "a.txt", "a-b/c", "a b", "é", "Z")
    (tmp_path / "empty").mkdir()
    paths = [entry.path for entry in LocalDirectory(tmp_path).entries()]
    assert paths == ["Z", "a", "a/b", "a b", "a-b", "a-b/c", "a.txt", "empty", "é"]
    assert paths == sorted(paths, key=order)


def test_an_entry_tells_what_the_file_is(tmp_path):
    write(tmp_path, "program")
    (tmp_path / "program").chmod(0o4755)
    os.utime(tmp_path / "program", ns=(0, 1_234_567_890))
    (tmp_path / "link").symlink_to(".//program/../x/")
    (tmp_path / "d").mkdir(mode=0o700)
    directory, link, program = LocalDirectory(tmp_path).entries()
    assert program == Entry("program", file_mode(0o104755), size=7, mtime=1_234_567_890)
    assert (link.target, link.size, link.mode) == (".//program/../x/", 0, file_mode(0o120777))
    assert (directory.mode, directory.size) == (file_mode(0o040700), 0)


def test_names_of_one_file_are_of_one_group(tmp_path):
    write(tmp_path, "a", "b", "c")
    os.link(tmp_path / "a", tmp_path / "d")
    os.link(tmp_path / "b", tmp_path / "e")
    groups = {entry.path: entry.link_group for entry in LocalDirectory(tmp_path).entries()}
    assert groups["a"] == groups["d"] != groups["b"] == groups["e"]
    assert groups["c"] == 0


def test_a_file_is_read_in_parts(tmp_path):
    write(tmp_path, "d/file")
    tree = LocalDirectory(str(tmp_path))
    entry = tree.entries()[1]
    assert [tree.read(entry, offset, 4) for offset in (0, 4, 6)] == [b"d/fi", b"le", b""]


def test_a_file_that_has_become_a_link_is_not_followed(tmp_path):
    write(tmp_path, "root/file", "outside")
    tree = LocalDirectory(tmp_path / "root")
    (entry,) = tree.entries()
    (tmp_path / "root/file").unlink()
    (tmp_path / "root/file").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        tree.read(entry, 0, 7)


def become_another(file: Path) -> None:
    file.with_name("another").write_text("another one")
    file.with_name("another").replace(file)


def become_newer(file: Path) -> None:
    # Of the same size, in the same place.
    file.write_text("d/FILE")
    os.utime(file, ns=(0, 1))


def become_shorter(file: Path) -> None:
    times = file.stat()
    file.write_text("d")
    os.utime(file, ns=(0, times.st_mtime_ns))


def become_a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("change", [become_another, become_newer, become_shorter, become_a_fifo])
def test_a_file_that_changes_in_mid_transfer_is_an_error(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    write(tmp_path, "d/file")
    tree = LocalDirectory(tmp_path)
    entry = tree.entries()[1]
    assert tree.read(entry, 0, 1) == b"d"
    change(tmp_path / "d/file")
    with pytest.raises(OSError, match=r"d/file has changed|seek"):
        tree.read(entry, 1, 5)


@contextmanager
def without_privileges() -> Iterator[None]:
    """As somebody whom permissions hold; root they do not."""
    user = os.geteuid()
    os.seteuid(user or 65_534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("mode", [0, 0o444])
def test_a_directory_that_cannot_be_listed_says_why(mode: int) -> None:
    # pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        write(root, "a", "data/file", "z")
        (root / "data").chmod(mode)
        with without_privileges():
            entries = LocalDirectory(root).entries()
        (root / "data").chmod(0o700)
    assert [(entry.path, entry.unreadable) for entry in entries] == [
        ("a", ""),
        ("data", "Permission denied"),
        ("z", ""),
    ]


def test_what_goes_while_we_look_is_not_there(tmp_path, monkeypatch):
    write(tmp_path, "a", "file")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("a")
    scandir = os.scandir

    @contextmanager
    def listed_and_gone(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            found = list(entries)
        (tmp_path / "file").unlink(missing_ok=True)
        (tmp_path / "link").unlink(missing_ok=True)
        yield iter(found)
        (tmp_path / "directory").rmdir()

    monkeypatch.setattr(os, "scandir", listed_and_gone)
    entries = LocalDirectory(tmp_path).entries()
    monkeypatch.undo()
    assert [entry.path for entry in entries] == ["a"]


def test_sockets_are_left_out_and_fifos_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert [entry.path for entry in LocalDirectory(tmp_path).entries()] == ["fifo"]


def test_a_link_to_a_directory_may_be_named(tmp_path):
    write(tmp_path, "real/file")
    (tmp_path / "link").symlink_to("real")
    tree = LocalDirectory(tmp_path / "link")
    (entry,) = tree.entries()
    assert tree.read(entry, 0, 100) == b"real/file"


def test_the_first_look_is_kept(tmp_path):
    tree = LocalDirectory(tmp_path)
    assert tree.entries() == []
    write(tmp_path, "late")
    assert tree.entries() == []


def test_what_is_no_directory_cannot_be_looked_through(tmp_path):
    with pytest.raises(FileNotFoundError):
        LocalDirectory(tmp_path / "nothing").entries()
