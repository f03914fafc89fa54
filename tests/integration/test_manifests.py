"""Requests with a manifest, on a real BuildKit: what is built, and what has to be sent."""

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from aiobuildkit import Client
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import pull
from tests.support.manifests import file_row, manifest_tar
from tests.support.queued import slow
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

DOCKERFILE = b"FROM scratch\nCOPY . /f/\n"
NOW = 1_700_000_000


@dataclass
class Function:
    """A function whose files are sent by manifests.

    `modes` and `times` are of files that have others.
    """

    builder: RunningBuilder
    registry: str
    files: dict[str, bytes]
    modes: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"manifests/{uuid.uuid4().hex}")

    async def post(self, *sent: bytes, stream: bool = False) -> httpx2.Response:
        """Build, and send these contents with the Dockerfile."""
        return await self.send(self.body(*sent), stream=stream)

    def body(self, *sent: bytes) -> bytes:
        rows = [
            file_row(
                path,
                content,
                mtime=self.times.get(path, NOW),
                mode=self.modes.get(path, 0o644),
            )
            for path, content in self.files.items()
        ]
        return manifest_tar(rows, self.config("1"), [self.files["Dockerfile"], *sent])

    async def send(self, body: bytes, *, stream: bool = False) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=False) as http:
            url = f"{self.builder.url}/build"
            return await http.post(url, content=body, headers=headers(body, stream=stream))

    def config(self, tag: str) -> dict[str, Any]:
        arguments = {"SOURCE_DATE_EPOCH": "0"}
        return {"image": f"{self.registry}/{self.name}:{tag}", "buildArgs": arguments}

    async def check(self, answer: httpx2.Response) -> None:
        """The image is that of a full request of another function."""
        assert answer.json()["status"] == "success", answer.text
        files = {path: content for path, content in self.files.items() if path not in self.modes}
        held = pull(self.registry, self.name, "1").files
        assert {path: held[f"f/{path}"].content for path in files} == files
        assert {path: held[f"f/{path}"].mode for path in self.modes} == self.modes
        if not self.modes:
            other = Function(self.builder, self.registry, self.files)
            plain = await other.send(make_tar(self.files, other.config("1"), mtime=NOW))
            assert plain.json()["digest"] == answer.json()["digest"]


@pytest.fixture
def function(builder: RunningBuilder, registry: str) -> Function:
    files = {"Dockerfile": DOCKERFILE, "a": b"one", "lib/b": b"two", "lib/c": b"one"}
    return Function(builder, registry, files)


async def test_only_what_changed_is_sent(function):
    """New, unchanged, one changed, one with another mode; each image is a full request's."""
    refused = await function.post()
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-build-manifest"] == "1"
    assert refused.json()["missing"] == [[1, 3]]
    await function.check(await function.post(b"one", b"two"))
    await function.check(await function.post())

    function.files["a"], function.times["a"] = b"ten", NOW + 1
    assert (await function.post()).json()["missing"] == [[1, 1]]
    await function.check(await function.post(b"ten"))
    await function.check(await function.post())

    function.modes["a"] = 0o755
    assert (await function.post()).json()["missing"] == [[1, 1]]
    await function.check(await function.post(b"ten"))


async def test_what_buildkit_no_longer_has_is_asked_for(function, buildkitd):
    """The answer is 409 also of a stream, and no line of a log comes before it."""
    await function.check(await function.post(b"one", b"two"))
    await Client(buildkitd).prune(all=True)
    refused = await function.post(stream=True)
    assert (refused.status_code, refused.json()["missing"]) == (409, [[1, 3]])
    # What the record said is forgotten, or it would be wrong again.
    assert (await function.post()).json()["missing"] == [[1, 3]]
    await function.check(await function.post(b"one", b"two"))

    # The same between an answer and the contents that it asked for.
    function.files["a"], function.times["a"] = b"ten", NOW + 1
    assert (await function.post()).json()["missing"] == [[1, 1]]
    await Client(buildkitd).prune(all=True)
    assert (await function.post(b"ten")).json()["missing"] == [[2, 2]]
    await function.check(await function.post(b"ten", b"one", b"two"))


async def test_a_stream_that_has_begun_ends_with_what_is_missing(function, buildkitd, tmp_path):
    """It waits for a slot when BuildKit loses its cache; its log says so once."""
    async with running_builder(
        tmp_path, buildkitd, max_inflight="1", max_queue="1"
    ) as function.builder:
        url = f"{function.builder.url}/build"
        await function.check(await function.post(b"one", b"two"))
        body, other = function.body(), slow()
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=False) as http:
            async with http.stream(
                "POST", url, content=other, headers=headers(other, stream=True)
            ) as holding:
                # Kept, because the end of the iterator closes the connection.
                output = holding.aiter_lines()
                await until_line(output, "begun x")
                answer = await http.send(
                    http.build_request(
                        "POST", url, content=body, headers=headers(body, stream=True)
                    ),
                    stream=True,
                )
                lines = answer.aiter_lines()
                await until_line(lines, "Waiting for a build slot")
                await Client(buildkitd).prune(all=True)
            # Leaving the block cancels the build that holds the slot.
            *rest, last = [json.loads(line) async for line in lines]
            await answer.aclose()
        assert (last["status"], last["missing"]) == ("failed", [[1, 3]])
        log = [line for each in rest for line in each.get("log", ())]
        assert sum("BuildKit lost files" in line for line in log) == 1
        await function.check(await function.post(b"one", b"two"))


async def until_line(lines: AsyncIterator[str], words: str) -> None:
    async for line in lines:
        if words in line:
            return
    raise AssertionError(f"the stream ended without {words!r}")


async def test_a_content_of_another_function_cannot_be_named(function):
    """A digest refers to what was sent for this image, at this path."""
    await function.check(await function.post(b"one", b"two"))
    other = Function(function.builder, function.registry, dict(function.files))
    assert (await other.post()).json()["missing"] == [[1, 3]]
    function.files["new"] = b"two"
    assert (await function.post()).json()["missing"] == [[4, 1]]


async def test_a_lie_is_not_learned(function):
    """A content that does not have its digest is refused, and the next request builds its own."""
    rows = [file_row(path, content, mtime=NOW) for path, content in function.files.items()]
    config = function.config("1")
    body = manifest_tar(rows, config, [DOCKERFILE, b"one", b"two"]).replace(b"two", b"too")
    refused = await function.send(body)
    assert refused.status_code == 400
    assert "does not have the digest" in refused.json()["error"]
    assert (await function.post()).json()["missing"] == [[1, 3]]
