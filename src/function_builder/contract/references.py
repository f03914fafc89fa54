"""Image references: their grammar and their parts."""

from __future__ import annotations

import re

from function_builder.contract.errors import Refusal, shown

# The grammar of github.com/distribution/reference, without digests.
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"(?:{_DOMAIN}/)?{_PATH_PART}(?:/{_PATH_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_REPOSITORY = 255


def split_reference(reference: str) -> tuple[str, str]:
    """Split a reference at its tag: `("host:5000/name", "tag")`; the tag may be empty."""
    head, colon, tail = reference.rpartition(":")
    if not colon or "/" in tail:
        return reference, ""
    return head, tail


def full_repository(reference: str) -> str:
    """A reference's repository in full: `docker/fn:1` is `docker.io/docker/fn`."""
    repository = split_reference(reference.partition("@")[0])[0].lower()
    first, slash, _ = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return re.sub(r"^(index|registry-1)\.docker\.io/", "docker.io/", repository)
    return f"docker.io/{repository if slash else 'library/' + repository}"


def normalise_pulled(reference: str) -> str:
    """Like `normalise_reference`, for a pull: it may have a digest.

    Raises:
        Refusal: 400.
    """
    named, at, digest = reference.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise Refusal(400, f"image {shown(reference)}: the digest must be sha256: and 64 digits")
    return normalise_reference(named) + at + digest


def normalise_reference(reference: str) -> str:
    """Convert the repository to lower case, and check the grammar.

    Source: github.com/distribution/reference. A digest is refused, because an image cannot be
    pushed to a digest.

    Raises:
        Refusal: 400.
    """
    name = shown(reference)
    if "," in reference:
        raise Refusal(400, f"image {name}: one image is built by a request, so no comma")
    if "@" in reference:
        raise Refusal(400, f"image {name}: a digest cannot be pushed to: name a tag instead")
    repository, tag = split_reference(reference)
    repository = repository.lower()
    # The length first, because a megabyte would take the expression a second, in the event loop.
    # ASCII is checked first too, because the lower case of some other letters is ASCII (the Kelvin
    # sign).
    valid = (
        reference.isascii()
        and len(repository) <= _MAX_REPOSITORY
        and _REPOSITORY.fullmatch(repository)
    )
    if not valid or (tag and not _TAG.fullmatch(tag)) or reference.endswith(":"):
        raise Refusal(400, f"image {name}: not a valid reference, such as host:5000/name:tag")
    return f"{repository}:{tag}" if tag else repository
