"""What BuildKit's errors mean. No other module reads their texts.

BuildKit's texts are not an interface: each pattern names the place that writes the text, and the
tests get the texts from a real BuildKit. An error that matches nothing is still told whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiobuildkit import RPCError, SolveError
from function_builder.builds.frontends import SYNTAX_ARG
from function_builder.contract.findings import Reason, SourceExcerpt
from function_builder.registries.docker_config import BROKEN_CONFIG

NO_MACHINE: Final = b"exec format error"
"""The kernel's ENOEXEC, as runc words it, in the output of a step."""

_METADATA: Final = "failed to resolve source metadata for "
"""The Dockerfile frontend, of an image of FROM or COPY --from."""

_NO_PLATFORM: Final = "no match for platform in manifest"
_PUSH: Final = "failed to push "
"""`exporter/containerimage/export.go`."""

_NOT_ALLOWED: Final = re.compile(r"failed to load LLB: .* is not allowed", re.DOTALL)
"""`solver/llbsolver/vertex.go`, of entitlements."""

_DENIED: Final = " denied by policy: source denied by policy"
"""`sourcepolicy/engine.go`, of what `policy/sources.py` does not allow."""

_BASE_STEP: Final = re.compile(r"\[(?:[^\]]+ )?\d+/\d+\] FROM ")

_REFUSED: Final = re.compile(
    r"401 Unauthorized|403 Forbidden|\bdenied\b|unauthorized|insufficient_scope"
    r"|no basic auth credentials|authorization failed|failed to authorize"
)
"""containerd's `core/remotes/docker` and the errors of registries (OCI distribution-spec)."""

_NOT_THERE_OR_REFUSED: Final = "pull access denied, repository does not exist"
"""containerd, where a registry does not tell the two apart: a misspelled base is more common."""

_TRANSIENT: Final = re.compile(
    r": (?:429|5\d\d) [A-Z]|toomanyrequests|connection refused|connection reset|broken pipe"
    r"|i/o timeout|TLS handshake timeout|unexpected EOF|: EOF\b|network is unreachable"
    r"|no route to host|server misbehaving|context deadline exceeded"
    r"|token service of \S+ cannot be reached"
    r"|: unavailable: |: unknown: internal server error"
)
"""A registry's bad moment, or the network's, as Go's net and containerd word them.

The last line is the code of a registry's JSON, which containerd prints in place of the status.
"""

_NOT_A_MANIFEST: Final = "unexpected media type "
"""`util/pull/pull.go`, where a registry's answer for a tag is of another kind, such as HTML."""

_NOT_THERE: Final = re.compile(r"failed to load cache key: \S+: not found\Z")

_LEFTOVER: Final = re.compile(
    r": failed to rename: rename \S+/snapshots/new-[0-9]+ \S+/snapshots/[0-9]+: file exists\Z"
)

_NO_HEADER: Final = 'header key "followpaths" contains value with non-printable'
"""BuildKit asks for the sources of COPY in a header, which holds no control characters."""

_HEADERS_TOO_LARGE: Final = "header list size to send violates the maximum size"
"""grpc-go's `internal/transport/http2_client.go`, where those headers are too many."""

_MESSAGE_TOO_LARGE: Final = re.compile(
    r"(?:trying to send|received) message larger than max \(\d+ vs\. \d+\)"
)
"""grpc-go's `server.go` and `rpc_util.go`."""

_MEANINGS: Final = {
    _NO_HEADER: (
        "a COPY or ADD has a source with a line break or another control character: "
        "look at the build arguments that it uses"
    ),
    _HEADERS_TOO_LARGE: (
        "the COPY and ADD instructions of the Dockerfile have too many sources, "
        "or too long ones: copy whole folders"
    ),
}

_HOST_PATHS: Final = re.compile(
    r"/(?:cachemounts/buildkit[0-9]+|runc-[a-z-]+(?:/snapshots/snapshots/[0-9]+/fs)?)"
)
"""Where BuildKit has mounted the image for a COPY, and where it could not write because its disk is
full; what follows is the path in the image or the context."""

_CHECKSUM: Final = "failed to calculate checksum of ref "
_ABSENT: Final = re.compile(_CHECKSUM + r"\S+: \"/?(.+)\": not found\Z")
"""`cache/contenthash`, of the source of a COPY or ADD."""

_MAX_ERROR_CHARS: Final = 32 * 1024
"""Of what is told of an error: it quotes the command that failed, which may have a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a build failed, for its client.

    Attributes:
        error: the contract's `error`.
        reason: what failed.
        retryable: whether the same request may succeed later.
        step: the name of the step at fault; empty where none is known.
        source: the instruction at fault.
    """

    error: str
    reason: Reason
    retryable: bool = False
    step: str = ""
    source: SourceExcerpt | None = None


class Remedy(StrEnum):
    """What lets a failed build begin again; the value is a line for its log."""

    BUILT_IN_FRONTEND = (
        "WARNING: the image of the syntax directive cannot be had; "
        "BuildKit's built-in frontend is used instead"
    )
    REPEAT = "BuildKit met what its last end had left, and has removed it: the build begins again."


def find_remedy(message: str) -> Remedy | None:
    """What to do about a failure that is not the build's fault; None: tell it.

    Args:
        message: BuildKit's.
    """
    # Of a frontend's image, the first part is the Dockerfile frontend's own; the second tells why
    # the image did not run.
    if message.startswith(f"failed with build-arg:{SYNTAX_ARG} = ") and _METADATA in message:
        return Remedy.BUILT_IN_FRONTEND
    # A snapshot has its directory before the database that numbers it is written: killed between
    # the two, BuildKit gives the number again, and then removes what was in the way
    # (`createSnapshot` in containerd's `plugins/snapshots/overlay/overlay.go`).
    if _LEFTOVER.search(message):
        return Remedy.REPEAT
    return None


def classify(error: RPCError, step: str) -> tuple[Reason, bool]:
    """What failed, and whether the same request may succeed later.

    Args:
        error: BuildKit's.
        step: the name of the vertex that failed; empty where BuildKit named none.
    """
    reason = _reason(error, step)
    if reason is Reason.SERVICE:
        return reason, True
    of_registry = reason in (Reason.PUSH, Reason.BASE_IMAGE, Reason.CREDENTIAL)
    return reason, of_registry and _TRANSIENT.search(error.message) is not None


class Doubt(StrEnum):
    """What an image's registry says that BuildKit has pushed it to; the value is for the client."""

    NO_REGISTRY = (
        "its host answers as if it had taken the image, but not as a registry: is it a login page?"
    )
    ABSENT = "the registry has taken the image, but says that it does not have it"


def doubt_of_push(message: str) -> Doubt | None:
    """What is wrong with a push that went well; None: nothing that is known for certain.

    Args:
        message: BuildKit's, asked for the image's tag after the push.
    """
    if _NOT_A_MANIFEST in message:
        return Doubt.NO_REGISTRY
    return Doubt.ABSENT if _NOT_THERE.match(message) else None


def is_denied(message: str) -> bool:
    """Whether BuildKit was told not to read a source that the Dockerfile names."""
    return message.endswith(_DENIED)


def absent_file(message: str) -> str | None:
    """The path in the context that a COPY or ADD names and BuildKit did not find."""
    # From the last place: where an author has written it often, a search takes the square of that.
    found = _ABSENT.search(message, max(message.rfind(_CHECKSUM), 0))
    return found[1] if found else None


def near_miss(absent: str, paths: Iterable[str]) -> str | None:
    """Which of the context's paths was meant by one that BuildKit did not find.

    The path itself, if it is there and BuildKit was not given it; else one that differs in the
    case of letters or in backslashes alone, or else in its folders alone.
    """
    wanted = absent.lower()
    ending = "/" + wanted.rpartition("/")[2]
    other_case = elsewhere = None
    for path in paths:
        if path == absent:
            return path
        # A name that a program on Windows wrote is one name, with backslashes.
        lower = path.lower().replace("\\", "/")
        if lower == wanted:
            other_case = path
        elif elsewhere is None and f"/{lower}".endswith(ending):
            elsewhere = path
    return other_case or elsewhere


def with_meaning(text: str) -> str:
    """Add what an error of BuildKit's protocol means to the author of a Dockerfile."""
    if _MESSAGE_TOO_LARGE.search(text):
        return (
            f"{text}: the steps of the Dockerfile are too large for BuildKit's messages: "
            "make the instructions, and the values of ARG and ENV that they use, shorter"
        )
    meaning = next((meaning for said, meaning in _MEANINGS.items() if said in text), "")
    return f"{text}: {meaning}" if meaning else text


def shortened(text: str) -> str:
    """Leave out the middle of a long error: its end says how the command at its beginning ended."""
    left_out = len(text) - _MAX_ERROR_CHARS
    if left_out <= 0:
        return text
    half = _MAX_ERROR_CHARS // 2
    return f"{text[:half]} … ({left_out} characters left out) … {text[-half:]}"


def without_host_paths(text: str) -> str:
    """Leave of each path of BuildKit's machine what lies in the image.

    An error quotes the step that failed, so the text is a tenant's, up to a megabyte of it: each
    of its characters is looked at a few times at most.
    """
    kept = []
    end = 0
    for found in _HOST_PATHS.finditer(text):
        word = max(text.rfind(space, end, found.start()) for space in " \t\n") + 1
        begin = text.index("/", max(word, end))
        kept.append(text[end:begin])
        end = found.end()
    return "".join([*kept, text[end:]])


def _reason(error: RPCError, step: str) -> Reason:
    message = error.message
    frontend = isinstance(error, SolveError) and error.in_frontend
    if is_denied(message):
        return Reason.POLICY
    if _HEADERS_TOO_LARGE in message or _MESSAGE_TOO_LARGE.search(message):
        # In a step's error it may stand in the step's own text.
        return Reason.STEP if isinstance(error, SolveError) and error.vertex else Reason.DOCKERFILE
    if message.startswith(_PUSH):
        reason = Reason.PUSH
    elif _NO_PLATFORM in message or _BASE_STEP.match(step) or (frontend and _METADATA in message):
        reason = Reason.BASE_IMAGE
    elif frontend:
        reason = Reason.DOCKERFILE
    elif isinstance(error, SolveError) and error.vertex:
        reason = Reason.STEP
    else:
        reason = Reason.POLICY if _NOT_ALLOWED.match(message) else Reason.SERVICE
    if BROKEN_CONFIG in message:
        return Reason.CREDENTIAL
    if reason is Reason.BASE_IMAGE and _NOT_THERE_OR_REFUSED in message:
        return reason
    if reason in (Reason.PUSH, Reason.BASE_IMAGE) and not _TRANSIENT.search(message):
        # A token service that is away has refused nothing.
        return Reason.CREDENTIAL if _REFUSED.search(message) else reason
    return reason
