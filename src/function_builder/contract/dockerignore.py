"""The ignore file of a build context: its limits, and its patterns."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import Final

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.ignorefile import ignore_matcher
from aiobuildkit.fsutil.patternmatcher import Results
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.text import foreign_encoding

IGNORE_FILE: Final = ".dockerignore"
"""The file's name, and the suffix of a Dockerfile's own ignore file, which replaces it."""

MAX_IGNORE_BYTES: Final = 1 << 20
# Usual ignore files have dozens of lines; those of whole organizations have hundreds.
_MAX_LINES: Final = 10_000
# BuildKit reads it with Go's bufio.Scanner, which accepts no longer lines.
_MAX_LINE: Final = (1 << 16) - 1
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


class IgnoreFile:
    """The patterns of an ignore file.

    BuildKit sends each line as a header of one request. Decoding a hundred thousand headers takes
    seconds, during which the event loop is blocked. Headers cannot contain control characters.

    Args:
        content: its bytes; empty without a file.
        path: in the archive, for refusals.

    Raises:
        Refusal: 400: it is too long, or a line cannot be a header, or is not a pattern.
    """

    def __init__(self, content: bytes, path: str) -> None:
        _check(content, path)
        try:
            self._matcher = ignore_matcher(content)
        except BadPattern as error:
            raise Refusal(
                400,
                f"{path} has a pattern that is wrong: {error.reason}: {shown(error.pattern)}."
                " Correct it, or remove it.",
            ) from error
        self._below: dict[str, Results] = {"": self._matcher.top}

    def leaves_out(self, path: str) -> bool:
        """Whether a path of the context is not sent to BuildKit."""
        return self._matcher.matches(path, self._results(path.rpartition("/")[0]))

    def _results(self, directory: str) -> Results:
        """The results of a directory, kept for the next path in it."""
        known = directory
        while known not in self._below:
            known = known.rpartition("/")[0]
        while known != directory:
            end = directory.find("/", len(known) + 1 if known else 0)
            child = directory[:end] if end > 0 else directory
            self._below[child] = self._matcher.results(child, self._below[known])
            known = child
        return self._below[directory]


def _check(content: bytes, path: str) -> None:
    if len(content) > MAX_IGNORE_BYTES or content.count(b"\n") >= _MAX_LINES:
        raise Refusal(
            400,
            f"{path} has {_MAX_LINES} lines or {MAX_IGNORE_BYTES} bytes,"
            " or more: use fewer and wider patterns.",
        )
    if name := foreign_encoding(content):
        raise Refusal(400, f"{path} is {name} text: save it as UTF-8.")
    lines = content.removeprefix(BOM_UTF8).split(b"\n")
    if len(max(lines, key=len)) > _MAX_LINE:
        raise Refusal(
            400,
            f"{path} has a line of more than {_MAX_LINE} bytes,"
            " which BuildKit does not read: use shorter patterns.",
        )
    for number, line in enumerate(lines, 1):
        if _CONTROL.search(line.strip()) and not line.startswith(b"#"):
            raise Refusal(400, f"{path} has a control character in line {number}: remove it.")
