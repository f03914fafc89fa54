"""BuildKit dies, stops, says nothing, or has no disk left."""

import asyncio
import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from aiobuildkit import Client, ConnectionLost, FileSync, LocalDirectory
from function_builder.engine import BuildKitConfig, BuildKitDaemon
from tests.adversarial.faults.asking import ask, is_free, is_whole
from tests.support import paused, until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import headers, make_tar
from tests.support.servers import serving

pytestmark = pytest.mark.integration

SKIP = {"skipPush": True}


async def test_killed_in_the_middle_of_builds_it_comes_back_and_so_does_the_builder(
    fresh_buildkitd, tmp_path, http, steps
):
    daemon = await fresh_buildkitd()
    async with running_builder(tmp_path / "b", daemon.address, max_inflight="2") as builder:
        for turn in ("once", "twice"):
            names = [f"{turn}-{number}" for number in range(2)]
            lost = [asyncio.create_task(ask(http, builder, steps.body(name))) for name in names]
            await steps.reached(*names)
            os.killpg(daemon.pid, signal.SIGKILL)
            for reply in await asyncio.gather(*lost):
                assert reply["status"] == "failed"
                assert "BuildKit was lost" in reply["error"]
            await is_whole(http, builder)


async def test_its_own_memory_has_a_limit_and_steps_do_not_count(
    engine_root, buildkit_config, tmp_path, http
):
    """What it expands is no step's: without a limit of its own it takes the machine's memory."""
    if os.geteuid():
        pytest.skip("root alone makes control groups")
    grows = f"FROM busybox\nARG A={'a' * 100}\n" + f"ARG A={'$A' * 10}\n" * 7 + "RUN :\n"
    (tmp_path / "Dockerfile").write_text(grows)
    tree = LocalDirectory(tmp_path)
    root = engine_root / "small"
    daemon = BuildKitDaemon(root, config=buildkit_config, memory=200 << 20, log=root / "log")
    root.mkdir()
    async with daemon, running_builder(tmp_path / "b", daemon.address) as builder:
        files = FileSync({"dockerfile": tree, "context": tree})
        with capture_logs() as logged:
            async with (
                Client(daemon.address) as client,
                client.solve(attachables=[files], shared_key="grows") as solve,
            ):
                with pytest.raises(ConnectionLost):
                    await solve.result()
            await until(lambda: "program restarted" in [line["event"] for line in logged])
        await is_whole(http, builder)
        step = "FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=300M count=1\n"
        body = make_tar({"Dockerfile": step}, SKIP)
        answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
        assert answer.json()["status"] == "success", answer.text
    (died,) = [line for line in logged if line["event"] == "program died"]
    assert died["how"].endswith(": its memory limit of 200 MiB")


class WithoutCollector(BuildKitConfig):
    """BuildKit's collector runs a second after its start, and takes such leftovers along."""

    def toml(self, **given: Any) -> str:
        return super().toml(**given).replace("gc = true", "gc = false")


async def test_what_a_killed_one_left_is_met_once_and_costs_no_build(
    engine_root, buildkit_config, tmp_path, http
):
    """A snapshot's directory without its record, in the way of one of the next."""
    root = engine_root / "leftover"
    config = WithoutCollector(buildkit_config.mirrors, buildkit_config.plain_http)
    daemon = BuildKitDaemon(root, config=config, log=tmp_path / "log")

    async def build(builder: RunningBuilder, number: int) -> list[str]:
        dockerfile = f"FROM busybox\nRUN echo {number} > /it\nRUN echo {number + 1} > /it\n"
        body = make_tar({"Dockerfile": dockerfile}, SKIP)
        answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
        assert answer.status_code == 200, answer.text
        log = answer.json()["log"]
        return [line for line in log if "retrying the build" in line]

    async with daemon, running_builder(tmp_path / "b", daemon.address) as builder:
        assert not await build(builder, 1)
    (snapshots,) = root.glob("state/*/snapshots/snapshots")
    latest = max(int(path.name) for path in snapshots.iterdir())
    (snapshots / str(latest + 3) / "fs").mkdir(parents=True)
    async with daemon, running_builder(tmp_path / "c", daemon.address) as builder:
        assert await build(builder, 3)
        assert not await build(builder, 5)


async def test_stopped_for_a_while_a_build_goes_on(fresh_buildkitd, tmp_path, http, steps):
    daemon = await fresh_buildkitd()
    async with running_builder(tmp_path / "b", daemon.address, max_inflight="2") as builder:
        building = asyncio.create_task(ask(http, builder, steps.body("while")))
        await steps.reached("while")
        async with paused(daemon.pid):
            # It has a slot to give, and no BuildKit to give it on.
            await until(lambda: builder.get("/ready").status_code == 503)
        await steps.let("while")
        assert (await building)["status"] == "success"
        await is_whole(http, builder)


async def test_stopped_for_good_it_costs_a_build_its_time(fresh_buildkitd, tmp_path, http, steps):
    daemon = await fresh_buildkitd()
    # In that time a step begins on a BuildKit that holds nothing yet.
    settings = {"max_inflight": "1", "build_timeout": "20s"}
    async with running_builder(tmp_path / "b", daemon.address, **settings) as builder:
        building = asyncio.create_task(ask(http, builder, steps.body("good")))
        await steps.reached("good")
        async with paused(daemon.pid):
            reply = await building
            assert reply["status"] == "failed"
            assert "build_timeout" in reply["error"]
            is_free(builder)
            # And whoever comes now is told, in bounded time.
            assert (await ask(http, builder))["status"] == "failed"
            is_free(builder)
        await is_whole(http, builder)


async def test_one_that_takes_connections_and_says_nothing(tmp_path, http):
    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    async with serving(silent, path=tmp_path / "silent") as address:
        settings = {"max_inflight": "1", "wait_for": "/healthz"}
        async with running_builder(tmp_path / "b", address, **settings) as builder:
            assert builder.get("/ready").status_code == 503
            reply = await ask(http, builder)
            assert reply["status"] == "failed"
            assert "BuildKit" in reply["error"]
            is_free(builder)


def fill_up(ballast: Path, left: int) -> None:
    """Fill a disk by a file but for so many bytes, whatever else is written there meanwhile."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(file.tell() - left, 0))


async def test_its_disk_is_full(small_disk, buildkit_config, tmp_path, http):
    root = small_disk("full", "48m")
    ballast = root / "ballast"
    body = make_tar({"Dockerfile": "FROM scratch\nCOPY . /\n", "b": bytes(10 << 20)}, SKIP)
    async with (
        BuildKitDaemon(root / "bk", config=buildkit_config, log=tmp_path / "log") as daemon,
        running_builder(tmp_path / "b", daemon.address, max_inflight="1") as builder,
    ):
        await is_whole(http, builder)
        for left in (5 << 20, 0):
            fill_up(ballast, left)
            reply = await ask(http, builder, body)
            assert reply["status"] == "failed"
            assert "no space left on device" in reply["error"]
            assert str(root) not in reply["error"]
            ballast.unlink()
            await is_whole(http, builder)
