"""What an ignore file and a COPY leave of a tree: against BuildKit's own code, where it is at hand.

The input is text: patterns to exclude, patterns to include, paths to follow, and the tree, a line
each and an empty line between them. A path of the tree that ends in a slash is a directory, one
with ` -> ` a symbolic link.

Two judges know better. Most patterns are matched by Python's expressions, and by our translation of
Go's, which must agree. And if tests/tools/upstream is on PATH, it is asked the same question.
"""

import json
import re
import shutil
import subprocess
from functools import cache
from typing import Any

from aiobuildkit.fsutil.expressions import go_expression, python_expression
from aiobuildkit.fsutil.filepath import BadPattern, clean
from aiobuildkit.fsutil.filter import Wanted, pieces
from aiobuildkit.fsutil.patternmatcher import PatternMatcher
from aiobuildkit.fsutil.regexp import Regexp
from aiobuildkit.fsutil.sender import DIRECTORY, SYMLINK, Entry, order

_MAX_PATHS = 30


def run(data: bytes) -> None:
    """Select from the tree, and match its paths one by one."""
    parts = [part.split("\n") for part in data.decode("utf-8", "replace").split("\n\n")]
    exclude, include, follow, lines = (*parts, *([""],) * 4)[:4]
    tree = _tree(lines)
    # BuildKit's frontend takes the way up out of sources before it names them to anybody.
    inside = [path for path in follow if path and not clean(f"./{path}").startswith("..")]
    _select(tree, Wanted("", tuple(filter(None, include)), tuple(exclude), tuple(inside)))
    _match(exclude, [entry.path for entry in tree])
    for pattern in exclude:
        _translate(pattern, [entry.path for entry in tree])


def _tree(lines: list[str]) -> list[Entry]:
    """The tree's entries, of which each has its parents."""
    tree: dict[str, Entry] = {}
    for line in lines[:_MAX_PATHS]:
        path, link, target = line.partition(" -> ")
        name = clean(f"/{path}")[1:]
        if not name or "\0" in line or any(name.startswith(f"{other}/") for other in _files(tree)):
            continue
        parents = [name[: found.start()] for found in re.finditer("/", name)]
        mode = SYMLINK if link and target else DIRECTORY if path.endswith("/") else 0
        for parent in parents:
            tree.setdefault(parent, Entry(parent, DIRECTORY | 0o755))
        tree.setdefault(name, Entry(name, mode | 0o644, target=target if mode == SYMLINK else ""))
    return sorted(tree.values(), key=lambda entry: order(entry.path))


def _files(tree: dict[str, Entry]) -> list[str]:
    return [path for path, entry in tree.items() if not entry.is_directory]


def _select(tree: list[Entry], wanted: Wanted) -> None:
    try:
        selected = [entry for piece in pieces(tree, wanted) for entry in piece]
    except BadPattern as error:
        assert str(error)
        return
    paths = [entry.path for entry in selected]
    assert paths == sorted(set(paths), key=order)
    assert all(path.rpartition("/")[0] in {*paths, ""} for path in paths)
    asked = [{"path": entry.path, "mode": entry.mode, "linkname": entry.target} for entry in tree]
    answer = upstream(
        {
            "tree": asked,
            "patterns": wanted.exclude,
            "include": wanted.include,
            "follow": wanted.follow or None,
        }
    )
    if asked and answer is not None:
        assert not answer.get("refused"), answer
        assert [entry["path"] for entry in answer.get("selected") or ()] == paths


def _match(patterns: list[str], paths: list[str]) -> None:
    try:
        matcher = PatternMatcher(patterns)
    except BadPattern as error:
        assert str(error)
        return
    matched = []
    for path in paths:
        results = matcher.top
        for found in re.finditer("/", path):
            results = matcher.results(path[: found.start()], results)
        matched.append(matcher.matches(path, results))
    answer = upstream({"patterns": patterns, "paths": paths})
    if paths and answer is not None:
        assert not answer.get("refused"), answer
        assert answer["matched"] == matched


def _translate(pattern: str, paths: list[str]) -> None:
    expression = python_expression(pattern)
    if expression is None:
        return
    try:
        regexp = Regexp(go_expression(pattern))
    except BadPattern:
        # Too long, or a mistake that PatternMatcher looks for first.
        return
    for path in paths:
        if "\n" not in path:
            assert regexp.search(path) is (re.fullmatch(expression, path) is not None), path


@cache
def _process() -> "subprocess.Popen[str] | None":
    program = shutil.which("upstream")
    if program is None:
        return None
    pipe = subprocess.PIPE
    # Go's text/scanner complains there of characters that it takes all the same.
    return subprocess.Popen(
        [program], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    )


def upstream(question: dict[str, Any]) -> dict[str, Any] | None:
    """What BuildKit's own code answers; None if it is not at hand."""
    process = _process()
    if process is None:
        return None
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer
