"""The client and the server of kept builds agree, over a socket; the queue is in memory."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn

from function_builder.client import AsyncClient, BuildState, BuildStatus, Refused
from function_builder.client.errors import ClientError, Unreachable
from function_builder.contract.log import StepText
from function_builder.server.app import create_app
from function_builder.server.service import Service
from tests.support import until
from tests.support.memory_builds import MemoryBuilds
from tests.support.requests import SECRET
from tests.support.services import idle_service

FILES = {"Dockerfile": "FROM scratch\n"}


@asynccontextmanager
async def served_here(service: Service) -> AsyncIterator[str]:
    """Serve in this event loop, in which the queue lives."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(service),
        log_level="critical",
        lifespan="off",
        timeout_graceful_shutdown=1,
        ws="none",
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()


@pytest.fixture
def builds() -> MemoryBuilds:
    return MemoryBuilds()


@pytest.fixture
async def service(tmp_path, builds) -> Service:
    (tmp_path / "payload-secret").write_text(SECRET)
    service = idle_service(tmp_path, disable_hmac=False, secret_mount_path=tmp_path)
    service.builds = builds
    return service


@pytest.fixture
async def client(service) -> AsyncIterator[AsyncClient]:
    async with (
        served_here(service) as url,
        AsyncClient(url, payload_secret=SECRET.encode()) as client,
    ):
        yield client


async def test_a_build_from_its_submission_to_its_end(client, builds):
    build = await client.submit(files=FILES, image="r/f:1", queue_timeout=60)
    assert (build.info.state, build.info.position) == (BuildState.QUEUED, 1)
    (submission,) = builds.submissions
    assert (submission.id, submission.queue_timeout) == (build.id, 60)
    following = asyncio.create_task(log_of(build))
    waiting = asyncio.create_task(client.handle(build.id, token=build.token).wait())
    await until(lambda: builds.followers == 2)
    builds.start(build.id)
    assert (await build.status()).state is BuildState.RUNNING
    builds.write(build.id, [StepText("one", "1 started"), "two"])
    builds.end(build.id, BuildState.SUCCESS, digest="sha256:1")
    assert await following == [("one", "1 started"), ("two", "")]
    assert await waiting == await build.wait()
    result = await build.wait()
    assert (result.status, result.digest, result.image) == (
        BuildStatus.SUCCESS,
        "sha256:1",
        "r/f:1",
    )
    assert [line async for event in build.log(after=1) for line in event.log] == ["two"]


async def log_of(build) -> list[tuple[str, str]]:
    return [
        pair async for event in build.log() for pair in zip(event.log, event.steps, strict=True)
    ]


async def test_a_reader_comes_back_to_a_builder_that_was_away(service, builds):
    """The builder ends in the middle of the log, and another one has the rest."""
    said: list[ClientError] = []
    async with served_here(service) as url:
        port = int(url.rpartition(":")[2])
        client = AsyncClient(
            url, payload_secret=SECRET.encode(), on_retry=lambda error, _: said.append(error)
        )
        build = await client.submit(files=FILES, image="r/f:1")
        builds.write(build.id, ["one"])
        lines: list[str] = []

        async def follow() -> None:
            async for event in build.log():
                lines.extend(event.log)

        following = asyncio.create_task(follow())
        await until(lambda: lines == ["one"])
    builds.write(build.id, ["two"])
    builds.end(build.id, BuildState.FAILED, error="no")
    async with served_again(service, port):
        await following
    assert lines == ["one", "two"]
    assert (await build.wait()).error == "no"
    assert said
    assert all(isinstance(error, Unreachable) for error in said)
    await client.close()


@asynccontextmanager
async def served_again(service: Service, port: int) -> AsyncIterator[None]:
    config = uvicorn.Config(
        create_app(service), port=port, log_level="critical", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def test_one_key_is_one_build(client, builds):
    first = await client.submit(files=FILES, image="r/f:1", idempotency_key='a "b\\')
    again = await client.submit(files=FILES, image="r/f:1", idempotency_key='a "b\\')
    assert first.id == again.id
    assert len(builds.submissions) == 1
    with pytest.raises(Refused) as caught:
        await client.submit(files=FILES, image="r/f:2", idempotency_key='a "b\\')
    assert (caught.value.status, caught.value.from_builder) == (422, True)


async def test_cancel_retry_and_the_list(client, builds):
    build = await client.submit(files=FILES, image="r/f:1")
    assert (await build.cancel()).state is BuildState.CANCELLED
    assert (await build.cancel()).state is BuildState.CANCELLED
    ended = await client.submit(files=FILES, image="r/f:1")
    builds.end(ended.id, BuildState.FAILED, error="no")
    with pytest.raises(Refused, match=r"\(409\).*already ended"):
        await ended.cancel()
    again = await build.retry()
    assert again.info.retry_of == build.id
    more = [(await client.submit(files=FILES, image=f"r/g:{tag}")).id for tag in range(3)]
    everything = [info.id async for info in client.builds(page=2)]
    assert set(everything) == {build.id, ended.id, again.id, *more}
    waiting = [info.id async for info in client.builds(status="queued", repository="r/g", page=1)]
    assert sorted(waiting) == sorted(more)


async def test_refusals_are_read_in_words(client, builds, service):
    with pytest.raises(Refused, match=r"\(404\): there is no such build"):
        await client.handle("0" * 24).status()
    with pytest.raises(Refused, match=r"\(400\)"):
        _ = [info async for info in client.builds(page=999)]
    service.builds = None
    with pytest.raises(Refused, match=r"\(501\): .*nats_url"):
        await client.submit(files=FILES, image="r/f:1")
    with pytest.raises(Refused, match=r"\(501\): .*nats_url"):
        await client.handle("0" * 24).status()
