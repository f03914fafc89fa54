"""Paths of BuildKit's machine in its errors, which are no business of whoever builds."""

import re
from typing import Final

_BUILDKITS: Final = re.compile(
    r"/(?:cachemounts/buildkit[0-9]+|runc-[a-z-]+(?:/snapshots/snapshots/[0-9]+/fs)?)"
)
"""Where it has mounted the image for a COPY, and where it could write nothing, its disk being full;
what follows is the path in the image or the context."""


def without_host_paths(text: str) -> str:
    """Leave of each such path what lies in the image.

    An error quotes the step that failed, so the text is a tenant's, up to a megabyte of it: each
    of its characters is looked at a few times at most.
    """
    kept = []
    end = 0
    for found in _BUILDKITS.finditer(text):
        word = max(text.rfind(space, end, found.start()) for space in " \t\n") + 1
        begin = text.index("/", max(word, end))
        kept.append(text[end:begin])
        end = found.end()
    return "".join([*kept, text[end:]])
