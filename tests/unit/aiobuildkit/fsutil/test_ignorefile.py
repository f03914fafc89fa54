import pytest

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.ignorefile import IgnoreLine, ignore_lines, ignore_matcher


def test_an_ignore_file_is_read_as_buildkit_reads_it() -> None:
    """Source: ReadAll of moby/patternmatcher's ignorefile.go, and its own test."""
    content = (
        b"\xef\xbb\xbftest1\r\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n"
        b"! /inverted/abs/path\n!\n! \n  # no comment\n a/../b/ \n/\ncaf\xe9"
    )
    assert ignore_lines(content) == [
        IgnoreLine(1, "test1"),
        IgnoreLine(2, "test2"),
        IgnoreLine(3, "a/file/here"),
        IgnoreLine(5, "lastfile"),
        IgnoreLine(7, "!inverted/abs/path"),
        IgnoreLine(8, "!"),
        IgnoreLine(9, "!"),
        IgnoreLine(10, "# no comment"),
        IgnoreLine(11, "b"),
        IgnoreLine(12, "/"),
        IgnoreLine(13, "caf\udce9"),
    ]
    assert ignore_lines(b"") == []


def test_a_wrong_line_is_named() -> None:
    with pytest.raises(BadPattern, match=r"^line 2: .*: \[b-a\]$"):
        ignore_matcher(b"a\n[b-a]\n")
    with pytest.raises(BadPattern, match=r"^line 1 is longer than 65535 bytes"):
        ignore_lines(b"x" * 65536)
    assert ignore_lines(b"x" * 65535)
    with pytest.raises(BadPattern, match="take turns more than 1000 times"):
        ignore_matcher(b"a\n!a\n" * 600)
