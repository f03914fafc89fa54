"""The whole stack as an ordinary user, and what a RUN step reaches in each mode.

docs/network.md says what is shown here of the network, SECURITY.md what of processes.
"""

import asyncio
import lzma
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from function_builder.engine import Registry, find_tool
from tests.support import free_address, host_network
from tests.support.archives import one_file
from tests.support.commands import Builder, command, ourselves, printed, with_busybox
from tests.support.images import pull
from tests.support.ordinary_user import OrdinaryUser, ordinary_user
from tests.support.requests import SECRET, make_tar
from tests.support.servers import serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

METADATA = "169.254.169.254"
"""Where clouds hand out the credentials of their machines."""


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rootless(user: OrdinaryUser) -> AsyncIterator[Builder]:
    """`up`, which has built its example by now, RUN step and push included."""
    listen, registry, state = free_address(), free_address(), user.home / "up"
    flags = ("--listen", listen, "--metrics-listen", free_address(), "--registry-listen", registry)
    async with command(user, state, "up", *flags) as up:
        shown = await printed(up, "Ctrl-C")
        assert f"image  {registry}/hello:latest@sha256:" in shown
        # Read by root or by ourselves: the file is the user's alone.
        yield Builder(listen, (state / "payload-secret").read_text(), registry)
        up.terminate()
        await up.communicate()
        assert up.returncode == 0


@pytest.fixture(scope="module")
def host_address() -> Iterator[str]:
    """An address of this host that is not on its loopback network, and the metadata's."""
    address = "10.77.0.1"
    with host_network.addresses(address, METADATA):
        yield address


@pytest_asyncio.fixture(
    params=["slirp4netns", "bridge", "bridge, isolated"], scope="module", loop_scope="module"
)
async def on_own_network(
    request, user: OrdinaryUser, host_address: str, engine_root: Path
) -> AsyncIterator[Builder]:
    """`serve` whose steps have a network of their own, and a registry that either can reach."""
    steps, _, isolated = request.param.partition(", ")
    if request.param != "bridge" and not Path("/dev/net/tun").exists():  # noqa: ASYNC240 (it does not block)
        pytest.skip("slirp4netns makes its network of /dev/net/tun")
    who = user if steps == "slirp4netns" else ourselves(engine_root / f"root-{isolated}")
    registry = f"{host_address}:{free_address().partition(':')[2]}"
    listen, secrets = free_address(), who.home / "secrets"
    secrets.mkdir(mode=0o755)
    (secrets / "payload-secret").write_text(SECRET)
    blobs = engine_root / f"reached-{steps}-{isolated}"
    async with (
        Registry(blobs, listen=registry, log=blobs.with_suffix(".log")),
        command(
            who,
            who.home / "serve",
            "serve",
            listen=listen,
            metrics_listen=free_address(),
            secret_mount_path=str(secrets),
            run_network=steps,
            buildkit_network=isolated or "host",
            insecure="true",
            drain_delay="0",
        ) as serve,
    ):
        assert "this host's network" not in await printed(serve, "serving")
        yield Builder(listen, SECRET, registry)


def is_isolated(request: pytest.FixtureRequest) -> bool:
    """Whether BuildKit itself has a network of its own."""
    return bool(request.node.callspec.params["on_own_network"] != "bridge")


@contextmanager
def listener(host: str) -> Iterator[str]:
    """A program that answers HTTP there; its `host:port`."""
    with host_network.serving(host_network.WebServer(host)) as port:
        yield f"{host}:{port}"


async def test_a_pushed_image_is_the_registrys(rootless):
    """A build by hand, beside the example that `up` has built."""
    image = f"{rootless.registry}/by/hand:1"
    step = "id -u | grep -x 0 && grep -x added /file && echo 42 > /answer"
    dockerfile = f"FROM busybox\nADD added.tar.xz /\nRUN {step}\n"
    added = lzma.compress(one_file(b"file", b"added\n"))
    files: dict[str, bytes | str] = {"Dockerfile": dockerfile, "added.tar.xz": added}
    reply = await rootless.post(make_tar(files, {"image": image}))
    assert reply["status"] == "success", reply
    assert pull(rootless.registry, "by/hand", "1").digest == reply["digest"]


@pytest.fixture(params=["root", "rootless"])
def on_hosts_network(request) -> Builder:
    if request.param == "rootless":
        builder: Builder = request.getfixturevalue("rootless")
        return builder
    shared = request.getfixturevalue("builder")
    address = shared.url.removeprefix("http://")
    return Builder(address, SECRET, request.getfixturevalue("registry"))


async def test_with_the_hosts_network_a_step_reaches_all_that_the_host_does(
    on_hosts_network, host_address
):
    with listener("127.0.0.1") as local, listener(METADATA) as metadata:
        asked = [local, on_hosts_network.address, on_hosts_network.registry, metadata]
        assert await on_hosts_network.reached(asked) == dict.fromkeys(asked, True)


async def test_with_a_network_of_its_own_a_step_reaches_all_but_the_hosts_loopback(
    on_own_network, host_address, request
):
    reply = await on_own_network.post(
        make_tar(
            {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"},
            {"image": f"{on_own_network.registry}/own/network:1"},
        )
    )
    assert reply["status"] == "success", reply
    with (
        listener("127.0.0.1") as local,
        listener(host_address) as host,
        listener(METADATA) as metadata,
    ):
        # 10.0.2.2 is what slirp4netns calls the host's loopback interface.
        alias = f"10.0.2.2:{local.partition(':')[2]}"
        hidden = [local, alias, on_own_network.address]
        open_to_it = [host, on_own_network.registry]
        (hidden if is_isolated(request) else open_to_it).append(metadata)
        expected = dict.fromkeys(hidden, False) | dict.fromkeys(open_to_it, True)
        assert await on_own_network.reached(hidden + open_to_it) == expected


async def test_a_redirect_passes_the_source_policy_and_buildkits_own_network_alone_stops_it(
    on_own_network, host_address, request
):
    async def added(address: str) -> dict[str, Any]:
        dockerfile = f"FROM scratch\nADD http://{address} /it\n"
        reply: dict[str, Any] = await on_own_network.post(
            make_tar({"Dockerfile": dockerfile}, {"skipPush": True})
        )
        return reply

    with listener("127.0.0.1") as local, listener(host_address) as host:
        assert "denied by policy" in (await added(f"{local}/it"))["error"]
        assert (await added(f"{host}/it"))["status"] == "success"
        redirected = await added(f"{host}/to/{local}")
    expected = "failed" if is_isolated(request) else "success"
    assert redirected["status"] == expected, redirected


async def test_a_network_for_others_is_refused(tmp_path):
    (tmp_path / "payload-secret").write_text(SECRET)
    theirs = "bridge" if os.geteuid() else "slirp4netns"
    own = {"run_network": theirs, "secret_mount_path": str(tmp_path)}
    serve = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "function_builder", "serve", "--state-dir", tmp_path / "state"),
        env=own,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await serve.communicate()
    assert serve.returncode == 1
    assert f"error: the network {theirs} is for".encode() in said


async def test_a_user_without_ids_of_its_own_is_told_what_is_missing():
    with ordinary_user(ids="somebody:2100000:65536\n") as poor:
        if not poor.enter:
            pytest.skip("this user's ids are the machine's")
        (poor.home / "payload-secret").write_text(SECRET)
        (poor.home / "payload-secret").chmod(0o644)
        async with command(
            poor, poor.home / "state", "serve", secret_mount_path=str(poor.home)
        ) as serve:
            said, _ = await serve.communicate()
            assert serve.returncode == 1
            assert b"/etc/subuid" in said.splitlines()[-1]


@pytest_asyncio.fixture(params=["own", "shared"], scope="module", loop_scope="module")
async def sandboxed(request, user: OrdinaryUser) -> AsyncIterator[tuple[Builder, bool]]:
    """`serve` whose steps have processes of their own, or, as in a container, BuildKit's."""
    own = request.param == "own"
    path = user.environment["PATH"]
    if not own:
        # A container's masked /proc makes rootlesskit fail at this.
        refusing = user.home / "masked"
        refusing.mkdir(mode=0o755)
        program = refusing / "rootlesskit"
        real = find_tool("rootlesskit")
        program.write_text(
            f'#!/bin/sh\nfor word; do [ "$word" != --pidns ] || exit 1; done\nexec {real} "$@"\n'
        )
        program.chmod(0o755)
        path = f"{refusing}:{path}"
    secrets = user.home / f"secrets-{request.param}"
    secrets.mkdir(mode=0o755)
    (secrets / "payload-secret").write_text(SECRET)
    listen, state = free_address(), user.home / request.param
    async with command(
        user,
        state,
        "serve",
        PATH=path,
        listen=listen,
        metrics_listen=free_address(),
        secret_mount_path=str(secrets),
        drain_delay="0",
    ) as serve:
        said = await printed(serve, "serving")
        assert ("RUN steps see BuildKit's processes" in said) is not own
        yield Builder(listen, SECRET, ""), own


async def test_what_a_step_does_to_others_without_a_process_sandbox(sandboxed):
    """It is of the same user as they are; with a sandbox it does not see that they are there."""
    builder, own = sandboxed
    arrived = asyncio.Event()

    async def come(*_: object) -> None:
        arrived.set()
        await over.wait()

    over = asyncio.Event()
    word = uuid.uuid4().hex
    async with serving(come) as door:
        port = door.rpartition(":")[2]
        other = asyncio.create_task(
            builder.post(
                with_busybox(f"echo hidden > /{word}; /busybox nc 127.0.0.1 {port}; echo alive")
            )
        )
        await asyncio.wait_for(arrived.wait(), 60)
        tries = (
            "for p in /proc/[0-9]*; do "
            f"/busybox grep -qs hidden $p/root/{word} && echo read && "
            "/busybox kill -9 ${p#/proc/}; "
            "/busybox grep -qs ^buildkitd $p/comm && {"
            " echo seen; /busybox kill -0 ${p#/proc/} 2>/dev/null && echo killable;"
            " /busybox ls $p/root/ >/dev/null 2>&1 && echo entered;"
            " /busybox cat $p/environ >/dev/null 2>&1 && echo spied; };"
            "done; echo tried"
        )
        reply = await builder.post(with_busybox(tries))
        over.set()
        ended = await other
    said = {line.rpartition(" ")[2] for line in reply["log"] if line.startswith("l:")}
    assert said == ({"tried"} if own else {"tried", "read", "seen", "killable"}), reply
    assert (ended["status"] == "success") is own
    # What it might have done to BuildKit, it did not: the next build is well.
    assert (await builder.post(with_busybox("echo well")))["status"] == "success"
