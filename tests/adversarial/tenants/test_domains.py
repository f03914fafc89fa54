"""Tenants on one BuildKit: what a builder keeps apart all the same."""

import asyncio
import itertools
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from tests.adversarial.tenants.conftest import Tenants
from tests.adversarial.tenants.tenant import Reply, Tenant
from tests.support.images import pull
from tests.support.manifests import file_row, manifest_tar
from tests.support.registries import USERS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROUNDS = 2
AT_ONCE = 4
"""Builds of each tenant at a time."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """Words of one build, which no other may see; all of them of one length."""

    file: str
    step: str
    secret: str
    argument: str

    @classmethod
    def new(cls) -> "Canaries":
        return cls(*(f"canary-{uuid.uuid4().hex}" for _ in range(4)))


CANARY = re.compile("canary-[0-9a-f]{32}")
DOCKERFILE = """FROM busybox
ARG WORD
COPY . /f
RUN cat /f/file; echo; echo STEP; echo "$WORD" > /argument
RUN --mount=type=secret,id=token cat /run/secrets/token > /secret; cat /run/secrets/token
"""


def request(tenant: Tenant, canaries: Canaries, image: str) -> bytes:
    dockerfile = DOCKERFILE.replace("STEP", canaries.step).replace(
        "ARG WORD", f"ARG WORD={canaries.argument}"
    )
    return tenant.body(
        dockerfile,
        {"file": canaries.file},
        image=image,
        secrets={"token": canaries.secret},
    )


async def test_a_build_sees_and_tells_nothing_of_another(neighbors: Tenants):
    """Equal names, sizes and times, at once, of two tenants: only the words in them differ."""
    used: list[tuple[Tenant, Canaries, Reply]] = []
    for number in range(ROUNDS):
        builds = []
        for tenant, each in itertools.product((neighbors.ann, neighbors.bob), range(AT_ONCE)):
            canaries = Canaries.new()
            # Also in one function of the same name.
            image = f"{neighbors.public}/domains/f{each % 2}:{tenant.name}-{number}-{each}"
            builds.append((tenant, canaries, image))
        replies = await asyncio.gather(
            *(
                tenant.build(request(tenant, canaries, image), streamed=bool(each % 2))
                for each, (tenant, canaries, image) in enumerate(builds)
            )
        )
        for (tenant, canaries, image), reply in zip(builds, replies, strict=True):
            assert not reply.error
            await asyncio.to_thread(check_image, image, canaries)
            used.append((tenant, canaries, reply))
    check_replies(used)
    check_logs(neighbors, [canaries for _, canaries, _ in used])


def check_image(image: str, canaries: Canaries) -> None:
    registry, _, name = image.partition("/")
    files = pull(registry, *name.rsplit(":", 1)).files
    assert files["f/file"].content.decode() == canaries.file
    assert files["argument"].content.decode().strip() == canaries.argument
    assert files["secret"].content.decode() == canaries.secret
    own = {canaries.file, canaries.step, canaries.argument, canaries.secret}
    everything = b"\0".join(file.content for file in files.values()).decode(errors="replace")
    assert set(CANARY.findall(everything)) == own


def check_replies(used: Sequence[tuple[Tenant, Canaries, Reply]]) -> None:
    for _, canaries, reply in used:
        assert {canaries.file, canaries.step} <= set(reply.output)
        # The secret's place has its mask.
        assert "***" in reply.output
        assert set(CANARY.findall(reply.text)) <= {
            canaries.file,
            canaries.step,
            canaries.argument,
        }


def check_logs(tenants: Tenants, canaries: Sequence[Canaries]) -> None:
    """What operators read has no word of any build's."""
    assert canaries
    for tenant in (tenants.ann, tenants.bob):
        said = tenant.builder.log.read_text()
        assert f":{tenant.name}-0-0" in said
        assert CANARY.findall(said) == []


async def test_a_build_pulls_and_pushes_with_its_own_builders_credentials_alone(neighbors: Tenants):
    """Both at both registries at once, with the same content: BuildKit merges what it can."""
    ann, bob = neighbors.ann, neighbors.bob
    for number in range(ROUNDS):
        content = {"same": f"{number} {uuid.uuid4()}"}
        dockerfile = "FROM busybox\nCOPY . /f\nRUN cat /f/same\n"
        pairs = [(of, at) for of in (ann, bob) for at in (ann, bob) for _ in range(2)]
        images = [
            f"{at.registry}/credentials/of-{of.name}:{number}-{each}"
            for each, (of, at) in enumerate(pairs)
        ]
        replies = await asyncio.gather(
            *(
                of.build(of.body(dockerfile, content, image=image))
                for (of, _), image in zip(pairs, images, strict=True)
            )
        )
        for (of, at), image, reply in zip(pairs, images, replies, strict=True):
            if of is at:
                assert not reply.error, reply.error
            else:
                assert f"failed to push {image}" in reply.error
                assert "401" in reply.error or "no basic auth credentials" in reply.error
            assert not any(password in reply.text for password, _ in USERS.values())


async def test_cache_mounts_are_a_tenants_own(neighbors: Tenants):
    """By the payload secret; a Dockerfile that names the namespace has a new one each time."""
    ann, bob = neighbors.ann, neighbors.bob
    name = uuid.uuid4().hex

    async def seen(tenant: Tenant, word: str, before: str = "") -> list[str]:
        """Who has been in the mount, this tenant included."""
        dockerfile = (
            f"FROM busybox\n{before}"
            f"RUN --mount=type=cache,id={name},target=/c : {uuid.uuid4()}; "
            f"echo {word} >> /c/words; cat /c/words\n"
        )
        reply = await tenant.build(tenant.body(dockerfile))
        assert not reply.error
        return reply.output

    assert await seen(ann, "ann") == ["ann"]
    assert await seen(bob, "bob") == ["bob"]
    assert await seen(ann, "again") == ["ann", "again"]
    for word in ("one", "two"):
        assert await seen(ann, word, "ARG BUILDKIT_CACHE_MOUNT_NS=one\n") == [word]
    if ann.headers:
        # A tenant of several keeps its caches when its secrets rotate.
        return
    # With another payload secret it is another circle of people.
    secret = ann.secret
    before = secret.read_text()
    secret.write_text(before + "-rotated")
    try:
        assert await seen(ann, "rotated") == ["rotated"]
    finally:
        secret.write_text(before)


async def test_a_content_that_a_tenant_did_not_send_cannot_be_named(neighbors: Tenants):
    """Both push to one repository, at one path: a digest alone gets nothing of the other's."""
    content = b"of a neighbor"
    rows = [file_row("Dockerfile", b"FROM scratch\nCOPY . /\n"), file_row("file", content)]
    image = f"{neighbors.public}/{uuid.uuid4().hex}:1"
    named = manifest_tar(rows, {"image": image}, [b"FROM scratch\nCOPY . /\n"])
    sent = manifest_tar(rows, {"image": image}, [b"FROM scratch\nCOPY . /\n", content])

    assert (await neighbors.ann.build(sent)).end["status"] == "success"
    assert (await neighbors.bob.build(named)).end["missing"] == [[1, 1]]
    assert (await neighbors.ann.build(named)).end["status"] == "success"
    assert (await neighbors.bob.build(sent)).end["status"] == "success"


async def test_a_tenants_signature_is_nothing_to_another_builder(neighbors: Tenants):
    ann, bob = neighbors.ann, neighbors.bob
    body = ann.body("FROM scratch\nCOPY Dockerfile /\n")
    assert not (await ann.build(body)).error
    stranger = replace(bob, secret=ann.secret)
    assert "X-Build-Signature is absent or wrong" in (await stranger.build(body)).error


async def test_a_tenants_build_secrets_are_sealed_for_its_builder_alone(neighbors: Tenants):
    ann, bob = neighbors.ann, neighbors.bob
    sealed_for_ann = ann.body("FROM busybox\n", secrets={"token": "the value of ann"})
    reply = await bob.build(sealed_for_ann)
    assert '"token"' in reply.error
    assert "the value of ann" not in reply.text
