"""The examples that submit a build and follow it, with a builder that loses connections."""

import asyncio
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.clients.programs import EXAMPLES, JAVA, run
from tests.support import until
from tests.unit.function_builder.client.fake_builds import SECRET, FakeBuilds, serving_builds

pytestmark = pytest.mark.integration

CLIENTS = {
    "node": ("node", str(EXAMPLES / "node" / "submit.mjs")),
    "go": ("go-submit",),
    "php": ("php", str(EXAMPLES / "php" / "submit.php")),
    "java": (*JAVA, "FunctionBuilder", "submit"),
}


@pytest.fixture(params=CLIENTS)
def client(request) -> tuple[str, ...]:
    return CLIENTS[request.param]


@pytest.fixture
def builder() -> Iterator[FakeBuilds]:
    with serving_builds() as fake:
        yield fake


@pytest.fixture
def environment(builder: FakeBuilds, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "payload-secret").write_bytes(SECRET + b"\n")
    return {
        "OPENFAAS_REMOTE_BUILDER": f"{builder.url}/build",
        "OPENFAAS_PAYLOAD_SECRET": str(tmp_path / "payload-secret"),
    }


async def test_a_lost_connection_makes_no_second_build_and_loses_no_line(
    client, builder, environment, function
):
    builder.lost_answers = 1
    builder.log_cuts += [1, 0]
    builder.refusals += [503]
    hooks = {"CALLBACK_URL": "https://hooks.example.com/built"}
    running = asyncio.create_task(
        run((*client, str(function), "r/a:1"), environment=environment | hooks)
    )
    await until(lambda: bool(builder.builds) or running.done())
    (build,) = builder.builds.values()
    build.lines += ["one", "two"]
    build.end("success")
    outcome = await running
    assert outcome.code == 0, outcome.output
    assert len(builder.builds) == 1
    assert [line for line in outcome.output.splitlines() if line in build.lines] == build.lines
    assert outcome.output.splitlines()[-1] == "r/a:1@sha256:1"
    assert f"build {build.id} is queued" in outcome.output
    assert len(set(builder.keys)) == 1
    assert builder.headers[0]["x-callback-url"] == hooks["CALLBACK_URL"]
    with tarfile.open(fileobj=io.BytesIO(builder.bodies[-1])) as archive:
        config = archive.extractfile("com.openfaas.docker.config")
        assert config is not None
        assert json.load(config)["image"] == "r/a:1"


async def test_a_build_is_found_again_by_its_id(client, builder, environment):
    build = builder.add("running", "one")
    build.end("failed", "it broke")
    outcome = await run((*client, build.id), environment=environment)
    assert outcome.code == 1
    assert outcome.output.splitlines() == ["one", "build failed: it broke"]


async def test_a_refusal_is_told(client, builder, environment):
    outcome = await run((*client, "0" * 24), environment=environment)
    assert outcome.code == 1
    assert "refused: 404" in outcome.output
    assert "there is no such build" in outcome.output


async def test_without_arguments_one_line_says_how_it_is_called(client):
    outcome = await run(client)
    assert outcome.code == 1
    (line,) = outcome.output.splitlines()
    assert line.startswith("usage: ")
    assert line.endswith(" ID")
