"""The findings of a build for its author: why and where it failed, and BuildKit's warnings.

These are additional keys of the last object of an answer. pro-builder's clients ignore them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

MAX_WARNINGS: Final = 100
"""The most warnings in an answer."""


class Reason(StrEnum):
    """What failed. Clients must accept unknown values."""

    STEP = "step"
    """A step of the Dockerfile: its command, or what it copies."""
    DOCKERFILE = "dockerfile"
    """The Dockerfile is invalid, or violates its own `# check=error=true`."""
    BASE_IMAGE = "base-image"
    """An image that the Dockerfile names cannot be pulled."""
    PUSH = "push"
    """The registry did not accept the image, or cannot be reached."""
    CREDENTIAL = "credential"
    """A registry refused the builder's credentials, or they cannot be read."""
    PLATFORM = "platform"
    """BuildKit cannot run a platform's programs."""
    POLICY = "policy"
    """The builder does not allow an operation."""
    TIMEOUT = "timeout"
    """The build took longer than `build_timeout`."""
    CANCELLED = "cancelled"
    """The client disconnected, or the builder was shut down."""
    BUSY = "busy"
    """The build waited for a slot and got none."""
    SERVICE = "service"
    """The builder, or its BuildKit."""


@dataclass(frozen=True, slots=True)
class SourceExcerpt:
    """The instruction that failed.

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
    """A warning of BuildKit, such as a rule of its linter.

    Attributes:
        message: the text.
        rule: the rule's name, such as `WorkdirRelativePath`; empty without one.
        url: of the rule's description; empty without one.
        file: the Dockerfile's name; empty if the warning has no place.
        line: the line, counted from 1; 0 if the warning has no place.
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
        """The JSON form, without empty values."""
        fields: dict[str, object] = {
            "rule": self.rule,
            "message": self.message,
            "url": self.url,
            "file": self.file,
            "line": self.line,
        }
        return {name: value for name, value in fields.items() if value}


def parse_source(value: object) -> SourceExcerpt | None:
    """Read `source`; None if it is absent or has another form."""
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
    """Read `warnings`, without those of another form."""
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
