"""Several BuildKits: each function at home on one, whichever builder it is sent to."""

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from function_builder.engine import BuildKitDaemon
from tests.support import children, paused, until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import pull
from tests.support.requests import headers, make_tar
from tests.support.servers import serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@dataclass
class Stage:
    """BuildKits, and builders that use all of them."""

    registry: str
    daemons: list[BuildKitDaemon]
    builders: list[RunningBuilder]
    http: httpx2.AsyncClient

    async def build(self, function: str, step: str, *, builder: int = 0) -> dict[str, Any]:
        """Build a function; the reply."""
        body = make_tar(
            {"Dockerfile": f"FROM busybox\nRUN {step}\n"},
            {"image": f"{self.registry}/{function}:1"},
        )
        answer = await self.http.post(
            f"{self.builders[builder].url}/build", content=body, headers=headers(body)
        )
        reply = answer.json()
        assert isinstance(reply, dict)
        return reply

    async def made(self, function: str, *, builder: int = 0) -> str:
        """Build a function; what its step made, which is something else whenever it runs."""
        # BuildKit knows no functions: equal steps of two have one cache.
        step = f"cat /proc/sys/kernel/random/uuid > /made # {function}"
        reply = await self.build(function, step, builder=builder)
        assert reply["status"] == "success", reply
        image = await asyncio.to_thread(pull, self.registry, function, "1")
        return image.text("made")

    async def until_up(self, number: int) -> None:
        """Wait until so many BuildKits answer, for all that each builder knows."""
        sample = 'buildkit_daemons{state="up"}'
        await until(lambda: all(each.metric(sample) == number for each in self.builders))


def steps_of(daemon: BuildKitDaemon) -> int:
    """How many steps a BuildKit runs: each is a child of its own."""
    found, parents = 0, [daemon.pid]
    while parents:
        parent = parents.pop()
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{parent}/comm").read_text() == "runc\n"
            parents += children(parent)
    return found


@pytest.fixture
async def stage(fresh_buildkitd, registry, tmp_path, http) -> AsyncIterator[Stage]:
    daemons = [await fresh_buildkitd() for _ in range(3)]
    url = ",".join(daemon.address for daemon in daemons)
    async with AsyncExitStack() as stack:
        builders = [
            await stack.enter_async_context(running_builder(tmp_path / str(number), url))
            for number in range(2)
        ]
        stage = Stage(registry, daemons, builders, http)
        await stage.until_up(3)
        yield stage


async def test_any_builder_finds_the_cache_of_a_function(stage):
    functions = [f"pool/{uuid.uuid4().hex}" for _ in range(6)]
    made = [await stage.made(function) for function in functions]
    assert len(set(made)) == 6
    assert [await stage.made(function, builder=1) for function in functions] == made
    sample = 'builds_placed_total{reason="home"}'
    assert [builder.metric(sample) for builder in stage.builders] == [6, 6]


async def test_builds_whose_buildkit_dies_begin_again_elsewhere_and_the_others_go_on(stage, steps):
    functions = [f"pool/{uuid.uuid4().hex}" for _ in range(9)]
    builds = [asyncio.create_task(stage.build(name, steps.call(name))) for name in functions]
    await steps.reached(*functions)
    counts = {daemon.address: steps_of(daemon) for daemon in stage.daemons}
    assert sum(counts.values()) == 9
    victim = max(stage.daemons, key=lambda daemon: counts[daemon.address])
    os.killpg(victim.pid, signal.SIGKILL)
    died = counts[victim.address]
    await until(lambda: steps.visits == 9 + died)
    steps.open()
    replies = await asyncio.gather(*builds)
    assert [reply["status"] for reply in replies] == ["success"] * 9
    again = [
        reply for reply in replies if any("retrying on another" in line for line in reply["log"])
    ]
    sample = 'builds_placed_total{reason="lost"}'
    assert stage.builders[0].metric(sample) == len(again) == died


async def test_a_build_is_not_retried_on_one_that_does_not_answer(
    fresh_buildkitd, registry, tmp_path, http, steps
):
    daemon = await fresh_buildkitd()
    addresses = f"{daemon.address},unix://{tmp_path}/absent"
    async with running_builder(tmp_path / "builder", addresses) as builder:
        stage = Stage(registry, [daemon], [builder], http)
        await stage.until_up(1)
        name = f"pool/{uuid.uuid4().hex}"
        build = asyncio.create_task(stage.build(name, steps.call(name)))
        await steps.reached(name)
        os.killpg(daemon.pid, signal.SIGKILL)
        reply = await build
    assert reply["status"] == "failed"
    assert not any("retrying on another" in line for line in reply["log"])


async def test_one_that_dies_while_it_reads_the_dockerfile_is_not_followed_by_another(stage):
    """It reads in its own memory: the same Dockerfile may end the next one too."""
    asked = asyncio.Event()

    async def never_answers(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()

    async with serving(never_answers) as address:
        body = make_tar({"Dockerfile": f"FROM {address}/base\n"}, {"skipPush": True})
        url = f"{stage.builders[0].url}/build"
        post = stage.http.post(url, content=body, headers=headers(body))
        build = asyncio.create_task(post)
        await asked.wait()
        for daemon in stage.daemons:
            os.killpg(daemon.pid, signal.SIGKILL)
        reply = (await build).json()
    assert reply["status"] == "failed"
    assert not any("retrying on another" in line for line in reply["log"])


async def test_a_buildkit_that_is_away_is_left_out(stage):
    away = stage.daemons.pop()
    async with paused(away.pid):
        await stage.until_up(2)
        functions = [f"pool/{uuid.uuid4().hex}" for _ in range(6)]
        assert len({await stage.made(function) for function in functions}) == 6
        answer = await stage.http.get(f"{stage.builders[0].url}/ready")
        assert answer.status_code == 200
    await stage.until_up(3)
