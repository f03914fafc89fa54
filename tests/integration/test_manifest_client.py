"""What the Python client sends to a builder that understands manifests, with a real BuildKit."""

import os
import uuid
from pathlib import Path

import pytest

from aiobuildkit import Client
from function_builder.client import AsyncClient
from tests.support.builders import RunningBuilder
from tests.support.requests import SECRET

pytestmark = pytest.mark.integration

SIZE = 400_000


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context above the size below which all is sent, with links, and old enough for a cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    context = tmp_path / "context"
    (context / "lib").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /f/\n")
    (context / ".dockerignore").write_text("left-out\n")
    (context / "left-out").symlink_to("/nowhere")
    (context / "lib/large").write_bytes(os.urandom(SIZE))
    (context / "lib/link").symlink_to("large")
    (context / "same").hardlink_to(context / "lib/large")
    (context / "small").write_text("one")
    return context


async def build(
    builder: RunningBuilder, directory: Path, image: str, *, manifest: bool = True
) -> tuple[str, list[int]]:
    """Build; returns the digest, and the bytes of each request with a manifest."""
    sent: list[tuple[int, int]] = []
    async with (
        AsyncClient(
            builder.url,
            payload_secret=SECRET.encode(),
            manifest=manifest,
            on_manifest=lambda *sizes: sent.append(sizes),
        ) as client,
        client.stream(directory, image=image, build_args={"SOURCE_DATE_EPOCH": "0"}) as stream,
    ):
        log = [line async for event in stream for line in event.log]
        result = (await stream.result()).raise_for_status()
    assert log
    return result.digest, [size for size, _ in sent]


async def test_only_what_changed_is_sent_and_the_image_is_a_full_requests(
    builder: RunningBuilder, registry: str, directory: Path, buildkitd: str
) -> None:
    """New, unchanged, changed, and after BuildKit has lost its cache."""
    names = [f"{registry}/manifests/{uuid.uuid4().hex}" for _ in range(2)]

    async def sizes() -> list[int]:
        digest, sent = await build(builder, directory, f"{names[0]}:1")
        full, none = await build(builder, directory, f"{names[1]}:1", manifest=False)
        assert digest == full
        assert none == []
        return sent

    (first,) = await sizes()
    assert SIZE < first < 2 * SIZE
    (unchanged,) = await sizes()
    assert unchanged < 20_000
    (directory / "small").write_text("other")
    # Two contents of one second are sent each time.
    os.utime(directory / "small", (1, 1))
    (changed,) = await sizes()
    assert changed < 20_000
    await Client(buildkitd).prune(all=True)
    refused, repeated = await sizes()
    assert refused < 20_000
    assert repeated > SIZE
