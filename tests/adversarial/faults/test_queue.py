"""Programs that a queued build needs are away, or come late; `test_steps.py` kills them."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import httpx2
import pytest

from function_builder.engine import NatsServer
from tests.support import free_address, paused, until, until_equal
from tests.support.builders import running_builder
from tests.support.holding import nats_proxy
from tests.support.queued import ENDS, QueueClient, slow, tiny
from tests.support.receivers import receiver
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration


@pytest.fixture
async def nats(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        yield server


@pytest.fixture
def settings(nats, tmp_path):
    return {"nats_url": nats.url, "store_url": (tmp_path / "store").as_uri(), "max_inflight": "2"}


async def test_while_nats_is_silent_synchronous_builds_go_on_and_asynchronous_ones_are_refused(
    nats, settings, tmp_path, buildkitd, http
):
    async with running_builder(tmp_path / "a", buildkitd, **settings) as builder:
        client = QueueClient(http, builder.url)
        before = await client.submitted(tiny("before"))
        await client.until(before, *ENDS)
        async with paused(nats.pid):
            body = tiny("synchronous")
            answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
            assert answer.status_code == 200
            refused = await client.submit(tiny("refused"))
            assert refused.status_code == 503
        after = await client.submitted(tiny("after"))
        assert (await client.until(after, *ENDS))["status"] == "success"
        found = await client.until(answer.headers["X-Build-Id"], *ENDS)
        assert found["status"] == "success"


async def test_a_builder_may_start_before_nats(tmp_path, buildkitd, http):
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    async with nats_proxy(free_address()) as proxy:
        settings = {
            "nats_url": f"{server.url}{proxy.address}",
            "store_url": (tmp_path / "store").as_uri(),
        }
        async with running_builder(tmp_path / "a", buildkitd, **settings) as builder:
            assert "the queue cannot be reached" in builder.get("/ready").text
            client = QueueClient(http, builder.url)
            assert (await client.submit(tiny("refused"))).status_code == 503
            body = tiny("synchronous")
            answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
            assert answer.status_code == 200
            async with server:
                proxy.server = server.url.rpartition("@")[2]
                await until(lambda: "cannot" not in builder.get("/ready").text)
                build_id = await client.submitted(tiny("accepted"))
                assert (await client.until(build_id, *ENDS))["status"] == "success"
                # Its record waited.
                await client.until(answer.headers["X-Build-Id"], "success")


async def test_a_builder_that_nats_refuses_does_not_start(nats, settings, tmp_path, buildkitd):
    address = nats.url.rpartition("@")[2]
    wrong = settings | {"nats_url": f"nats://wrong@{address}"}
    root = tmp_path / "a"
    with pytest.raises(AssertionError, match="nats_url cannot be used: it refuses the user"):
        async with running_builder(root, buildkitd, **wrong):
            pass


async def test_a_build_that_ends_its_buildkit_fails_and_those_beside_it_do_not(
    settings, tmp_path, fresh_buildkitd, http
):
    daemon = await fresh_buildkitd()
    settings["max_inflight"] = "3"
    async with running_builder(tmp_path / "a", daemon.address, **settings) as builder:
        client = QueueClient(http, builder.url)
        # Each is lost with the first attempts, and would be with the last.
        beside = [await client.submitted(slow(4, f"beside{number}")) for number in range(2)]
        poison = await client.submitted(slow(60, "poison"))
        for build_id in (poison, *beside):
            await client.until_logged(build_id, "begun")

        kills = 0
        async for line in client.lines(poison):
            if "begun poison" in line:
                kills += 1
                os.killpg(daemon.pid, signal.SIGKILL)
        build = await client.until(poison, *ENDS)
        # An attempt may begin a second time by itself.
        assert kills >= build["attempt"] == 3
        assert build["status"] == "failed"
        for build_id in beside:
            assert (await client.until(build_id, *ENDS))["status"] == "success"


async def test_a_synchronous_build_whose_builder_was_killed_has_failed(
    settings, tmp_path, buildkitd, http, steps
):
    settings["lost_after"] = "1s"
    async with (
        running_builder(tmp_path / "a", buildkitd, **settings) as victim,
        running_builder(tmp_path / "b", buildkitd, **settings) as other,
    ):
        body = steps.body("lost")
        building = asyncio.create_task(
            http.post(f"{victim.url}/build", content=body, headers=headers(body))
        )
        await steps.reached("lost")
        client = QueueClient(http, other.url)
        async with asyncio.timeout(60):
            while not (listed := await client.all()):
                await asyncio.sleep(0.05)
        (build,) = listed
        assert (build["status"], build["asynchronous"]) == ("running", False)
        victim.process.kill()
        await victim.process.wait()
        with pytest.raises(httpx2.TransportError):
            await building
        build = await client.until(build["buildId"], *ENDS)
        assert (build["status"], build["error"]) == ("failed", "the builder that ran it was lost")
        assert [each["status"] for each in await client.all()] == ["failed"]


async def test_clocks_that_jump_lose_no_build_and_end_none_early(
    settings, tmp_path, buildkitd, http, steps
):
    clock = tmp_path / "clock"
    clock.write_text("+0")
    settings |= {"max_inflight": "1", "callback_hosts": "127.0.0.0/8:*"}
    async with (
        receiver() as told,
        running_builder(tmp_path / "a", buildkitd, **settings | faked(clock)) as wrong,
    ):
        client = QueueClient(http, wrong.url)
        extra = {"X_Callback_Url": f"http://127.0.0.1:{told.port}/"}
        config = {"skipPush": True, "queueTimeout": 3600}
        waiting = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, config)
        accepted = [await client.submitted(steps.body("jumps"), **extra)]
        await steps.reached("jumps")
        accepted.append(await client.submitted(waiting, Idempotency_Key='"wait"', **extra))
        for number, jump in enumerate(("+30h", "-30h")):
            clock.write_text(jump)
            refused = await client.ask("GET", "/builds")
            assert refused.status_code == 401
            assert "the builder's clock" in refused.text
            again = await client.submitted(waiting, Idempotency_Key='"wait"', **extra)
            assert again == accepted[1]
            accepted.append(await client.submitted(tiny(f"jump{number}"), **extra))
        async with running_builder(tmp_path / "b", buildkitd, **settings) as right:
            client = QueueClient(http, right.url)
            await steps.let("jumps")
            for build_id in accepted:
                build = await client.until(build_id, *ENDS)
                assert (build["status"], build["attempt"]) == ("success", 1), build
            listed = [each["buildId"] for each in await client.all()]
            assert sorted(listed) == sorted(accepted)
            await until_equal(
                lambda: len({each.headers["webhook-id"] for each in told.requests}), len(accepted)
            )


async def test_a_full_disk_of_the_store_refuses_builds_and_ends_none(  # noqa: PLR0917 (fixtures)
    settings, tmp_path, buildkitd, http, steps, small_disk
):
    disk = small_disk("store", "2m")
    settings["store_url"] = disk.as_uri()
    async with running_builder(tmp_path / "a", buildkitd, **settings) as builder:
        client = QueueClient(http, builder.url)
        running = await client.submitted(steps.body("full"))
        await steps.reached("full")
        fill(disk)
        refused = await client.submit(tiny("refused"))
        assert refused.status_code == 507, refused.text
        await steps.let("full")
        await until(lambda: "cannot be stored yet" in builder.log.read_text())
        (disk / "filling").unlink()
        assert (await client.until(running, *ENDS))["status"] == "success"
        assert any("through-full" in line for line in await client.log(running))
        after = await client.submitted(tiny("after"))
        assert (await client.until(after, *ENDS))["status"] == "success"
        assert len(await client.all()) == 2


async def test_a_full_disk_of_the_queue_refuses_builds_and_ends_none(
    tmp_path, buildkitd, http, steps, small_disk
):
    disk = small_disk("queue", "8m")
    async with NatsServer(disk / "nats", log=tmp_path / "nats.log") as nats:
        settings = {"nats_url": nats.url, "store_url": (tmp_path / "store").as_uri()}
        async with running_builder(tmp_path / "a", buildkitd, **settings) as builder:
            client = QueueClient(http, builder.url)
            running = await client.submitted(steps.body("full"))
            await steps.reached("full")
            fill(disk)
            async with asyncio.timeout(60):
                while (answer := await client.submit(tiny("refused"))).status_code == 202:
                    pass
            assert answer.status_code in (503, 507), answer.text
            await steps.let("full")
            (disk / "filling").unlink()
            assert (await client.until(running, *ENDS))["status"] == "success"
            after = await client.submitted(tiny("after"))
            assert (await client.until(after, *ENDS))["status"] == "success"


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with (disk / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def faked(clock: Path) -> dict[str, str]:
    """What has a process read its clock from a file, but not the seconds since its start."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
