"""The engine with real programs: what it starts answers, comes back, and is gone at the end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import httpx2
import pytest

from function_builder.engine import (
    AddressTaken,
    BuildKitConfig,
    BuildKitDaemon,
    CacheLimits,
    Registry,
    StartFailed,
    find_tool,
)
from function_builder.engine.base_image import seed_base_image
from function_builder.engine.programs import RECIPES
from tests.support import free_address, running, until

pytestmark = pytest.mark.integration

DOCKERFILE = ("--frontend", "dockerfile.v0", "--local", "context=.", "--local", "dockerfile=.")


async def build(address, directory, dockerfile, *options):
    (directory / "Dockerfile").write_text(dockerfile)
    return await asyncio.create_subprocess_exec(
        *(find_tool("buildctl"), "--addr", address, "build", *DOCKERFILE, *options),
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def answers(address):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix("unix://")) == 0


async def test_a_function_is_built_on_the_seeded_base_and_pushed(buildkitd, registry, tmp_path):
    name = f"{registry}/engine/answer:1"
    dockerfile = "FROM busybox\nRUN test $((6*7)) = 42 && env sh -c 'id -un' | grep -x root\n"
    push = ("--output", f"type=image,name={name},push=true", "--no-cache")
    built = await build(buildkitd, tmp_path, dockerfile, *push)
    assert await built.wait() == 0
    manifest = f"http://{registry}/v2/engine/answer/manifests/1"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    pushed = httpx2.get(manifest, headers=accept, trust_env=False, timeout=60, verify=False)
    assert pushed.status_code == 200


async def test_the_base_image_is_pushed_once_and_always_the_same(tmp_path):
    digests = []
    for attempt in ("first", "second"):
        address = free_address()
        async with Registry(tmp_path / attempt, listen=address) as registry:
            assert await seed_base_image(registry.address) is True
            assert await seed_base_image(registry.address) is False
            manifest = f"http://{address}/v2/library/busybox/manifests/latest"
            accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
            answer = httpx2.head(
                manifest, headers=accept, trust_env=False, timeout=60, verify=False
            )
            digests.append(answer.headers["Docker-Content-Digest"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("buildkitd", "github.com/moby/buildkit"),
        ("registry", "github.com/distribution/distribution/v3"),
        ("nats-server", "github.com/nats-io/nats-server/v2"),
    ],
)
def test_a_program_says_the_version_that_its_recipe_pins(program, module):
    pinned = next(
        line.split()[1]
        for recipe in RECIPES.glob("*/go.mod")
        for line in recipe.read_text().splitlines()
        if line.split()[:1] == [module]
    )
    said = subprocess.run(
        [find_tool(program), "--version"], check=True, capture_output=True, text=True
    )
    assert pinned in said.stdout.split()


async def test_a_registry_says_that_its_address_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressTaken, match=address):
            async with Registry(tmp_path, listen=address):
                pass


async def test_a_killed_daemon_comes_back_and_builds(fresh_buildkitd, tmp_path):
    daemon = await fresh_buildkitd()
    first = daemon.pid
    os.killpg(first, signal.SIGKILL)
    await until(lambda: daemon.pid != first)
    await until(lambda: answers(daemon.address))
    assert await (await build(daemon.address, tmp_path, "FROM busybox\n")).wait() == 0


async def test_a_second_daemon_in_the_same_directory_is_refused_and_harms_nothing(
    fresh_buildkitd, engine_root, tmp_path
):
    first = await fresh_buildkitd()
    root = Path(first.address.removeprefix("unix://")).parent
    with pytest.raises(AddressTaken, match=first.address):
        async with BuildKitDaemon(root):
            pass
    assert await (await build(first.address, tmp_path, "FROM busybox\n")).wait() == 0


async def test_a_program_that_ends_at_its_start_is_quoted_in_one_line(engine_root):
    config = BuildKitConfig(cache=CacheLimits(most="much"))
    log = engine_root / "refused.log"
    with pytest.raises(StartFailed) as fault:
        async with BuildKitDaemon(engine_root / "refused", config=config, log=log):
            pass
    reason = "toml: invalid disk space much"
    assert str(fault.value) == f"buildkitd ended with exit code 1: {reason} (see {log})"


async def test_stopping_in_the_middle_of_a_build_leaves_nothing_running(
    engine_root, buildkit_config, tmp_path
):
    root = engine_root / "stopped"
    step = f"sleep 1000.{uuid.uuid4().int}"
    async with BuildKitDaemon(root, config=buildkit_config, log=engine_root / "log") as daemon:
        building = await build(daemon.address, tmp_path, f"FROM busybox\nRUN {step}\n")
        await until(lambda: running(step.replace(" ", "\0")))
    assert await building.wait() != 0
    # The kernel ends them: all have their signal, but may not have run since to die of it.
    await until(lambda: running(str(root)) == running(step.replace(" ", "\0")) == [])


OWNER = """
import asyncio, sys
from pathlib import Path
from function_builder.engine import BuildKitConfig, BuildKitDaemon

async def main(root, registry):
    config = BuildKitConfig(mirrors={"docker.io": [registry]}, plain_http=[registry])
    async with BuildKitDaemon(Path(root), config=config, log=Path(root + ".log")) as daemon:
        print(daemon.address, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_nothing_outlives_an_owner_that_is_killed_and_the_next_one_starts(
    engine_root, registry, tmp_path
):
    root = engine_root / "owned"
    step = f"sleep 1000.{uuid.uuid4().int}"
    for _ in range(2):
        owner = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", OWNER, str(root), registry),
            stdout=subprocess.PIPE,
        )
        assert owner.stdout is not None
        try:
            address = (await owner.stdout.readline()).decode().strip()
            building = await build(address, tmp_path, f"FROM busybox\nRUN {step}\n")
            await until(lambda: running(step.replace(" ", "\0")))
        finally:
            owner.kill()
            await owner.wait()
        await until(lambda: running(str(root)) == running(step.replace(" ", "\0")) == [])
        assert await building.wait() != 0
