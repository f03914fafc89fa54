"""Clients of kept builds with a real builder, queue and BuildKit."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from function_builder.client import AsyncClient, BuildState, BuildStatus
from function_builder.engine import NatsServer
from tests.integration.clients.programs import EXAMPLES, Outcome, run
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import pull
from tests.support.requests import SECRET
from tests.support.servers import serving

pytestmark = pytest.mark.integration

SLEEPS = {"Dockerfile": "FROM busybox\nRUN echo begun; sleep 300\n"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kept(buildkitd: str, tmp_path_factory) -> AsyncIterator[RunningBuilder]:
    """A builder with a queue."""
    root: Path = tmp_path_factory.mktemp("kept")
    async with NatsServer(root / "nats", log=root / "nats.log") as nats:
        settings = {"nats_url": nats.url, "store_url": (root / "store").as_uri()}
        async with running_builder(root / "b", buildkitd, **settings) as running:
            yield running


@pytest.fixture
async def client(kept) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(kept.url, payload_secret=SECRET.encode()) as client:
        yield client


async def command(kept: RunningBuilder, *arguments: object) -> Outcome:
    return await run((sys.executable, "-m", "function_builder", *map(str, arguments)), kept)


async def test_a_build_is_submitted_followed_and_found_again(
    client, kept, registry, function, image
):
    build = await client.submit(function, image=image)
    async with AsyncClient(kept.url) as stranger:
        waiting = asyncio.create_task(stranger.handle(build.id, token=build.token).wait())
        log = [line async for progress in build.log() for line in progress.log]
        result = await build.wait()
        assert (await waiting).digest == result.digest
    assert result.status is BuildStatus.SUCCESS
    assert any("RUN echo built" in line for line in log)
    pushed = await asyncio.to_thread(pull, registry, image.removeprefix(f"{registry}/")[:-2], "1")
    assert pushed.digest == result.digest
    info = await client.handle(build.id).status()
    assert (info.state, info.image, info.attempt) == (BuildState.SUCCESS, image, 1)
    again = [line async for progress in build.log(after=3) for line in progress.log]
    assert again == log[3:]
    repository = image.removesuffix(":1")
    assert [each.id async for each in client.builds(repository=repository)] == [build.id]


async def test_one_key_is_one_build(client):
    files = {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}
    builds = [
        await client.submit(files=files, skip_push=True, idempotency_key="order 4711")
        for _ in range(2)
    ]
    assert builds[0].id == builds[1].id
    assert (await builds[1].wait()).status is BuildStatus.SUCCESS


async def test_a_running_build_is_cancelled_and_built_again(client):
    build = await client.submit(files=SLEEPS, skip_push=True)
    async for progress in build.log():
        if any("begun" in line and line.startswith("l:") for line in progress.log):
            break
    assert (await build.cancel()).state is BuildState.CANCELLED
    assert (await build.wait()).status is BuildStatus.FAILED
    again = await build.retry()
    assert again.info is not None
    assert again.info.retry_of == build.id
    assert (await again.cancel()).state is BuildState.CANCELLED


async def test_the_commands(kept, function, image):
    queued = await command(kept, "build", function, "--image", image, "--detach")
    assert queued.code == 0, queued.output
    build_id = queued.output.split()[-1]
    followed = await command(kept, "logs", "-f", build_id)
    assert followed.code == 0, followed.output
    assert "RUN echo built" in followed.output
    assert f"{image}@sha256:" in followed.output
    shown = await command(kept, "logs", build_id)
    assert "RUN echo built" in shown.output
    listed = await command(kept, "builds", "--json", "--repository", image.removesuffix(":1"))
    (document,) = map(json.loads, listed.output.splitlines())
    assert (document["buildId"], document["status"]) == (build_id, "success")
    assert build_id in (await command(kept, "builds")).output
    cancelled = await command(kept, "cancel", build_id)
    assert cancelled.code == 3
    assert "already ended" in cancelled.output
    again = await command(kept, "retry", build_id)
    assert again.code == 0, again.output
    assert (await command(kept, "logs", "-f", again.output.strip())).code == 0


@pytest.fixture(params=["node", "go"])
def example(request) -> tuple[str, ...]:
    return {"node": ("node", str(EXAMPLES / "node" / "submit.mjs")), "go": ("go-submit",)}[
        request.param
    ]


async def test_an_example_submits_and_follows(example, kept, registry, function, image):
    outcome = await run((*example, str(function), image), kept)
    assert outcome.code == 0, outcome.output
    assert "RUN echo built" in outcome.output
    pushed = await asyncio.to_thread(pull, registry, image.removeprefix(f"{registry}/")[:-2], "1")
    assert outcome.output.splitlines()[-1] == f"{image}@{pushed.digest}"


async def test_an_example_says_why_a_build_failed(example, kept, failing, image):
    outcome = await run((*example, str(failing), image), kept)
    assert outcome.code == 1
    assert "the last words" in outcome.output
    assert "exit code: 7" in outcome.output


@asynccontextmanager
async def cutting(kept: RunningBuilder, limits: list[int]) -> AsyncIterator[str]:
    """Another address of the builder, which resets connections after so many bytes of an answer.

    Args:
        kept: the builder.
        limits: one for each connection, in order; later connections are whole.
    """
    host, _, port = kept.url.removeprefix("http://").rpartition(":")

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = limits.pop(0) if limits else None
        there, back = await asyncio.open_connection(host, int(port))
        sending = asyncio.create_task(pump(reader, back, None))
        try:
            await pump(there, writer, limit)
        finally:
            sending.cancel()
            back.transport.abort()
            if limit is not None:
                writer.transport.abort()

    async with serving(connect) as address:
        yield f"http://{address}"


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None
) -> None:
    while limit is None or limit > 0:
        data = await reader.read(65536 if limit is None else limit)
        if not data:
            break
        if limit is not None:
            limit -= len(data)
        writer.write(data)
        await writer.drain()


async def test_lost_connections_make_no_second_build_and_lose_no_line(kept, client):
    files = {"Dockerfile": "FROM busybox\nRUN for i in $(seq 200); do echo line $i; done\n"}
    repository = f"127.0.0.1:1/{uuid4().hex}"
    limits = [0, 100, 65536]  # of the two lost submissions, and of the one that is answered
    async with (
        cutting(kept, limits) as url,
        AsyncClient(url, payload_secret=SECRET.encode()) as there,
    ):
        build = await there.submit(files=files, image=f"{repository}:1", no_cache=True)
        limits[:] = [0, 500, 1000, 3000, 5000]
        log = [line async for progress in build.log() for line in progress.log]
        assert not limits
    whole = client.handle(build.id).log()
    assert [line async for progress in whole for line in progress.log] == log
    assert [line.rpartition("line ")[2] for line in log if line.startswith("l: ")][:200] == [
        str(number) for number in range(1, 201)
    ]
    assert [info.id async for info in client.builds(repository=repository)] == [build.id]


async def test_a_followed_build_resumes_by_itself(kept, client):
    files = {"Dockerfile": "FROM busybox\nRUN for i in $(seq 50); do echo line $i; done\n"}
    build = await client.submit(files=files, skip_push=True, no_cache=True)
    async with cutting(kept, [700, 0, 900]) as url:
        followed = await command(kept, "logs", "-f", build.id, "--url", url)
    assert followed.code == 0, followed.output
    said = re.findall(r"^#\d+ line (\d+)$", followed.output, re.MULTILINE)
    assert said == [str(number) for number in range(1, 51)]
    assert "the build still runs" in followed.output
