"""BuildKit in a network of its own: what reaches the host's loopback interface, or metadata.

The source policy, which sees the addresses of a Dockerfile alone, stops none of these.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from function_builder.engine import find_tool
from function_builder.engine.own_network import OwnNetwork
from tests.support import free_address, host_network, until
from tests.support.commands import Builder, command, ourselves, printed
from tests.support.images import pull
from tests.support.ordinary_user import ordinary_user
from tests.support.requests import make_tar

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

HOST = "10.77.0.2"
"""An address of the host that is not on its loopback network."""
METADATA = ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd20:ce::254")


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Iterator[Path]:
    """A resolv.conf that names a server on the host's loopback interface."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("slirp4netns makes its network of /dev/net/tun")
    resolv_conf = tmp_path_factory.mktemp("names") / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\nsearch corp.internal\n")
    resolv_conf.parent.chmod(0o755)
    with (
        host_network.addresses(HOST, *METADATA),
        host_network.serving(host_network.names_on_loopback()),
    ):
        yield resolv_conf


@pytest_asyncio.fixture(params=["root", "rootless"], scope="module", loop_scope="module")
async def isolated(request, names: Path, engine_root: Path) -> AsyncIterator[Builder]:
    """`up`, which has pulled, run a step and pushed by now, all at its registry on 127.0.0.1."""
    with ordinary_user() as ordinary:
        user = ordinary if request.param == "rootless" else ourselves(engine_root / "isolated")
        state = user.home / "up"
        laid_over = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        within = (find_tool("unshare"), "--mount", "/bin/sh", "-c", laid_over, names)
        listen, registry = free_address(), free_address()
        flags = ("--listen", listen, "--metrics-listen", free_address())
        own = ("--registry-listen", registry, "--buildkit-network", "isolated")
        async with command(user, state, "up", *flags, *own, within=within) as up:
            shown = await printed(up, "Ctrl-C")
            assert f"image  {registry}/hello:latest@sha256:" in shown
            yield Builder(listen, (state / "payload-secret").read_text(), registry)


async def added(builder: Builder, source: str) -> dict[str, Any]:
    return await builder.post(
        make_tar({"Dockerfile": f"FROM scratch\nADD {source} /it/\n"}, {"skipPush": True})
    )


async def test_add_reaches_neither_the_hosts_loopback_interface_nor_metadata(isolated, tmp_path):
    web = host_network.WebServer("::")
    name = host_network.name_of
    with (
        host_network.serving(web) as port,
        host_network.git_repositories(tmp_path, HOST) as repositories,
    ):
        open_to_it = [
            f"http://{name(HOST)}:{port}/",
            f"http://{HOST}:{port}/to/{name(HOST)}:{port}",
            f"git://{repositories}/plain",
        ]
        for source in open_to_it:
            assert (await added(isolated, source))["status"] == "success", source
        assert web.asked == {HOST}
        closed = [
            *(f"http://{name(one)}:{port}/" for one in ("127.0.0.1", "10.0.2.2", *METADATA)),
            f"http://{HOST}:{port}/to/127.0.0.1:{port}",
            f"http://{HOST}:{port}/to/{METADATA[0]}:{port}",
            f"git://{repositories}/outer",
        ]
        for source in closed:
            reply = await added(isolated, source)
            assert reply["status"] == "failed", source
            assert re.search("refused|unreachable|permission denied|route to host", str(reply))
        assert web.asked == {HOST}


async def test_a_step_reaches_of_the_hosts_loopback_interface_the_registry_alone(isolated):
    web = host_network.WebServer("::")
    with host_network.serving(web) as port:
        hidden = [*(f"{one}:{port}" for one in ("127.0.0.1", *METADATA[:3])), isolated.address]
        open_to_it = [f"{HOST}:{port}", isolated.registry]
        expected = dict.fromkeys(hidden, False) | dict.fromkeys(open_to_it, True)
        assert await isolated.reached(hidden + open_to_it) == expected
    assert web.asked == {HOST}


async def test_what_it_pushes_is_in_the_hosts_registry(isolated):
    image = f"{isolated.registry}/own/network:1"
    dockerfile = "FROM busybox\nRUN echo 42 > /answer\n"
    reply = await isolated.post(make_tar({"Dockerfile": dockerfile}, {"image": image}))
    assert reply["status"] == "success", reply
    assert pull(isolated.registry, "own/network", "1").digest == reply["digest"]


async def test_its_network_is_restarted(names):
    async def routes() -> bytes:
        process = await asyncio.create_subprocess_exec(
            *(*network.enter, "cat", "/proc/net/route"), stdout=asyncio.subprocess.PIPE
        )
        return (await process.communicate())[0]

    async with OwnNetwork() as network:
        first = network.pid
        assert b"tap0" in await routes()
        os.kill(first, signal.SIGKILL)
        await until(lambda: network.pid != first)
        async with asyncio.timeout(60):
            while b"tap0" not in await routes():
                await asyncio.sleep(0.05)
