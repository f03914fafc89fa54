import os
import stat
from pathlib import Path

import pytest

from function_builder.client.context import FoundEntry
from function_builder.client.stat_cache import StatCache

SECOND = 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def kept(tmp_path: Path, file: Path, *, age: int = 10) -> None:
    """Keep a digest of the file, which is read `age` seconds after its last change."""
    status = file.stat()
    now = status.st_ctime_ns + age * SECOND
    cache = StatCache(tmp_path, tmp_path / "caches", lambda: now)
    cache.put("file", status, b"d" * 32)
    cache.write()


def opened(tmp_path: Path) -> StatCache:
    return StatCache(tmp_path, tmp_path / "caches")


def digest(cache: StatCache, file: Path) -> bytes | None:
    """What is kept of the file as it is now."""
    return cache.known([FoundEntry("file", str(file), file.stat())]).get("file")


def test_an_unchanged_file_is_known(tmp_path, file):
    kept(tmp_path, file)
    assert digest(opened(tmp_path), file) == b"d" * 32
    assert stat.S_IMODE((tmp_path / "caches").stat().st_mode) == 0o700


def rewritten(file: Path) -> None:
    before = file.stat()
    # Before Linux 6.13 the times of a file come from a clock that ticks every few milliseconds.
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        file.write_bytes(b"CONTENT")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"CONTENT")
    other.replace(file)


@pytest.mark.parametrize("change", [rewritten, replaced, lambda file: file.write_bytes(b"")])
def test_a_changed_file_is_not(tmp_path, file, change):
    """Also with its size and its mtime as before: the ctime or the inode is another."""
    kept(tmp_path, file)
    change(file)
    cache = opened(tmp_path)
    assert digest(cache, file) is None
    assert cache.last("file") == b"d" * 32


def test_a_file_that_was_just_written_is_read_again(tmp_path, file):
    kept(tmp_path, file, age=1)
    assert digest(opened(tmp_path), file) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:-2] + b"x" + data[-1:],
        lambda data: b"FBC2" + data[4:],
    ],
)
def test_a_damaged_cache_is_an_empty_one(tmp_path, file, damage):
    kept(tmp_path, file)
    (cache,) = (tmp_path / "caches").iterdir()
    cache.write_bytes(damage(cache.read_bytes()))
    assert digest(opened(tmp_path), file) is None


def test_a_cache_that_cannot_be_kept_is_no_error(tmp_path, file):
    (tmp_path / "caches").write_bytes(b"a file")
    kept(tmp_path, file)
    assert digest(StatCache(tmp_path, None), file) is None


def test_the_oldest_caches_are_removed(tmp_path, file):
    caches = tmp_path / "caches"
    caches.mkdir()
    for number in range(120):
        (caches / f"{number}").write_bytes(b"")
        os.utime(caches / f"{number}", (number, number))
    kept(tmp_path, file)
    assert len(list(caches.iterdir())) == 100
    assert digest(opened(tmp_path), file) is not None
