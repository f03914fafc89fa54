"""The sources that a Dockerfile names, as BuildKit writes them, with their lines.

Only BuildKit knows all sources of a build, because a base image has its own ONBUILD instructions
and variables. So this module only explains decisions, and makes none.

Sources: BuildKit, `frontend/dockerfile/parser/parser.go`, `dockerfile2llb/convert.go`,
`dockerfile2llb/convert_copy.go`, `dfgitutil/git_ref.go` and `source/git/identifier.go`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from function_builder.builds.frontends import SYNTAX_ARG, syntax
from function_builder.contract.options import IMAGE_CONTEXT
from function_builder.contract.references import full_repository, split_reference

_ESCAPE: Final = re.compile(r"(?:#[^\n]*\n)*?#\s*escape\s*=\s*`", re.IGNORECASE)
_HEREDOC: Final = re.compile(r"<<-?\s*([\"']?)(\w+)\1")
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+])([^{}]*))?\})")
_SCP: Final = re.compile(r"(?:[\w.-]+@)?([\w.-]+\.[\w.-]+):(?!//)([^#]+)(#.*)?")
_FLAG: Final = re.compile(r"--(\w+)=(\S+)")


@dataclass(frozen=True, slots=True)
class NamedSource:
    """A source that an instruction names.

    Attributes:
        source: as BuildKit writes it, such as `docker-image://docker.io/library/alpine:3`; empty:
            only BuildKit knows it.
        line: the instruction's first line, from 1.
        end_line: its last one.
        text: the word that names it.
    """

    source: str
    line: int
    end_line: int
    text: str


_Values: TypeAlias = dict[str, str | None]
"""Variables; None: the value is not known here."""


def named_sources(
    dockerfile: bytes,
    build_args: Mapping[str, str] | None = None,
    contexts: Mapping[str, str] | None = None,
) -> list[NamedSource]:
    """The sources that a Dockerfile names, in its order.

    Args:
        dockerfile: its bytes.
        build_args: the request's.
        contexts: the request's named contexts, which replace images.
    """
    return list(_Reader(build_args or {}, contexts or {}).read(dockerfile))


def image_source(reference: str) -> str:
    """An image as BuildKit writes it: `alpine` is `docker-image://docker.io/library/alpine:latest`."""
    named, at, digest = reference.partition("@")
    tag = split_reference(named)[1] or ("" if at else "latest")
    return f"docker-image://{full_repository(named)}{tag and f':{tag}'}{at}{digest}"


class _Reader:
    def __init__(self, build_args: Mapping[str, str], contexts: Mapping[str, str]) -> None:
        self._build_args = build_args
        self._contexts = {full_repository(name): source for name, source in contexts.items()}
        # Those before the first FROM, and those of each stage at its last instruction.
        self._arguments: _Values = {}
        self._stages: dict[str, _Values] = {}
        self._values = self._arguments

    def read(self, dockerfile: bytes) -> Iterator[NamedSource]:
        frontend = self._build_args.get(SYNTAX_ARG, "") or syntax(dockerfile)
        text = dockerfile.decode("utf-8", "replace").removeprefix("\ufeff")
        lines = text.split("\n")
        if frontend:
            image = frontend.split(maxsplit=1)[0]
            line = next((n for n, each in enumerate(lines, 1) if image in each), 1)
            yield NamedSource(image_source(image), line, line, image)
        for line, end_line, head, rest in _instructions(lines, _escape(text)):
            for word, source in self._instruction(head, rest):
                yield NamedSource(source, line, end_line, word)

    def _instruction(self, head: str, rest: str) -> Iterator[tuple[str, str]]:
        match head:
            case "from":
                yield from self._from(rest)
            case "arg" | "env":
                self._set(head, rest)
            case "copy" | "add":
                yield from self._copied(head, rest)
            case "run":
                for name, value in _flags(rest):
                    mount = dict(each.partition("=")[::2] for each in value.split(","))
                    if name == "mount" and "from" in mount:
                        yield from self._image(mount["from"])

    def _from(self, rest: str) -> Iterator[tuple[str, str]]:
        words = [word for word in rest.split() if not word.startswith("--")]
        if not words:
            return
        name = self._expanded(words[0], self._arguments)
        base = self._stages.get((name or "").lower())
        self._values = dict(base or {})
        if base is None and name != "scratch":
            yield words[0], self._source(name)
        self._stages[str(len(self._stages))] = self._values
        if len(words) > 2 and words[1].lower() == "as":
            self._stages[words[2].lower()] = self._values

    def _copied(self, head: str, rest: str) -> Iterator[tuple[str, str]]:
        for name, value in _flags(rest):
            if name == "from":
                yield from self._image(value)
        if head != "add":
            return
        for word in _sources(rest):
            url = self._expanded(word, self._values)
            if url is None:
                yield word, ""
            elif source := _remote(url):
                yield word, source

    def _image(self, word: str) -> Iterator[tuple[str, str]]:
        """An image that is not a stage of this Dockerfile."""
        name = self._expanded(word, self._values)
        if (name or "").lower() not in self._stages:
            yield word, self._source(name)

    def _source(self, name: str | None) -> str:
        if not name:
            return ""
        context = self._contexts.get(full_repository(name))
        if context is None:
            return image_source(name)
        image = context.removeprefix(IMAGE_CONTEXT)
        return f"local://{name}" if image == context else image_source(image)

    def _set(self, head: str, rest: str) -> None:
        for word in rest.split() if "=" in rest or head == "arg" else [rest.replace(" ", "=", 1)]:
            name, has_value, value = word.partition("=")
            known = self._expanded(value.strip("\"'"), self._values) if has_value else None
            if head == "arg":
                in_stage = self._values is not self._arguments
                inherited = self._arguments.get(name) if in_stage else None
                known = self._build_args.get(name, known if has_value else inherited)
            self._values[name] = known

    def _expanded(self, word: str, values: _Values) -> str | None:
        """A word with its variables expanded; None if one is unknown."""
        unknown = False

        def value(found: re.Match[str]) -> str:
            nonlocal unknown
            known = values.get(found[1] or found[2])
            match (found[3] or "")[-1:]:
                case "-":
                    return known or found[4]
                case "+":
                    return found[4] if known else ""
            unknown = unknown or known is None
            return known or ""

        expanded = _VARIABLE.sub(value, word)
        return None if unknown or "$" in expanded else expanded


def _escape(text: str) -> str:
    return "`" if _ESCAPE.match(text) else "\\"


def _instructions(lines: list[str], escape: str) -> Iterator[tuple[int, int, str, str]]:
    """Each instruction: its first and last line, its name in lower case, and the rest."""
    number = 0
    while number < len(lines):
        begin = number + 1
        parts: list[str] = []
        continues = True
        while continues and number < len(lines):
            line = lines[number].strip()
            number += 1
            if line and not line.startswith("#"):
                continues = line.endswith(escape)
                parts.append(line.removesuffix(escape) if continues else line)
            elif not parts:
                break
        head, _, rest = "".join(parts).partition(" ")
        end = number
        if head.lower() in ("run", "copy", "add"):
            for _, word in _HEREDOC.findall(rest):
                while number < len(lines) and lines[number].strip() != word:
                    number += 1
                number += 1
        if head:
            yield begin, end, head.lower(), rest.strip()


def _flags(rest: str) -> Iterator[tuple[str, str]]:
    for word in rest.split():
        if not word.startswith("--"):
            return
        if flag := _FLAG.fullmatch(word):
            yield flag[1], flag[2].strip("\"'")


def _sources(rest: str) -> list[str]:
    """The words of ADD without its flags and its target."""
    words = rest.split()
    while words and words[0].startswith("--"):
        del words[0]
    if words and words[0].startswith("["):
        try:
            listed = json.loads(" ".join(words))
        except ValueError:
            listed = []
        words = [word for word in listed if isinstance(word, str)]
    return [word.strip("\"'") for word in words[:-1]]


def _remote(url: str) -> str:
    """A URL or git repository of ADD as BuildKit writes it; empty for a file of the context."""
    scheme, found, _ = url.partition("://")
    if not found:
        scp = _SCP.fullmatch(url)
        return f"git://{scp[1]}/{scp[2].lstrip('/')}{scp[3] or ''}" if scp else ""
    if scheme in ("git", "ssh"):
        return _git(url)
    if scheme not in ("http", "https"):
        return ""
    try:
        path = urlsplit(url).path
    except ValueError:
        return url
    return _git(url) if path.endswith(".git") else url


def _git(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.query:
        # Its branch, tag or checksum, which BuildKit may have to look up.
        return ""
    host = parts.netloc.rpartition("@")[2]
    return f"git://{host}{parts.path}{'#' if parts.fragment else ''}{parts.fragment}"
