"""What a request may name beyond its own files."""

import dataclasses

import pytest

from function_builder.builds.options import publishes_arguments
from function_builder.contract.config import BuildConfig
from function_builder.contract.errors import Refusal
from function_builder.contract.options import Attest
from function_builder.policy.policy import Policy
from function_builder.settings import Settings

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "config",
    [
        BuildConfig(cache_from=("docker.io/a/b",)),
        BuildConfig(cache_to=("type=registry,ref=r:5000/a,mode=max",)),
        BuildConfig(contexts={"a": "docker-image://r:5000/a:1"}),
        BuildConfig(attest=Attest(sbom=True)),
    ],
)
def test_nothing_is_allowed_by_default(config):
    settings = Settings()
    policy = Policy(
        caches=settings.allowed_caches,
        context_images=settings.allowed_context_images,
        sbom_generator=settings.sbom_generator,
    )
    with pytest.raises(Refusal) as caught:
        policy.check(config)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("allowed", "reference", "good"),
    [
        ("r:5000/a", "r:5000/a", True),
        ("r:5000/a", "r:5000/a:1", True),
        ("r:5000/a", f"r:5000/a:1@{DIGEST}", True),
        ("r:5000/a/", "r:5000/a/b/c:1", True),
        ("R:5000/A", "r:5000/a/b", True),
        ("r:5000/a", "r:5000/ab", False),
        ("r:5000/a", "r:5000/b", False),
        ("r:5000/a", "r:50001/a", False),
        ("r:5000/a", "evil.invalid/r/a", False),
        ("r:5000", "r:5000/a/b:1", True),
        ("r:5000", "r:50001/a", False),
        ("r.internal", "r.internal/a", True),
        ("r.internal", "r.internal.evil/a", False),
        ("localhost", "localhost/a", True),
        ("docker.io", "a/b", True),
        ("docker.io/me", "me/fn:1", True),
        ("me/fn", "index.docker.io/me/fn", True),
        ("alpine", "docker.io/library/alpine:3", True),
        ("alpine", "docker.io/other/alpine:3", False),
        ("*", "r:5000/anything", True),
    ],
)
def test_a_repository_is_allowed_with_all_below_it(allowed, reference, good):
    configs = (
        BuildConfig(cache_from=(reference,)),
        BuildConfig(contexts={"a": f"docker-image://{reference}"}),
    )
    for config in configs:
        policy = Policy(caches=[allowed], context_images=[allowed])
        if good:
            policy.check(config)
            continue
        with pytest.raises(Refusal):
            policy.check(config)


def test_the_builders_own_caches_are_never_named():
    policy = Policy(caches=["*"], kept_caches="r:5000/kept")
    policy.check(BuildConfig(cache_from=("r:5000/keptother/a",)))
    for reference in ("r:5000/kept", "r:5000/kept/0123:cache", "R:5000/Kept/0123"):
        with pytest.raises(Refusal):
            policy.check(BuildConfig(cache_to=(reference,)))


@pytest.mark.parametrize("name", ["docker/dockerfile", "docker/dockerfile:1.7", "r:5000/front:x"])
def test_a_named_context_cannot_take_a_frontends_place(name):
    policy = Policy(frontends=["docker/dockerfile", "r:5000/front"], context_images=["*"])
    policy.check(BuildConfig(contexts={"docker/other": "docker-image://a/b"}))
    for source in ("lib", "docker-image://a/b"):
        with pytest.raises(Refusal, match="reads Dockerfiles"):
            policy.check(BuildConfig(contexts={name: source}))


MAX = BuildConfig(attest=Attest(provenance="max"))


def by_argument(value: str, name: str = "BUILDKIT_ATTEST_PROVENANCE") -> BuildConfig:
    return BuildConfig(build_args={name: value})


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (BuildConfig(), False),
        (BuildConfig(attest=Attest(provenance="min")), False),
        (BuildConfig(build_args={"BUILDKIT_ATTEST_SBOM": ""}), False),
        (by_argument("mode=min"), False),
        (by_argument("mode=min,inline-only=true"), False),
        (MAX, True),
        (by_argument("mode=max"), True),
        (by_argument("mode=full"), True),
        (by_argument("mode=max", "BUILDKIT_ATTEST_Provenance"), True),
        # BuildKit's default is max, and of equal keys it takes the last.
        (by_argument(""), True),
        (by_argument("mode=min,mode=max"), True),
        (by_argument('mode=min,"mode=max"'), True),
        (by_argument("inline-only=true"), True),
    ],
)
def test_the_builders_proxies_are_not_published(config: BuildConfig, published: bool) -> None:
    """Provenance of mode max has all build arguments, and is pushed with the image."""
    assert publishes_arguments(config) is published
    policy = Policy(environment={"HTTPS_PROXY": "http://user:password@proxy", "PATH": "/"})
    if not published:
        policy.check(config)
        return
    with pytest.raises(Refusal, match="https_proxy") as caught:
        policy.check(config)
    assert "password" not in caught.value.reason
    Policy(environment={"PATH": "/"}).check(config)


def test_proxies_that_the_request_sets_are_its_own() -> None:
    config = dataclasses.replace(MAX, build_args={"HTTPS_PROXY": "", "no_proxy": "a"})
    Policy(environment={"https_proxy": "http://p", "NO_PROXY": "b"}).check(config)
