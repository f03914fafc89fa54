"""Where images may be pushed: patterns such as `registry.example.com/acme/**`.

A pattern is a registry and a path. `*` stands for any letters within one part of it, `**` for any
number of parts. It is compared with the full name, in which Docker Hub is `docker.io`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.references import full_repository

_ALL: Final = "**"
_REGISTRY: Final = re.compile(r"\*\*?|(?=.*[.:*]|localhost$)[a-z0-9.*-]+(?::(?:[0-9]+|\*))?")
_PART: Final = re.compile(r"\*\*|(?!.*\*\*)[a-z0-9*]+(?:(?:[._]|__|-+)[a-z0-9*]+)*")


def _check_pattern(text: str) -> str:
    """A pattern that matches something.

    Raises:
        ValueError: it matches nothing, or is not clear; the text says why.
    """
    parts = text.split("/")
    if text != _ALL and (len(parts) < 2 or not _REGISTRY.fullmatch(parts[0])):
        raise ValueError(
            f"{shown(text)} matches nothing: begin with the registry, such as docker.io/acme/**"
        )
    if not all(map(_PART.fullmatch, parts[1:])):
        raise ValueError(
            f"{shown(text)} matches nothing: a repository has lower-case letters, digits and "
            "single separators, and the pattern no tag"
        )
    return text


def _expression(pattern: str) -> str:
    escaped = re.escape(pattern).replace(re.escape(_ALL), ".+")
    return escaped.replace(re.escape("*"), "[^/]*")


@dataclass(frozen=True, slots=True)
class PushPatterns:
    """Patterns of repositories, of which an image must match one.

    Attributes:
        patterns: as they were written.
    """

    patterns: Sequence[str] = (_ALL,)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read patterns that are separated by commas.

        Raises:
            ValueError: one matches nothing.
        """
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        return cls(tuple(map(_check_pattern, words)))

    def check(self, image: str) -> None:
        """Check the reference of an image to push.

        Raises:
            Refusal: 403: it matches no pattern.
        """
        repository = full_repository(image)
        if not any(re.fullmatch(_expression(each), repository) for each in self.patterns):
            offered = f"one of {', '.join(self.patterns)}" if self.patterns else "none"
            raise Refusal(403, f"the image {shown(image)} may not be pushed: {offered} is allowed")
