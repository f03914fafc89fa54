"""The ignore file of a build context: held to what BuildKit can use, and matched before it does."""

import re
from codecs import BOM_UTF8
from typing import Final

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.ignorefile import ignore_matcher
from aiobuildkit.fsutil.patternmatcher import Results
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.text import foreign_encoding

IGNORE_FILE: Final = ".dockerignore"
"""The file's name, and the ending of the one that belongs to a Dockerfile and replaces it."""

MAX_IGNORE_BYTES: Final = 1 << 20
# An ignore file has dozens of lines; those that were written for whole organisations, hundreds.
_MAX_LINES: Final = 10_000
# BuildKit reads it with Go's bufio.Scanner, which takes no longer ones.
_MAX_LINE: Final = (1 << 16) - 1
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


class IgnoreFile:
    """The patterns of an ignore file.

    BuildKit sends each of its lines back as a header of one request, and a hundred thousand headers
    take seconds to decode, in which nothing else is served. Headers hold no control characters.

    Args:
        content: its bytes; empty for no file.
        path: in the archive, for refusals.

    Raises:
        Refusal: 400: it is too long, or a line cannot be sent back or is not a pattern.
    """

    def __init__(self, content: bytes, path: str) -> None:
        _check(content, path)
        try:
            self._matcher = ignore_matcher(content)
        except BadPattern as error:
            raise Refusal(
                400,
                f"{path} has a pattern that is wrong: {error.reason}: {shown(error.pattern)}."
                " Mend it, or remove it.",
            ) from error
        self._below: dict[str, Results] = {"": self._matcher.top}

    def leaves_out(self, path: str) -> bool:
        """Whether BuildKit is not sent a path of the context."""
        return self._matcher.matches(path, self._results(path.rpartition("/")[0]))

    def _results(self, directory: str) -> Results:
        """What matched a directory, held for the next path in it."""
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
