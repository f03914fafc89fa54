"""What a BuildKit that tenants share gives away, and that one of their own each does not.

No builder could keep these apart: BuildKit knows steps by their inputs, not by who asks. Each test
is run on one BuildKit, where it shows what is given away, and on two. SECURITY.md draws the
consequence.
"""

import asyncio
import hashlib
import uuid
from dataclasses import replace

import pytest

from tests.adversarial.tenants.conftest import Tenants

pytestmark = pytest.mark.integration


def once() -> str:
    """Makes a step unlike any that was ever run."""
    return f": {uuid.uuid4()}"


async def test_a_secrets_value_is_no_part_of_the_cache_key(tenants: Tenants):
    """A step that ran with one tenant's secret stands for the other's, with what it made of it."""
    step = f"RUN --mount=type=secret,id=token {once()}; sha256sum < /run/secrets/token > /made"
    hashes = []
    for tenant, value in ((tenants.ann, "the value of ann"), (tenants.bob, "the value of bob")):
        body = tenant.body(
            f"FROM busybox\n{step}\nRUN {once()}; cat /made\n", secrets={"token": value}
        )
        reply = await tenant.build(body)
        assert not reply.error
        hashes.append((reply.output[-1].split()[0], hashlib.sha256(value.encode()).hexdigest()))
    (ann, of_ann), (bob, of_bob) = hashes
    assert ann == of_ann
    assert bob == (of_bob if tenants.apart else of_ann)


async def test_nor_is_whether_there_is_one(tenants: Tenants):
    """So whoever knows the step needs no secret for what it made."""
    step = f"RUN --mount=type=secret,id=token {once()}; cat /run/secrets/token > /made || true"
    ann, bob = tenants.ann, tenants.bob
    first = await ann.build(ann.body(f"FROM busybox\n{step}\n", secrets={"token": "of ann"}))
    assert not first.error
    reply = await bob.build(bob.body(f"FROM busybox\n{step}\nRUN {once()}; cat /made\n"))
    assert not reply.error
    assert ("of ann" in reply.output) is not tenants.apart


async def test_a_private_base_that_is_in_the_cache_is_had_by_its_digest(tenants: Tenants):
    ann, bob = tenants.ann, tenants.bob
    name = f"{ann.registry}/private/{uuid.uuid4().hex}"
    body = ann.body(
        f"FROM busybox\nRUN echo {(hidden := uuid.uuid4().hex)} > /it\n", image=f"{name}:1"
    )
    base = await ann.build(body)
    assert not base.error
    digest = base.end["digest"]
    assert not (await ann.build(ann.body(f"FROM {name}:1\nRUN {once()}\n"))).error
    for dockerfile in (
        f"FROM {name}@{digest}\nRUN {once()}; cat /it\n",
        f"FROM busybox\nCOPY --from={name}:1@{digest} /it /\nRUN {once()}; cat /it\n",
    ):
        reply = await bob.build(bob.body(dockerfile))
        assert (hidden in reply.output) is not tenants.apart
        assert ("401" in reply.error) is tenants.apart
    # Its name alone has to be asked for at its registry, which knows no bob.
    reply = await bob.build(bob.body(f"FROM {name}:1\nRUN {once()}; cat /it\n"))
    assert "401" in reply.error
    assert hidden not in reply.output


async def test_one_question_for_a_base_stands_for_both(tenants: Tenants):
    """Asked at once, with the credentials of either: both have it then, or neither."""
    ann, bob = tenants.ann, tenants.bob

    async def both() -> tuple[bool, bool]:
        base = f"{ann.registry}/base/{uuid.uuid4().hex}:1"
        assert not (await ann.build(ann.body("FROM busybox\nRUN : a\n", image=base))).error
        dockerfile = f"FROM {base}\nRUN {once()}\n"
        replies = await asyncio.gather(
            *(tenant.build(tenant.body(dockerfile)) for tenant in (ann, bob))
        )
        assert all("401" in reply.error for reply in replies if reply.error)
        return not replies[0].error, not replies[1].error

    if tenants.apart:
        assert [await both() for _ in range(5)] == [(True, False)] * 5
        return
    # Chance decides whether they meet: in most rounds they do.
    for _ in range(40):
        if await both() != (True, False):
            return
    pytest.fail("BuildKit kept them apart: SECURITY.md says that it does not")


async def test_a_tenant_without_a_buildkit_uses_none_of_another(apart: Tenants):
    """The others have each built above, and the builder's own BuildKit is not there."""
    own = apart.ann.builder
    default = replace(apart.ann, secret=own.secrets / "payload-secret", headers={})
    reply = await default.build(default.body(f"FROM busybox\nRUN {once()}\n"))
    assert "BuildKit cannot be reached" in reply.error
    assert not (await apart.bob.build(apart.bob.body(f"FROM busybox\nRUN {once()}\n"))).error
    await own.until_metric('buildkit_daemons{state="up"}', 2)
    await own.until_metric('buildkit_daemons{state="down"}', 1)
    assert own.get("/ready").status_code == 503


async def test_a_step_that_both_run_at_once_is_run_once_and_tells_both(tenants: Tenants, steps):
    """What it prints is masked for builds that have the secret, and for no other."""
    ann, bob = tenants.ann, tenants.bob
    value = f"value-of-ann-{uuid.uuid4().hex}"
    call = f"{once()}; {steps.call('here')}"
    dockerfile = (
        f"FROM busybox\nRUN --mount=type=secret,id=token {call}; cat /run/secrets/token || true\n"
    )
    first = asyncio.create_task(
        ann.build(ann.body(dockerfile, secrets={"token": value}), streamed=True)
    )
    await steps.reached("here")
    begun = asyncio.Event()

    def heard(text: str) -> None:
        # Once when it is announced, and again when it runs.
        if text.count("] RUN --mount") >= 2:
            begun.set()

    second = asyncio.create_task(bob.build(bob.body(dockerfile), streamed=True, heard=heard))
    await asyncio.wait_for(begun.wait(), 60)
    steps.open()
    of_ann, of_bob = await first, await second
    assert not of_ann.error
    assert not of_bob.error
    assert "***" in of_ann.output
    assert value not in of_ann.text
    assert (value in of_bob.output) is not tenants.apart
    assert steps.visits == 1 + tenants.apart
