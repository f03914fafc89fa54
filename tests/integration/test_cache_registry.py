"""A build cache in a registry: taken by a BuildKit that is new, and never the end of a build."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import httpx2
import pytest

from function_builder.contract.secrets import SecretsKey, seal
from tests.support import free_address
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import pull
from tests.support.registries import answer, faulty_registry
from tests.support.requests import SECRET, headers, make_tar, signature

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

Made = Callable[..., Awaitable[str]]
CACHE_NAME = re.compile(r"/[0-9a-f]{40}:cache")


@pytest.fixture
async def builder_with(
    fresh_buildkitd, tmp_path
) -> AsyncIterator[Callable[..., Awaitable[RunningBuilder]]]:
    """Starts builders, each with a BuildKit of its own and this `cache_registry`."""
    async with AsyncExitStack() as stack:

        async def start(cache: str, **settings: str) -> RunningBuilder:
            root, daemon = tmp_path / uuid.uuid4().hex, await fresh_buildkitd()
            given = {"cache_registry": cache, "insecure": "true"} | settings
            return await stack.enter_async_context(running_builder(root, daemon.address, **given))

        yield start


@pytest.fixture
def made(http, registry) -> Made:
    """Builds a function in two stages; what the first made is something else whenever it runs."""

    async def build(builder: RunningBuilder, function: str, *, secret: str = SECRET) -> str:
        dockerfile = (
            "FROM busybox AS deps\nRUN cat /proc/sys/kernel/random/uuid > /made\n"
            "FROM busybox\nCOPY --from=deps /made /made\n"
        )
        body = make_tar({"Dockerfile": dockerfile}, {"image": f"{registry}/{function}:1"})
        signed = headers(body) | {"X-Build-Signature": signature(body, secret)}
        answer = await http.post(f"{builder.url}/build", content=body, headers=signed)
        reply = answer.json()
        assert reply["status"] == "success", reply
        # A cache's name is what keeps others from it.
        assert CACHE_NAME.search(answer.text) is None
        return (await asyncio.to_thread(pull, registry, function, "1")).text("made")

    return build


@pytest.fixture
def function() -> str:
    return f"cached/{uuid.uuid4().hex}"


async def repositories(http: httpx2.AsyncClient, registry: str, below: str) -> list[str]:
    catalog = await http.get(f"http://{registry}/v2/_catalog", params={"n": 1000})
    return [name for name in catalog.json()["repositories"] if name.startswith(f"{below}/")]


async def test_a_new_buildkit_takes_what_another_left(builder_with, made, registry, function):
    cache = f"{registry}/cache-{uuid.uuid4().hex}"
    first = await builder_with(cache)
    second = await builder_with(cache)
    alone = await builder_with("")
    left = await made(first, function)
    assert await made(second, function) == left
    assert await made(alone, function) != left


async def test_a_function_and_a_payload_secret_have_a_cache_of_their_own(
    builder_with, made, http, registry, function
):
    below = f"cache-{uuid.uuid4().hex}"
    cache = f"{registry}/{below}"
    first = await builder_with(cache)
    second = await builder_with(cache)
    (second.secrets / "payload-secret").write_text("another secret")
    left = await made(first, function)
    assert await made(second, function, secret="another secret") != left
    assert len(await repositories(http, registry, below)) == 2
    await made(first, f"{function}-2")
    assert len(await repositories(http, registry, below)) == 3


FAULTS = (
    answer("500 Internal Server Error"),
    answer("401 Unauthorized"),
    answer("404 Not Found"),
    b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ngarbage",
    b"not HTTP\r\n\r\n",
)


async def test_a_registry_that_fails_fails_no_build(made, buildkitd, registry, function, tmp_path):
    async def builds_with(number: int, fault: bytes) -> None:
        with faulty_registry(registry) as faulty:

            def always(_method: bytes, _path: bytes) -> bytes | None:
                faulty.failed += 1
                return fault

            faulty.fault = always
            given = {"cache_registry": f"{faulty.address}/cache", "insecure": "true"}
            async with running_builder(tmp_path / f"{number}", buildkitd, **given) as builder:
                await made(builder, f"{function}/{number}")
            # It was asked for the import, and again for the export.
            assert faulty.failed >= 2, fault

    # BuildKit asks again for half a minute in each build.
    async with asyncio.TaskGroup() as group:
        for number, fault in enumerate(FAULTS):
            group.create_task(builds_with(number, fault))


async def test_a_registry_that_is_not_there_fails_no_build(builder_with, made, function):
    await made(await builder_with(f"{free_address()}/cache"), function)


async def test_a_build_with_secrets_leaves_no_cache(
    builder_with, http, registry, function, tmp_path
):
    key = SecretsKey.generate()
    (tmp_path / "key").write_bytes(key.to_text())
    below = f"cache-{uuid.uuid4().hex}"
    builder = await builder_with(
        f"{registry}/{below}",
        build_secrets_private_key_path=str(tmp_path / "key"),
    )
    dockerfile = "FROM busybox\nRUN --mount=type=secret,id=token cat /run/secrets/token > /made\n"
    body = make_tar(
        {"Dockerfile": dockerfile},
        {"image": f"{registry}/{function}:1"},
        secrets=seal({"token": b"only for this build"}, key.public),
    )
    reply = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
    assert reply.json()["status"] == "success"
    assert await repositories(http, registry, below) == []
