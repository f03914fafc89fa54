"""Classify BuildKit's errors. No other module reads their texts.

BuildKit's texts are not an interface. So each pattern names the code that writes the text, and the
tests get the texts from a real BuildKit. An error that no pattern matches is reported unchanged.
"""

from __future__ import annotations

import json
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
"""The kernel's ENOEXEC in runc's text, in the output of a step."""

_METADATA: Final = "failed to resolve source metadata for "
"""The Dockerfile frontend's text about an image of FROM or COPY --from."""

_NO_PLATFORM: Final = "no match for platform in manifest"
_PUSH: Final = "failed to push "
"""`exporter/containerimage/export.go`."""

_NOT_ALLOWED: Final = re.compile(
    r"failed to load LLB: (?:.* is not allowed"
    r"|CDI device .*, but CDI device support is disabled\Z"
    r"|devices? .* requested by the build but not allowed\Z"
    r"|required device .* is not registered\Z)",
    re.DOTALL,
)
"""`solver/llbsolver/vertex.go` and `cdidevices/manager.go`, about entitlements and devices."""

_DENIED: Final = re.compile(
    r'source ("(?:[^"\\]|\\.)*") denied by policy: source denied by policy\Z'
)
"""`sourcepolicy/engine.go`, about a source of a build's policy."""

_TOO_MANY: Final = "too many mutations on a single source: too many operations"
"""The same, about rules that convert a source endlessly."""

_BASE_STEP: Final = re.compile(r"\[(?:[^\]]+ )?\d+/\d+\] FROM ")

_REFUSED: Final = re.compile(
    r"401 Unauthorized|403 Forbidden|\bdenied\b|unauthorized|insufficient_scope"
    r"|no basic auth credentials|authorization failed|failed to authorize"
)
"""containerd's `core/remotes/docker` and the errors of registries (OCI distribution-spec)."""

_NOT_THERE_OR_REFUSED: Final = "pull access denied, repository does not exist"
"""containerd's text if a registry does not distinguish them. A misspelled base is more common."""

_TRANSIENT: Final = re.compile(
    r": (?:429|5\d\d) [A-Z]|toomanyrequests|connection refused|connection reset|broken pipe"
    r"|i/o timeout|TLS handshake timeout|unexpected EOF|: EOF\b|network is unreachable"
    r"|no route to host|server misbehaving|context deadline exceeded"
    r"|token service of \S+ cannot be reached"
    r"|: unavailable: |: unknown: internal server error"
)
"""Temporary errors of a registry or the network, in the texts of Go's net and containerd.

The last line is the code in a registry's JSON, which containerd prints instead of the status.
"""

_NOT_A_MANIFEST: Final = "unexpected media type "
"""containerd's `core/images/image.go`, if the answer for a tag has another type, such as HTML."""

_NOT_THERE: Final = re.compile(r"failed to load cache key: \S+: not found\Z")

_LEFTOVER: Final = re.compile(
    r": failed to rename: rename \S+/snapshots/new-[0-9]+ \S+/snapshots/[0-9]+: file exists\Z"
)

_NO_HEADER: Final = 'header key "followpaths" contains value with non-printable'
"""BuildKit sends the sources of COPY in headers, which cannot contain control characters."""

_HEADERS_TOO_LARGE: Final = "header list size to send violates the maximum size"
"""grpc-go's `internal/transport/http2_client.go`, if there are too many of these headers."""

_OLD_FRONTEND: Final = "unsupported frontend capability moby.buildkit.frontend.inputs"
"""`solver/errdefs/frontendcap.go`, about an image that a `# syntax=` line names by digest."""

_ERROR_TOO_LARGE: Final = "the call was reset by the peer with HTTP/2 error code 2"
"""`aiobuildkit/rpc/framing.py`. grpc-go's `internal/transport/http2_server.go` resets a call with
INTERNAL_ERROR if its error exceeds our limit of headers. The error quotes the Dockerfile."""

_NO_GIT: Final = "failed to load cache key: unknown scheme git: not found"
"""`source/manager.go`. BuildKit looks for git only when it starts (`source/git/source.go`)."""

_NO_XZ: Final = 'exec: "xz": executable file not found in $PATH'
"""go-archive's `compression/compression.go`: it has a decoder for each other compression of ADD."""

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
    _OLD_FRONTEND: (
        "the image of the syntax line is too old for this builder: name a newer one, "
        "such as docker/dockerfile:1"
    ),
    _ERROR_TOO_LARGE: (
        "BuildKit's error is too large, because it quotes the Dockerfile: "
        "make the Dockerfile shorter to see the error"
    ),
    _NO_GIT: (
        "BuildKit's machine had no git when BuildKit started: "
        "ask the builder's operator to install git, and to restart BuildKit"
    ),
    _NO_XZ: (
        "BuildKit's machine has no xz, which unpacks this archive: "
        "compress it with gzip or zstd, or ask the builder's operator to install xz-utils"
    ),
}

_HOST_PATHS: Final = re.compile(
    r"/(?:cachemounts/buildkit[0-9]+|runc-[a-z-]+(?:/snapshots/snapshots/[0-9]+/fs)?)"
)
"""Paths at which BuildKit mounts the image for a COPY, and to which it could not write because its
disk is full. The path in the image or the context follows."""

_CHECKSUM: Final = "failed to calculate checksum of ref "
_ABSENT: Final = re.compile(_CHECKSUM + r"\S+: \"/?(.+)\": not found\Z")
"""`cache/contenthash`, about the source of a COPY or ADD."""

_MAX_ERROR_CHARS: Final = 32 * 1024
"""The longest reported error: it quotes the failed command, which may have a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a build failed, for its client.

    Attributes:
        error: the contract's `error`.
        reason: what failed.
        retryable: whether the same request may succeed later.
        step: the name of the step that failed; empty if it is unknown.
        rule: the source policy's rule that denied a source; empty if none did.
        source: the instruction that failed.
        note: a line for the log that explains it; empty: none.
    """

    error: str
    reason: Reason
    retryable: bool = False
    step: str = ""
    rule: str = ""
    source: SourceExcerpt | None = None
    note: str = ""


class Remedy(StrEnum):
    """Why a failed build is retried; the value is a line for its log."""

    BUILT_IN_FRONTEND = (
        "WARNING: the image of the syntax directive cannot be pulled; "
        "BuildKit's built-in frontend is used instead"
    )
    REPEAT = "BuildKit removed a stale snapshot: retrying the build."


def find_remedy(message: str) -> Remedy | None:
    """The retry for a failure that is not the build's fault; None: report it.

    Args:
        message: BuildKit's.
    """
    if denied_source(message) is not None:
        return None
    # For a frontend's image, the first part is from the Dockerfile frontend. The second says why
    # the image did not run.
    if message.startswith(f"failed with build-arg:{SYNTAX_ARG} = ") and _METADATA in message:
        return Remedy.BUILT_IN_FRONTEND
    # BuildKit creates a snapshot's directory before it writes its number to the database. If it is
    # killed in between, it uses the number again, and then removes the existing directory
    # (`createSnapshot` in containerd's `plugins/snapshots/overlay/overlay.go`).
    if _LEFTOVER.search(message):
        return Remedy.REPEAT
    return None


def classify(error: RPCError, step: str) -> tuple[Reason, bool]:
    """What failed, and whether the same request may succeed later.

    Args:
        error: BuildKit's error.
        step: the name of the vertex that failed; empty if BuildKit named none.
    """
    reason = _reason(error, step)
    if reason is Reason.SERVICE:
        return reason, True
    of_registry = reason in (Reason.PUSH, Reason.BASE_IMAGE, Reason.CREDENTIAL)
    return reason, of_registry and _TRANSIENT.search(error.message) is not None


class Doubt(StrEnum):
    """Why an image is not in its registry after a push; the value is the error for the client."""

    NO_REGISTRY = (
        "its host accepted the image, but does not answer like a registry: is it a login page?"
    )
    ABSENT = "the registry accepted the image, but says that it does not have it"


def doubt_of_push(message: str) -> Doubt | None:
    """The fault of a push that BuildKit reported as successful; None without proof of a fault.

    Args:
        message: BuildKit's error for a request of the image's tag after the push.
    """
    if _NOT_A_MANIFEST in message:
        return Doubt.NO_REGISTRY
    return Doubt.ABSENT if _NOT_THERE.match(message) else None


def denied_source(message: str) -> str | None:
    """The source that the source policy denied, as BuildKit writes it; None: it denied none."""
    # The source is quoted as Go does it, which for what a URL may have is as JSON does it.
    found = _DENIED.search(message, max(message.rfind('source "'), 0))
    if found is None:
        return None
    try:
        return str(json.loads(found[1]))
    except ValueError:
        return found[1]


def absent_file(message: str) -> str | None:
    """The context path of a COPY or ADD that BuildKit did not find."""
    # From the last occurrence: with many occurrences, a search would take quadratic time.
    found = _ABSENT.search(message, max(message.rfind(_CHECKSUM), 0))
    return found[1] if found else None


def near_miss(absent: str, paths: Iterable[str]) -> str | None:
    """The context's path that was probably meant by one that BuildKit did not find.

    The path itself, if it exists and was not sent to BuildKit. Otherwise one that only differs in
    case or backslashes, or otherwise one that only differs in its folders.
    """
    wanted = absent.lower()
    ending = "/" + wanted.rpartition("/")[2]
    other_case = elsewhere = None
    for path in paths:
        if path == absent:
            return path
        # A name from a program on Windows is one name with backslashes.
        lower = path.lower().replace("\\", "/")
        if lower == wanted:
            other_case = path
        elif elsewhere is None and f"/{lower}".endswith(ending):
            elsewhere = path
    return other_case or elsewhere


def with_meaning(text: str) -> str:
    """Add an explanation for the Dockerfile's author to an error of BuildKit's protocol."""
    if _MESSAGE_TOO_LARGE.search(text):
        return (
            f"{text}: the steps of the Dockerfile are too large for BuildKit's messages: "
            "make the instructions, and the values of ARG and ENV that they use, shorter"
        )
    meaning = next((meaning for said, meaning in _MEANINGS.items() if said in text), "")
    return f"{text}: {meaning}" if meaning else text


def is_too_large(error: RPCError) -> bool:
    """Whether BuildKit did not send its error because of its size."""
    return error.message == _ERROR_TOO_LARGE


def shortened(text: str) -> str:
    """Cut the middle of a long error: it begins with the command, and ends with its result."""
    left_out = len(text) - _MAX_ERROR_CHARS
    if left_out <= 0:
        return text
    half = _MAX_ERROR_CHARS // 2
    return f"{text[:half]} … ({left_out} characters left out) … {text[-half:]}"


def without_host_paths(text: str) -> str:
    """Shorten each path of BuildKit's machine to the part in the image.

    An error quotes the failed step, so up to a megabyte of the text is a tenant's. Each character
    is read a few times at most.
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
    if denied_source(message) is not None or message.endswith(_TOO_MANY):
        return Reason.POLICY
    too_large = _HEADERS_TOO_LARGE in message or _MESSAGE_TOO_LARGE.search(message)
    if too_large or is_too_large(error):
        # In a step's error it may be in the step's own text.
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
        # An unreachable token service is not a refusal.
        return Reason.CREDENTIAL if _REFUSED.search(message) else reason
    return reason
