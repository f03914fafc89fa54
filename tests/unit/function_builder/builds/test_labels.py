"""What leaves a builder of its payload secret: a label for each use, none made of another."""

import hashlib

from function_builder.builds.options import RegistryCache, frontend_attrs
from function_builder.contract.config import BuildConfig
from function_builder.contract.options import Attest
from function_builder.server.keys import trust_domain
from tests.support.build_requests import build_request

FUNCTION = "r:5000/victim/fn"


def namespace(secret: bytes, provenance: str = "", *, kept: bool = True) -> str:
    request = build_request(
        config=BuildConfig(attest=Attest(provenance)),
        trust_domain=trust_domain(secret),
        keeps_cache_mounts=kept,
    )
    return frontend_attrs(request, {})["build-arg:BUILDKIT_CACHE_MOUNT_NS"]


def cache(domain: str) -> str:
    return RegistryCache("r:5000/cache", insecure=False).name(f"{domain}/{FUNCTION}")


def test_no_label_tells_another() -> None:
    """Neither is the trust domain's name, nor a hash of what the other is made of."""
    domain = trust_domain(b"a payload secret")
    mounts, kept = namespace(b"a payload secret"), cache(domain)
    assert domain not in (mounts, kept)
    assert cache(mounts) != kept
    for text in (f"{domain}/{FUNCTION}", f"{mounts}/{FUNCTION}", mounts, domain):
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert kept not in digest
        assert mounts not in digest


def test_labels_are_those_of_a_payload_secret() -> None:
    assert namespace(b"a payload secret") == namespace(b"a payload secret", "min")
    assert namespace(b"a payload secret") != namespace(b"another secret")
    assert cache(trust_domain(b"a payload secret")) != cache(trust_domain(b"another secret"))


def test_a_namespace_that_is_published_is_used_once() -> None:
    published = {namespace(b"a payload secret", "max") for _ in range(3)}
    published |= {namespace(b"a payload secret", kept=False) for _ in range(3)}
    assert len(published | {namespace(b"a payload secret")}) == 7
