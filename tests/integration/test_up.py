"""`function-builder up`, run as a newcomer runs it: what it prints is then done."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support import free_address, running, until
from tests.support.requests import make_tar, signature

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]


class Up:
    """A running `up`: its options, and what it has printed."""

    def __init__(self, state):
        self.state = state
        self.registry = free_address()
        self.builder = free_address()
        self.metrics = free_address()
        self.printed = ""
        self.process: Any = None

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "function_builder", "up"),
            *("--listen", self.builder, "--metrics-listen", self.metrics),
            *("--registry-listen", self.registry, "--state-dir", self.state),
            cwd=REPOSITORY,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def until_it_serves(self):
        async with asyncio.timeout(120):
            while "Ctrl-C" not in self.printed:
                line = await self.process.stdout.readline()
                assert line, self.printed
                self.printed += line.decode()

    async def ended(self):
        async with asyncio.timeout(60):
            self.printed += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    def lesson(self):
        """The indented lines: the commands that a newcomer is to copy."""
        taught = self.printed.partition("Build your own")[2]
        return "".join(line for line in taught.splitlines(True) if line.startswith("  "))


@pytest.fixture
async def up(engine_root):
    state = engine_root / "up"
    started = []

    async def start():
        one = Up(state)
        started.append(one)
        await one.start()
        return one

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        await one.ended()
    await until(lambda: running(str(state)) == [])


def manifest(registry, repository):
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    url = f"http://{registry}/v2/{repository}/manifests/latest"
    return httpx2.get(url, headers=accept, timeout=60, trust_env=False, verify=False)


async def test_it_builds_its_example_teaches_how_to_build_another_and_ends_by_ctrl_c(up, tmp_path):
    first = await up()
    await first.until_it_serves()
    pushed = manifest(first.registry, "hello").headers["Docker-Content-Digest"]
    assert f"image  {first.registry}/hello:latest@{pushed}\n" in first.printed
    assert (first.state / "payload-secret").stat().st_mode & 0o777 == 0o600

    lesson = await asyncio.create_subprocess_exec(
        *("sh", "-euc", first.lesson()),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, shown = await lesson.communicate()
    own, *_, last, sealed, image = output.decode().splitlines()
    assert own.startswith(f"{first.registry}/own:latest@sha256:")
    result = json.loads(last)
    assert (result["status"], result["image"]) == ("success", f"{first.registry}/mine:latest")
    assert sealed.startswith("Sealed 1 secret(s)")
    assert image.startswith(f"{first.registry}/mine:sealed@sha256:")
    assert re.search(rb"^#\d+ 6 /run/secrets/token$", shown, re.MULTILINE)
    assert (first.state / "build-secrets.key").stat().st_mode & 0o777 == 0o600
    assert manifest(first.registry, "mine").status_code == 200

    link = re.search(r"^http://\S+/web/sign-in\?token=\S+$", first.printed, re.MULTILINE)
    assert link is not None
    with httpx2.Client(trust_env=False, follow_redirects=True, timeout=60, verify=False) as browser:
        assert browser.get(link[0]).url.path == "/web/builds"
        # Synchronous builds are recorded beside their answers.
        names = [f"{first.registry}/{name}" for name in ("hello:", "own:", "mine:", "mine:sealed")]
        pages = f"http://{first.builder}/web/builds"
        await until(lambda: all(name in browser.get(pages).text for name in names))

    first.process.send_signal(signal.SIGINT)
    assert await first.ended() == 0
    assert first.printed.endswith("all stopped\n")
    shown_builds = re.findall(r"^[0-9:]{8}  (\w+) +\S+/(\S+) ", first.printed, re.MULTILINE)
    assert shown_builds == [
        (event, image)
        for image in ("own:latest", "mine:latest", "mine:sealed")
        for event in ("started", "success")
    ]
    assert running(str(first.state)) == []

    second = await up()
    await second.until_it_serves()
    assert "made of this machine's busybox" not in second.printed


async def test_what_up_mirrors_is_no_clients_to_push(up):
    """Any client's `docker/dockerfile` would else read the Dockerfiles of all."""
    one = await up()
    await one.until_it_serves()
    assert manifest(one.registry, "docker.io/library/busybox").status_code == 200
    secret = (one.state / "payload-secret").read_text()
    own = f"FROM busybox\nRUN echo mine > /mine\n# {one.builder}\n"

    async def built(http, dockerfile, image=None):
        config = {"image": image} if image else {"skipPush": True}
        body = make_tar({"Dockerfile": dockerfile}, config)
        signed = {"X-Build-Signature": signature(body, secret)}
        return await http.post(f"http://{one.builder}/build", content=body, headers=signed)

    async with httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as http:
        for name in ("docker.io/library/alpine:3", "docker.io/docker/dockerfile:9"):
            answer = await built(http, own, f"{one.registry}/{name}")
            assert answer.status_code == 400
            assert "would take the place of one of docker.io" in answer.json()["error"]
        # Elsewhere it may, and no one else's FROM finds it.
        for name in ("library/alpine:3", "docker/dockerfile:9"):
            assert (await built(http, own, f"{one.registry}/{name}")).status_code == 200
        answer = await built(http, "# syntax=docker/dockerfile:9\nFROM busybox\nRUN ! ls /mine\n")
        assert answer.json()["status"] == "success", answer.text


async def test_sigterm_ends_all_of_it(up):
    one = await up()
    await one.until_it_serves()
    one.process.terminate()
    assert await one.ended() == 0
    assert running(str(one.state)) == []


async def test_an_interrupt_while_it_starts_ends_all_of_it(up):
    one = await up()
    async with asyncio.timeout(60):
        while b"buildkitd" not in await one.process.stdout.readline():
            pass
    one.process.send_signal(signal.SIGINT)
    assert await one.ended() in (0, 130)
    assert "Traceback" not in one.printed
    assert running(str(one.state)) == []


async def test_a_second_one_on_the_same_state_is_refused_in_one_line(up):
    one = await up()
    await one.until_it_serves()
    other = await up()
    assert await other.ended() == 1
    assert other.printed == (
        f"error: another `up` runs in {one.state}: "
        "--state-dir (make up state_dir=DIR) names another\n"
    )


async def test_a_state_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()
    one = Up(tmp_path / "file" / "state")
    await one.start()
    assert await one.ended() == 1
    assert one.printed == (
        f"error: {one.state} cannot be used: Not a directory: "
        "--state-dir (make up state_dir=DIR) names another\n"
    )


@pytest.mark.parametrize("option", ["registry", "builder", "metrics"])
async def test_a_taken_address_is_named_with_the_option_that_changes_it(engine_root, option):
    one = Up(engine_root / f"taken-{option}")
    flags = {"registry": "registry-listen", "builder": "listen", "metrics": "metrics-listen"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        setattr(one, option, address)
        await one.start()
        assert await one.ended() == 1
    variable = flags[option].replace("-", "_")
    assert one.printed == (
        f"error: {address} is taken by another program: "
        f"--{flags[option]} (make up {variable}=HOST:PORT) names another\n"
    )
