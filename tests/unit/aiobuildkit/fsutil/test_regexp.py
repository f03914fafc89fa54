import time

import pytest

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.regexp import Regexp


@pytest.mark.parametrize(
    ("expression", "matching", "other"),
    [
        ("^a|b$", ["ax", "xb"], ["xax", "bx"]),
        ("^a{2}$", ["aa"], ["a", "aaa"]),
        ("^a{1,2}$", ["a", "aa"], ["", "aaa"]),
        ("^a{2,}$", ["aa", "aaaa"], ["a"]),
        ("^a{,2}$", ["a{,2}"], ["a", "aa"]),
        ("^a{01}$", ["a{01}"], ["a"]),
        ("^(.*/)?b$", ["b", "a/b", "a/a/b"], ["ab", "a/b/", "a\n/b"]),
        ("^[^a]$", ["b", "/", "\n"], ["a", ""]),
        ("^[]a]$", ["]", "a"], ["b"]),
        ("^[a-c-]$", ["b", "-"], ["d"]),
        ("^[[:digit:]x]$", ["1", "x"], ["a", ":"]),
        ("^[[:^digit:]]$", ["a"], ["1"]),
        ("^[\\d\\]]$", ["1", "]"], ["d"]),
        ("^\\w\\S\\D$", ["_!a"], ["! a", "_ a", "_!1"]),
        ("a\\b", ["a", "a!"], ["ab"]),
        ("a\\B", ["ab"], ["a", "a-"]),
        ("\\Aa\\z", ["a"], ["ba", "ab"]),
        ("^\\Qa*\\E*$", ["a", "a***"], ["a*b"]),
        ("^\\Qa.$", ["a.$", "a.$b"], ["a.", "ab$"]),
        ("^\\x41\\x{1F98A}\\101\\t$", ["A🦊A\t"], ["A🦊A"]),
        ("^.$", ["a", "é"], ["\n", ""]),
        ("^(a|)b$", ["ab", "b"], ["aab"]),
    ],
)
def test_an_expression_means_what_it_means_to_go(expression, matching, other):
    regexp = Regexp(expression)
    assert [text for text in matching + other if regexp.search(text)] == matching


@pytest.mark.parametrize(
    "expression",
    [
        *("^a**$", "^|*$", "^a{1001}$", "^a{2,1}$", "^[$", "^[z-a]$", "^[[:word]:]x$", "^\\C$"),
        *("^[[:words:]]$", "^\\8$", "^\\x4$", "^\\x{110000}$", "^\\é$", "^\\p{Greek}$", "(a", "a)"),
        *("^[\\b]$", "^[a-\\d]$", "\\"),
    ],
)
def test_what_go_refuses_is_refused(expression):
    with pytest.raises(BadPattern, match="syntax error in pattern"):
        Regexp(expression)


def test_a_program_is_bounded():
    with pytest.raises(BadPattern, match="pattern too long"):
        Regexp("^a{1000}b{1000}$")


def test_a_hostile_expression_takes_linear_time():
    regexp = Regexp("^" + "[^b]*" * 100 + "b$")
    start = time.process_time()
    assert not regexp.search("a" * 4000)
    assert time.process_time() - start < 10
