"""The answer of a build: one JSON object, or a stream of one for each line.

The limit of a line is that of a client: the OpenFaaS Go SDK reads with bufio.Scanner's default
buffer, and treats a line of 64 KiB or more as the end of a successful stream.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from function_builder.contract.answer_signature import SIGNATURE_BYTES
from function_builder.contract.findings import (
    BuildWarning,
    SourceExcerpt,
    parse_source,
    parse_warnings,
)
from function_builder.contract.log import StepText
from function_builder.contract.text import dump_json

MAX_LINE_BYTES: Final = 48 * 1024
"""The most bytes of a line of the stream, including its newline."""

_ENVELOPE_BYTES = 1024
"""The most bytes of a line in addition to its log."""

_MAX_TEXT_BYTES = MAX_LINE_BYTES - _ENVELOPE_BYTES

_MAX_FINDINGS_BYTES = MAX_LINE_BYTES // 2
"""The most bytes of the last line in addition to its error."""


class BuildStatus(StrEnum):
    """A build's state; `failed`, because no known client understands `failure`."""

    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """A whole reply, or one object of a streamed one.

    Attributes:
        status: the build's state.
        image: the requested reference.
        error: why it failed; empty unless failed.
        log: lines without their newline.
        steps: the step of each line, in the form of `StepText`; only streams have them.
        duration: seconds from the request's acceptance.
        digest: of the image or the index, as `sha256:<hex>`; empty without one.
        digests: platform -> the digest of its image; empty if they are not known.
        build_id: the build's ID in the server's log.
        reason: what failed, a word of `Reason`; empty unless failed.
        source: the instruction that failed; None if it is unknown.
        step: the name of the step that failed; empty if it is unknown.
        rule: the source policy's rule that denied a source; empty if none did.
        retryable: whether the same request may succeed later; None if it is unknown.
        warnings: of BuildKit.
        missing: the rows of the request's manifest whose content has to be sent, as pairs of the
            first and the number, if the build ended because of them.
    """

    status: BuildStatus
    image: str = ""
    error: str = ""
    log: Sequence[str] = ()
    steps: Sequence[str] = ()
    duration: float = 0.0
    digest: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    build_id: str = ""
    reason: str = ""
    source: SourceExcerpt | None = None
    step: str = ""
    rule: str = ""
    retryable: bool | None = None
    warnings: Sequence[BuildWarning] = ()
    missing: Sequence[Sequence[int]] = ()

    def raise_for_status(self) -> Self:
        """Return this result, for chained calls.

        Raises:
            BuildFailed: the build failed.
        """
        if self.status is BuildStatus.FAILED:
            raise BuildFailed(self)
        return self

    @property
    def ended(self) -> bool:
        """Whether it is the last one."""
        return self.status is not BuildStatus.IN_PROGRESS

    def to_json(self) -> bytes:
        """The whole reply's body, without a newline."""
        return dump_json(self.to_document())

    def to_document(self) -> dict[str, object]:
        """The whole reply as a JSON object."""
        document: dict[str, object] = {}
        if self.log:
            document["log"] = list(self.log)
        if self.image:
            document["image"] = self.image
        document["status"] = self.status.value
        if self.error:
            document["error"] = self.error
        document["duration"] = round(self.duration, 3)
        if self.digest:
            document["digest"] = self.digest
        if self.digests:
            document["digests"] = dict(self.digests)
        if self.build_id:
            document["buildId"] = self.build_id
        return document | self._findings()

    def to_json_end(self) -> bytes:
        """The part of the whole reply's body after the log, with the comma before it."""
        return b"," + dataclasses.replace(self, log=()).to_json().removeprefix(b"{")

    def _findings(self) -> dict[str, object]:
        document: dict[str, object] = {}
        if self.reason:
            document["reason"] = self.reason
        if self.step:
            document["step"] = self.step
        if self.rule:
            document["rule"] = self.rule
        if self.source is not None:
            document["source"] = self.source.to_document()
        if self.retryable is not None:
            document["retryable"] = self.retryable
        if self.warnings:
            document["warnings"] = [warning.to_document() for warning in self.warnings]
        if self.missing:
            document["missing"] = [list(each) for each in self.missing]
        return document

    def to_last_line(self) -> bytes:
        """The stream's last line, without the log, cut to fit.

        It leaves space for the signature.
        """
        last = dataclasses.replace(self, log=(), error="")
        size = len(last.to_json())
        if size > _MAX_FINDINGS_BYTES and last.digests:
            # Only with hundreds of platforms, whose images the index also names.
            last = dataclasses.replace(last, digests={})
            size = len(last.to_json())
        while size > _MAX_FINDINGS_BYTES and last.warnings:
            last = dataclasses.replace(last, warnings=last.warnings[: len(last.warnings) // 2])
            size = len(last.to_json())
        if size > _MAX_FINDINGS_BYTES:
            last = dataclasses.replace(last, source=None, step="", rule="")
            size = len(last.to_json())
        room = MAX_LINE_BYTES - size - len(',"error":\n') - SIGNATURE_BYTES
        error = _cut(self.error, room)[0]
        return dataclasses.replace(last, error=error).to_json() + b"\n"


class BuildFailed(Exception):
    """A build that ended as failed; `str()` is its error.

    Attributes:
        result: the whole reply.
    """

    def __init__(self, result: BuildResult) -> None:
        super().__init__(result.error or "the build failed")
        self.result = result


def progress_lines(
    log: Iterable[str], duration: float, *, first: int | None = None
) -> Iterator[bytes]:
    """The log as lines of the stream, each under `MAX_LINE_BYTES`.

    An empty log makes one line, the stream's heartbeat, because the Go SDK fails on an empty
    line.

    Args:
        log: lines.
        duration: seconds from the request's acceptance.
        first: the number of the first of them in the whole log. Each line of the stream then says
            as `after` which line it ends with.
    """
    end = b'"status":"in_progress","duration":%.3f' % duration
    after = 0 if first is None else first - 1

    def tail() -> bytes:
        return end + (b"}\n" if first is None else b',"after":%d}\n' % after)

    batch: list[bytes] = []
    steps: list[bytes] = []
    size = 0
    for text in log:
        encoded = _cut(text)[1]
        step = b'"%b"' % text.step.encode() if isinstance(text, StepText) else b'""'
        added = len(encoded) + len(step) + len(",,")
        if batch and size + added > _MAX_TEXT_BYTES:
            yield _progress_line(batch, steps, tail())
            batch, steps, size = [], [], 0
        batch.append(encoded)
        steps.append(step)
        size += added
        after += 1
    yield _progress_line(batch, steps, tail()) if batch else b"{" + tail()


def log_json(lines: Sequence[str]) -> bytes:
    """Lines of the log as items of a JSON array, without its brackets."""
    return dump_json(lines)[1:-1]


def _progress_line(log: Sequence[bytes], steps: Sequence[bytes], tail: bytes) -> bytes:
    known = b'"steps":[%b],' % b",".join(steps) if any(step != b'""' for step in steps) else b""
    return b'{"log":[%b],%b%b' % (b",".join(log), known, tail)


def parse_result(data: bytes | str) -> BuildResult:
    """Read a whole reply or one line of a streamed one.

    Raises:
        ValueError: it is not a build's answer.
    """
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("not a build's answer: nested too deeply") from error
    return result_of(document if isinstance(document, dict) else {})


def result_of(fields: Mapping[str, Any]) -> BuildResult:
    """Read a reply that is a JSON object.

    Raises:
        ValueError: it is not a build's answer.
    """
    log = fields.get("log") or ()
    steps = fields.get("steps")
    duration = fields.get("duration", 0)
    digests = fields.get("digests")
    if not fields or not isinstance(log, list | tuple) or not isinstance(duration, int | float):
        raise ValueError("not a build's answer: no object, or log or duration of a wrong type")
    return BuildResult(
        status=BuildStatus(str(fields.get("status"))),
        image=str(fields.get("image") or ""),
        error=str(fields.get("error") or ""),
        log=tuple(str(line) for line in log),
        steps=tuple(str(step) for step in steps) if isinstance(steps, list) else (),
        duration=float(duration),
        digest=str(fields.get("digest") or ""),
        digests={str(k): str(v) for k, v in digests.items()} if isinstance(digests, dict) else {},
        build_id=str(fields.get("buildId") or ""),
        **_findings(fields),
    )


def _findings(fields: Mapping[str, Any]) -> dict[str, Any]:
    retryable = fields.get("retryable")
    return {
        "reason": str(fields.get("reason") or ""),
        "source": parse_source(fields.get("source")),
        "step": str(fields.get("step") or ""),
        "rule": str(fields.get("rule") or ""),
        "retryable": retryable if isinstance(retryable, bool) else None,
        "warnings": parse_warnings(fields.get("warnings")),
        "missing": parse_ranges(fields.get("missing")),
    }


def parse_ranges(value: object) -> Sequence[Sequence[int]]:
    """The pairs of numbers of `missing`; none if they are anything else."""
    pairs = value if isinstance(value, list) else []
    good = all(
        isinstance(pair, list) and len(pair) == len("01") and all(type(n) is int for n in pair)
        for pair in pairs
    )
    return tuple((first, number) for first, number in pairs) if good else ()


def _cut(text: str, room: int = _MAX_TEXT_BYTES) -> tuple[str, bytes]:
    """Shorten a text until its JSON form fits into `room` bytes; returns both."""
    encoded = dump_json(text)
    if len(encoded) <= room:
        return text, encoded
    while len(encoded) > room:
        # Characters have different encoded sizes, so this may take a few rounds.
        text = text[: len(text) * room // len(encoded) - 2]
        encoded = dump_json(text + "…")
    return text + "…", encoded
