"""The builder's own machine: no room in the spool, no descriptors, clocks that jump, SIGKILL."""

import asyncio
import os
import resource
import signal
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.adversarial.faults.asking import GOOD, ask, descriptors, is_free, is_whole, spooled
from tests.support import free_address, running, until
from tests.support.builders import plain_get, running_builder
from tests.support.requests import SECRET, headers, make_tar

pytestmark = pytest.mark.integration

SKIP = {"skipPush": True}


async def test_a_full_spool_is_507_and_empty_after(small_disk, buildkitd, tmp_path, http):
    spool = small_disk("spool", "3m")
    settings = {"max_inflight": "1", "spool_dir": str(spool)}
    body = make_tar({"Dockerfile": "FROM scratch\nCOPY . /\n", "a": os.urandom(5_000_000)}, SKIP)
    async with running_builder(tmp_path / "b", buildkitd, **settings) as builder:
        for _ in range(3):
            answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
            assert answer.status_code == 507
            assert answer.headers["retry-after"]
            assert answer.json()["error"] == "the builder's disk is full: try again later"
            assert os.statvfs(spool).f_bfree == os.statvfs(spool).f_blocks
            is_free(builder)
        fits = make_tar(
            {"Dockerfile": "FROM scratch\nCOPY . /\n", "a": os.urandom(2_000_000)}, SKIP
        )
        assert (await ask(http, builder, fits))["status"] == "success"
        await is_whole(http, builder)


def _used(folder: Path) -> int:
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


async def test_bodies_keep_to_what_they_may_take_of_a_disk(small_disk, buildkitd, tmp_path, http):
    spool = small_disk("bounded", "20m")
    settings = {"spool_dir": str(spool), "max_spool_bytes": "4MiB"}
    files = {"Dockerfile": b"FROM scratch\nCOPY . /\n", "a": os.urandom(3 << 20)}
    async with running_builder(tmp_path / "b", buildkitd, **settings) as builder:
        body = make_tar(files, SKIP)
        there, finished = asyncio.Event(), asyncio.Event()

        async def slowly():
            yield body[:-1000]
            there.set()
            await finished.wait()
            yield body[-1000:]

        sent = headers(body) | {"Content-Length": str(len(body))}
        first = asyncio.create_task(
            http.post(f"{builder.url}/build", content=slowly(), headers=sent)
        )
        await there.wait()
        # The third waits in memory until it is whole.
        await until(lambda: _used(spool) >= 2 << 20)
        answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
        assert answer.status_code == 507
        assert answer.headers["retry-after"]
        finished.set()
        assert (await first).json()["status"] == "success"
        # And one that never could be taken is told so.
        body = make_tar(files | {"b": bytes(2 << 20)}, SKIP)
        answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
        assert answer.status_code == 413
        await is_whole(http, builder)


async def test_without_descriptors_requests_wait_or_fail_and_the_builder_lives(
    buildkitd, tmp_path, http
):
    async with running_builder(tmp_path / "b", buildkitd, max_inflight="4") as builder:
        await is_whole(http, builder)
        pid = builder.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        held = len(descriptors(pid))
        # Each build takes two at least: for its client, and for BuildKit.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (held + 5, usual[1]))
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=False) as crowd:
            sent = headers(GOOD, stream=True)
            asked = [
                asyncio.create_task(crowd.post(f"{builder.url}/build", content=GOOD, headers=sent))
                for _ in range(16)
            ]
            # Where there are none left libuv takes a connection and hangs up.
            done, _ = await asyncio.wait(asked, timeout=60, return_when=asyncio.FIRST_EXCEPTION)
            assert any(task.exception() for task in done), "there were enough"
            assert builder.process.returncode is None
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
            # Those that waited to be heard are heard now.
            for answer in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(answer, BaseException):
                    assert isinstance(answer, httpx2.TransportError), answer
                else:
                    assert answer.status_code in (200, 429, 503), answer.text
                    assert "Traceback" not in answer.text
        await is_whole(http, builder)


def faketime() -> str:
    """Debian's libfaketime, which answers a process that asks for the time."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return str(library)


@pytest.mark.parametrize("jump", ["+1000d", "-1000d"], ids=["ahead", "back"])
async def test_a_clock_that_jumps_ends_no_build(buildkitd, tmp_path, http, steps, jump):
    clock = tmp_path / "clock"
    clock.write_text("+0")
    settings = {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # As a machine's: what counts the seconds since its start knows nothing of a jump.
        "DONT_FAKE_MONOTONIC": "1",
    }
    async with running_builder(
        tmp_path / "b", buildkitd, max_inflight="1", build_timeout="60s", **settings
    ) as builder:
        building = asyncio.create_task(ask(http, builder, steps.body("jump")))
        await steps.reached("jump")
        clock.write_text(jump)
        await steps.let("jump")
        reply = await building
        assert reply["status"] == "success", reply
        assert 0 <= reply["duration"] < 60
        await is_whole(http, builder)
        seen = datetime.fromisoformat(builder.lines()[-1]["timestamp"])
        assert abs(seen - datetime.now(UTC)) > timedelta(days=900), "it has not seen the jump"


async def test_a_builder_that_is_killed_leaves_nothing_and_starts_again_at_once(
    engine_root, tmp_path, http
):
    state, spool = engine_root / "killed", tmp_path / "spool"
    spool.mkdir()
    (tmp_path / "payload-secret").write_text(SECRET)
    listen = free_address()
    large = make_tar({"Dockerfile": "FROM scratch\n", "large": bytes(4_000_000)}, SKIP)
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "function_builder", "serve", "--listen", listen),
            env={
                "PATH": os.environ["PATH"],
                "metrics_listen": free_address(),
                "secret_mount_path": str(tmp_path),
                "state_dir": str(state),
                "spool_dir": str(spool),
                "drain_delay": "0",
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until(lambda: _ready(listen))
            answer = await http.post(f"http://{listen}/build", content=GOOD, headers=headers(GOOD))
            assert answer.json()["status"] == "success"
            # In the middle of an upload that has reached the disk.
            host, port = listen.split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = "".join(f"{name}: {value}\r\n" for name, value in headers(large).items())
            head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(large)}\r\n{head}\r\n"
            writer.write(head.encode() + large[:3_000_000])
            await writer.drain()
            await until(partial(spooled, process.pid))
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        writer.close()
        await until(lambda: running(str(state)) == [])
        assert list(spool.iterdir()) == []


def _ready(listen: str) -> bool:
    try:
        return plain_get(f"http://{listen}/ready").status_code == 200
    except httpx2.TransportError:
        return False
