"""What a request may name: frontends, sources, caches, images and attestations."""

from __future__ import annotations

from dataclasses import dataclass

from function_builder.contract.push_patterns import PushPatterns
from function_builder.settings import values
from function_builder.settings.values import setting


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """A part of `Settings`."""

    allowed_frontends: tuple[str, ...] = setting(
        "allowed_frontends",
        values.frontends,
        ("docker/dockerfile", "docker/dockerfile-upstream"),
        """Images that a `# syntax=` line or BUILDKIT_SYNTAX may name, comma separated, without
        tags. With `NAME@sha256:…`, that image is used for every tag. With `NAME=built-in`,
        BuildKit's own frontend is used instead. Empty: no image is allowed.""",
    )
    local_sources: bool = setting(
        "local_sources",
        values.flag,
        False,
        """Whether ADD, which BuildKit fetches itself, may name BuildKit's own 127.0.0.1,
        link-local addresses, and metadata services.""",
    )
    source_policy: str = setting(
        "source_policy",
        values.text,
        "",
        """A file of rules for the sources that BuildKit may read for a build, or reads elsewhere,
        in the form of `buildctl build --source-policy-file` (docs/policy.md). Empty: no rules.""",
    )
    run_proxy: bool = setting(
        "run_proxy",
        values.flag,
        False,
        """RUN steps reach only HTTP and HTTPS, through a proxy of BuildKit, which applies
        `source_policy` and `local_sources` to each URL (docs/network.md). Needs BuildKit 0.31.""",
    )
    allowed_pushes: PushPatterns = setting(
        "allowed_pushes",
        PushPatterns.parse,
        PushPatterns(),
        """Repositories that images and caches may be pushed to, comma separated, such as
        `registry.internal:5000/apps/**`: `*` is any text within one part of the name, `**` any
        number of parts. Other pushes are refused with 403 before the build. Empty: none.""",
    )
    allowed_caches: tuple[str, ...] = setting(
        "allowed_caches",
        values.words,
        (),
        """Repositories that a request's `cacheFrom` and `cacheTo` may name, including those below
        them, comma separated; `*` allows all. BuildKit trusts what is in a cache, and a shared
        BuildKit uses it for other builds too. Empty: none.""",
    )
    allowed_context_images: tuple[str, ...] = setting(
        "allowed_context_images",
        values.words,
        (),
        """Repositories whose images a request's named contexts may use, including those below them,
        comma separated; `*` allows all. Empty: only folders of the request.""",
    )
    sbom_generator: str = setting(
        "sbom_generator",
        values.text,
        "",
        """The image that makes the SBOM if a request asks for one with `attest`, such as
        `docker.io/docker/buildkit-syft-scanner:stable-1`. It also serves the build argument
        `BUILDKIT_ATTEST_SBOM`. Empty: requests with `attest` are refused.""",
    )
