"""Builds of a context that BuildKit has of an earlier session, and what makes it read it again."""

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from aiobuildkit import Client
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import blob, manifest, pull
from tests.support.requests import headers, make_tar
from tests.support.wiretap import Tap, wiretap

pytestmark = pytest.mark.integration

DOCKERFILE = """
FROM busybox
ARG WORD=none
RUN --mount=type=bind,target=/context cat /context/lib/b > /read && echo "$WORD" > /word
COPY . /f/
"""
NOW = 1_700_000_000
NONE = 0
OF_ALL = 2
"""Reads of the context: one of its ignore file with the Dockerfile, one of the files."""


@dataclass
class Function:
    """A function, whose builds go to BuildKit through a tap."""

    builder: RunningBuilder
    registry: str
    taps: list[Tap]
    files: dict[str, str]
    mtime: int = NOW
    name: str = field(default_factory=lambda: f"unchanged/{uuid.uuid4().hex}")

    async def build(self, **config: Any) -> tuple[str, int]:
        """Build it; returns the image's tag, and how often BuildKit read a directory."""
        tag = uuid.uuid4().hex
        config = {"image": f"{self.registry}/{self.name}:{tag}", **config}
        body = make_tar(self.files, config, mtime=self.mtime)
        async with httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as http:
            url = f"{self.builder.url}/build"
            answer = await http.post(url, content=body, headers=headers(body))
        assert answer.json()["status"] == "success", answer.text
        solve = [tap for tap in self.taps if tap.called_back or tap.is_build]
        reads = sum(tap.called_back["DiffCopy"] for tap in solve)
        self.taps.clear()
        return tag, reads

    async def check(self, expected: int, *, word: str = "none", **config: Any) -> None:
        """Build it, and compare its image with the files."""
        tag, reads = await self.build(**config)
        assert reads == expected
        found = {
            path: held.content for path, held in pull(self.registry, self.name, tag).files.items()
        }
        wanted = {f"f/{path}": content.encode() for path, content in self.files.items()}
        assert {path: found.get(path) for path in wanted} == wanted
        assert found["word"] == f"{word}\n".encode()
        assert found["read"] == self.files["lib/b"].encode()


@pytest.fixture
async def function(buildkitd: str, registry: str, tmp_path: Any) -> AsyncIterator[Function]:
    async with (
        wiretap(buildkitd, tmp_path / "tap") as (address, taps),
        running_builder(
            tmp_path / "builder", address, insecure="true", allowed_caches=registry
        ) as builder,
    ):
        files = {"Dockerfile": DOCKERFILE, "a": "one", "lib/b": "two"}
        yield Function(builder, registry, taps, files)


async def test_buildkit_reads_a_context_once_until_it_changes(function):
    await function.check(OF_ALL)
    await function.check(NONE)
    # A step that reads the context runs again.
    await function.check(NONE, word="other", buildArgs={"WORD": "other"})
    function.mtime += 1
    await function.check(NONE)  # all files are copied
    function.files["a"] = "ten"
    await function.check(OF_ALL)
    await function.check(NONE, buildArgs={"WORD": "another"}, word="another")
    function.files[".dockerignore"] = "nothing"
    await function.check(OF_ALL)
    await function.check(NONE)
    function.files["a"] = "one"
    del function.files[".dockerignore"]
    await function.check(OF_ALL)


async def test_buildkit_reads_a_context_again_that_it_has_lost(function, buildkitd):
    """Only the directories; what it built of them is still there."""
    await function.check(OF_ALL)
    lost = await Client(buildkitd).prune(all=True, filters=["type==source.local"])
    assert lost
    tag, reads = await function.build(buildArgs={"WORD": "lost"})
    assert reads
    assert pull(function.registry, function.name, tag).files["f/a"].content == b"one"
    await function.check(NONE, buildArgs={"WORD": "lost"}, word="lost")


async def test_a_build_whose_cache_is_exported_reads_its_context(function):
    """Other BuildKits find its steps by the digests of the files."""
    cache = {"cacheTo": [f"type=registry,ref={function.registry}/{function.name}:cache"]}
    await function.check(OF_ALL, **cache)
    await function.check(OF_ALL, **cache)


async def test_the_provenance_of_an_image_names_no_session_of_an_earlier_build(function):
    """Who knows a session's ID could have its files in a build of their own."""
    await function.check(OF_ALL)
    tag, reads = await function.build(attest={"provenance": "max"})
    assert reads
    statements = [
        blob(function.registry, function.name, layer["digest"])
        for each in manifest(function.registry, function.name, tag)["manifests"]
        for layer in manifest(function.registry, function.name, each["digest"])["layers"]
        if "in-toto" in layer["mediaType"]
    ]
    assert any(b"https://slsa.dev/provenance" in each for each in statements)
    assert not any(b"sessionid" in each for each in statements)
    assert all(json.loads(each) for each in statements)
