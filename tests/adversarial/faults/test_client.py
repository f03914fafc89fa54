"""Clients that go, at the stages of a build where tests/integration has none that do."""

import asyncio
import re
import threading

import pytest

from tests.adversarial.faults.asking import is_whole
from tests.support import until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.registries import RESET, faulty_registry
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

SKIP = {"skipPush": True}


async def send(
    builder: RunningBuilder, body: bytes, size: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request, up to so many bytes of its body."""
    host, port = builder.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{name}: {value}" for name, value in headers(body, stream=True).items()]
    head = ["POST /build HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines, "", ""]
    writer.write("\r\n".join(head).encode() + body[:size])
    await writer.drain()
    return reader, writer


async def gone(writer: asyncio.StreamWriter) -> None:
    """Leave, without a word."""
    writer.transport.abort()
    await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


async def until_free(builder: RunningBuilder) -> None:
    await builder.until_metric("slots_taken", 0)
    await builder.until_metric("uploads_in_progress", 0)


@pytest.mark.parametrize("share", [0, 1], ids=["headers", "a body"])
async def test_gone_once_it_has_sent(buildkitd, tmp_path, http, share):
    body = make_tar({"Dockerfile": "FROM busybox\nCOPY . /\n", "large": bytes(3_000_000)}, SKIP)
    async with running_builder(tmp_path / "b", buildkitd, max_inflight="1") as builder:
        reader, writer = await send(builder, body, int(share * len(body)))
        if share < 1:
            await builder.until_metric("uploads_in_progress", 1)
        else:
            # The answer has begun, so the request is there.
            await reader.readexactly(1)
        await gone(writer)
        await until(lambda: re.search("build (refused|ended)", builder.log.read_text()) is not None)
        await until_free(builder)
        await is_whole(http, builder)


async def test_gone_while_its_image_is_pushed(buildkitd, registry, tmp_path, http):
    asked, over = threading.Event(), threading.Event()

    def silent(_method: bytes, _path: bytes) -> bytes:
        asked.set()
        over.wait(60)
        return RESET

    with faulty_registry(registry) as faulty:
        faulty.fault = silent
        settings = {"max_inflight": "1", "insecure": "true"}
        try:
            async with running_builder(tmp_path / "b", buildkitd, **settings) as builder:
                image = {"image": f"{faulty.address}/faults/gone:1"}
                body = make_tar({"Dockerfile": "FROM scratch\nCOPY . /\n"}, image)
                _, writer = await send(builder, body, len(body))
                assert await asyncio.to_thread(asked.wait, 60)
                await gone(writer)
                await until_free(builder)
                await is_whole(http, builder)
        finally:
            over.set()
