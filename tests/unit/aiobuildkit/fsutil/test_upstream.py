"""What patterns mean, and which files they leave, by the answers of upstream's own code.

`upstream.json` is written by `tests/tools/upstream`.
"""

import json
from pathlib import Path

import pytest

from aiobuildkit.fsutil.filepath import BadPattern, Glob
from aiobuildkit.fsutil.filter import Wanted, select
from aiobuildkit.fsutil.patternmatcher import PatternMatcher
from aiobuildkit.fsutil.sender import SYMLINK, Entry, Sender
from aiobuildkit.protos.fsutil_pb2 import Packet

VECTORS = [
    (vector["question"], vector["answer"])
    for vector in json.loads((Path(__file__).parent / "upstream.json").read_text())
]
GLOBS = [vector for vector in VECTORS if "glob" in vector[0]]
TREES = [vector for vector in VECTORS if "tree" in vector[0]]
PATTERNS = [vector for vector in VECTORS if vector not in GLOBS and vector not in TREES]


def matches(matcher: PatternMatcher, path: str) -> bool:
    results = matcher.top
    names = path.split("/")
    for depth in range(1, len(names)):
        results = matcher.results("/".join(names[:depth]), results)
    return matcher.matches(path, results)


def entries(tree):
    """The entries of a question, where hard links are marked by their first name."""
    groups = {entry["linkname"] for entry in tree if not entry["mode"] & SYMLINK} - {""}
    for entry in tree:
        path, mode, linkname = entry["path"], entry["mode"], entry["linkname"]
        if mode & SYMLINK:
            yield Entry(path, mode, target=linkname)
        else:
            grouped = {linkname, path} & groups
            yield Entry(path, mode, link_group=len(groups) if grouped else 0)


def announced(sender: Sender, entry: Entry) -> dict[str, object]:
    stat = Packet.FromString(sender.announce(entry)).stat
    return {"path": stat.path, "mode": stat.mode, "linkname": stat.linkname}


def test_every_kind_of_question_was_asked():
    assert min(len(GLOBS), len(TREES), len(PATTERNS)) >= 100
    assert sum("refused" in answer for _, answer in VECTORS) >= 50


@pytest.mark.parametrize(("question", "answer"), PATTERNS)
def test_patterns_match_as_upstream(question, answer):
    if answer.get("refused"):
        with pytest.raises(BadPattern):
            PatternMatcher(question["patterns"])
    else:
        matcher = PatternMatcher(question["patterns"])
        assert [matches(matcher, path) for path in question["paths"]] == answer["matched"]


@pytest.mark.parametrize(("question", "answer"), GLOBS)
def test_globs_match_as_upstream(question, answer):
    glob = Glob(question["glob"])
    (name,) = question["paths"]
    if answer.get("refused"):
        with pytest.raises(BadPattern):
            glob.matches(name)
    else:
        assert [glob.matches(name)] == answer["matched"]


@pytest.mark.parametrize(("question", "answer"), TREES)
def test_a_call_gets_what_upstream_sends(question, answer):
    wanted = Wanted(
        include=tuple(question["include"]),
        exclude=tuple(question["patterns"]),
        follow=tuple(question["follow"] or ()),
    )
    walk = select(list(entries(question["tree"])), wanted)
    if answer.get("refused"):
        with pytest.raises(BadPattern):
            list(walk)
    else:
        sender = Sender()
        given = [announced(sender, entry) for entry in walk if entry is not None]
        assert given == answer.get("selected", [])
