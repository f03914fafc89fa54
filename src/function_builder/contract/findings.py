"""What a build found out for its author: why it failed, where, and what BuildKit warned of.

These are keys of the last object of an answer, beside those of pro-builder, whose clients ignore
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

MAX_WARNINGS: Final = 100
"""More warnings than these are not told."""


class Reason(StrEnum):
    """What failed. Clients must accept words that they do not know."""

    STEP = "step"
    """A step of the Dockerfile: its command, or what it copies."""
    DOCKERFILE = "dockerfile"
    """The Dockerfile cannot be built as it is written, or breaks its own `# check=error=true`."""
    BASE_IMAGE = "base-image"
    """An image that the Dockerfile names cannot be had."""
    PUSH = "push"
    """The registry did not accept the image, or cannot be reached."""
    CREDENTIAL = "credential"
    """A registry refused the builder's credentials, or they cannot be read."""
    PLATFORM = "platform"
    """BuildKit cannot run a platform's programs."""
    POLICY = "policy"
    """The builder does not allow what was asked for."""
    TIMEOUT = "timeout"
    """The build took longer than `build_timeout`."""
    CANCELLED = "cancelled"
    """The client went away, or the builder was shut down."""
    BUSY = "busy"
    """The build waited for a slot and got none."""
    SERVICE = "service"
    """The builder, or its BuildKit."""


@dataclass(frozen=True, slots=True)
class SourceExcerpt:
    """The instruction at fault.

    Attributes:
        file: the Dockerfile's name.
        line: its first line, counted from 1.
        end_line: its last line.
        excerpt: these lines and some around them, numbered, as `docker buildx` prints them.
    """

    file: str
    line: int
    end_line: int
    excerpt: str

    def to_document(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "file": self.file,
            "line": self.line,
            "endLine": self.end_line,
            "excerpt": self.excerpt,
        }


@dataclass(frozen=True, slots=True)
class BuildWarning:
    """What BuildKit warned of, such as a rule of its linter.

    Attributes:
        message: what is wrong.
        rule: the rule's name, such as `WorkdirRelativePath`; empty where there is none.
        url: where the rule is explained; empty where that is nowhere.
        file: the Dockerfile's name; empty where the warning is of no place.
        line: the line, counted from 1; 0 where the warning is of no place.
    """

    message: str
    rule: str = ""
    url: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        rule = f"{self.rule}: " if self.rule else ""
        place = f" ({self.file}:{self.line})" if self.line else ""
        url = f" {self.url}" if self.url else ""
        return f"{rule}{self.message}{place}{url}"

    def to_document(self) -> dict[str, object]:
        """The JSON form, without what is empty."""
        fields: dict[str, object] = {
            "rule": self.rule,
            "message": self.message,
            "url": self.url,
            "file": self.file,
            "line": self.line,
        }
        return {name: value for name, value in fields.items() if value}


def parse_source(value: object) -> SourceExcerpt | None:
    """Read `source`; None where it is absent or of another form."""
    if not isinstance(value, Mapping):
        return None
    line = _number(value, "line")
    return SourceExcerpt(
        file=_text(value, "file"),
        line=line,
        end_line=max(line, _number(value, "endLine")),
        excerpt=_text(value, "excerpt"),
    )


def parse_warnings(value: object) -> tuple[BuildWarning, ...]:
    """Read `warnings`; those of another form are left out."""
    warnings = value if isinstance(value, list) else []
    return tuple(
        BuildWarning(
            message=_text(each, "message"),
            rule=_text(each, "rule"),
            url=_text(each, "url"),
            file=_text(each, "file"),
            line=_number(each, "line"),
        )
        for each in warnings
        if isinstance(each, Mapping)
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    return str(fields.get(name) or "")


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else 0
