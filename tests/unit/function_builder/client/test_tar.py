"""Our headers are those of the standard library, byte for byte."""

import stat
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.client.tar import pack_header

TYPES = {stat.S_IFREG: b"0", 0: b"1", stat.S_IFLNK: b"2", stat.S_IFDIR: b"5"}
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=120
)


def by_tarfile(name: str, mode: int, size: int, mtime: int, target: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.mtime = stat.S_IMODE(mode), size, mtime
    info.type, info.linkname = TYPES[stat.S_IFMT(mode)], target
    return info.tobuf(tarfile.PAX_FORMAT)


HEADERS = st.tuples(
    NAMES,
    st.builds(int.__or__, st.sampled_from(sorted(TYPES)), st.integers(0, 0o7777)),
    st.sampled_from([0, 1, 511, 8**11 - 1, 8**11, 1 << 40]),
    st.sampled_from([-1, 0, 1_700_000_000, 8**11 - 1, 8**11]),
    st.just("") | NAMES,
)


@given(HEADERS)
def test_any_header(header: tuple[str, int, int, int, str]) -> None:
    assert pack_header(*header) == by_tarfile(*header)


@pytest.mark.parametrize("length", [98, 99, 100, 101, 255, 256])
@pytest.mark.parametrize("kind", sorted(TYPES))
def test_a_name_of_each_length(length: int, kind: int) -> None:
    name = "a/" * (length // 2) + "b" * (length % 2)
    for path in (name, "x" * length):
        header = pack_header(path, kind | 0o644, 0, 1, path if kind in (0, stat.S_IFLNK) else "")
        target = path if kind in (0, stat.S_IFLNK) else ""
        assert header == by_tarfile(path, kind | 0o644, 0, 1, target)
