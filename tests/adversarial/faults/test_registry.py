"""The registry refuses, is silent, cuts uploads, or has no disk left; a slow one is waited for."""

import os
import threading

import pytest

from tests.adversarial.faults.asking import ask, is_whole
from tests.support.builders import running_builder
from tests.support.registries import RESET, faulty_registry, running_registry
from tests.support.requests import make_tar

pytestmark = pytest.mark.integration


def pushing(registry: str, size: int = 100_000) -> bytes:
    """A function that is new to every registry."""
    files = {"Dockerfile": b"FROM scratch\nCOPY . /\n", "content": os.urandom(size)}
    return make_tar(files, {"image": f"{registry}/faults/push:1"})


async def test_an_upload_that_is_cut_each_time_fails_its_build(buildkitd, registry, tmp_path, http):
    settings = {"max_inflight": "1", "insecure": "true"}
    with faulty_registry(registry) as faulty:
        async with running_builder(tmp_path / "b", buildkitd, **settings) as builder:
            faulty.fault = lambda method, _: RESET if method == b"PUT" else None
            reply = await ask(http, builder, pushing(faulty.address, 5_000_000))
            assert reply["status"] == "failed"
            assert "failed to push" in reply["error"]
            await is_whole(http, builder)
            faulty.fault = lambda _method, _path: None
            assert (await ask(http, builder, pushing(faulty.address)))["status"] == "success"


async def test_a_silent_one_costs_a_build_its_time(buildkitd, registry, tmp_path, http):
    settings = {"max_inflight": "1", "insecure": "true", "build_timeout": "15s"}
    over = threading.Event()

    def silent(_method: bytes, _path: bytes) -> bytes:
        over.wait(60)
        return RESET

    with faulty_registry(registry) as faulty:
        try:
            async with running_builder(tmp_path / "b", buildkitd, **settings) as builder:
                faulty.fault = silent
                reply = await ask(http, builder, pushing(faulty.address))
                assert reply["status"] == "failed"
                assert "build_timeout" in reply["error"]
                await is_whole(http, builder)
        finally:
            over.set()


async def test_a_slow_one_is_waited_for(buildkitd, registry, tmp_path, http):
    asked: list[bytes] = []

    def slow(method: bytes, _path: bytes) -> None:
        asked.append(method)
        threading.Event().wait(0.5)

    with faulty_registry(registry) as faulty:
        async with running_builder(tmp_path / "b", buildkitd, insecure="true") as builder:
            faulty.fault = slow
            reply = await ask(http, builder, pushing(faulty.address))
            assert reply["status"] == "success"
            assert asked.count(b"PUT") > 2


async def test_its_disk_is_full(small_disk, buildkitd, tmp_path, http):
    settings = {"max_inflight": "1", "insecure": "true"}
    async with (
        running_registry(small_disk("registry-full", "2m")) as registry,
        running_builder(tmp_path / "b", buildkitd, **settings) as builder,
    ):
        assert (await ask(http, builder, pushing(registry)))["status"] == "success"
        reply = await ask(http, builder, pushing(registry, 5_000_000))
        assert reply["status"] == "failed"
        assert "failed to push" in reply["error"]
        await is_whole(http, builder)
