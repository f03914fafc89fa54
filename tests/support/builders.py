"""A builder as its users run it: `function-builder serve` in a process of its own (`forks`)."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import httpx2

from function_builder.engine import find_tool
from tests.support import free_address, until, until_equal
from tests.support.forks import Forked, fork
from tests.support.requests import SECRET


def plain_get(url: str, *, timeout: float = 60) -> httpx2.Response:
    """GET over plain HTTP.

    To load the authorities of HTTPS takes 40 ms of processor time in each call: half of what a
    test used that polls.
    """
    return httpx2.get(url, timeout=timeout, verify=False)


@dataclass
class RunningBuilder:
    """A builder that answers; `log` is what it wrote."""

    url: str
    metrics_url: str
    process: Forked | asyncio.subprocess.Process
    log: Path
    secrets: Path

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def get(self, path: str) -> httpx2.Response:
        """Ask for a path; the library's own five seconds are short on a busy machine."""
        return plain_get(self.url + path)

    def metrics(self) -> str:
        """What it tells Prometheus."""
        return plain_get(f"{self.metrics_url}/metrics").text

    def metric(self, sample: str) -> float:
        """The value of one of its samples, by what follows `function_builder_`.

        Builds, refusals, slots and uploads are counted before the answer's last byte. What is
        counted later needs `until_metric`, or `until_requests`.
        """
        name = f"function_builder_{sample} "
        (line,) = (line for line in self.metrics().splitlines() if line.startswith(name))
        return float(line.removeprefix(name))

    async def until_metric(self, sample: str, value: float) -> None:
        """Wait until one of its samples has a value."""
        await until_equal(partial(self.metric, sample), value)

    def requests(self, *, code: str = "[0-9]+") -> int:
        """How many requests to build it has counted, which it does after their answers."""
        name = rf'^http_requests_total\{{code="{code}",method="POST",path="/build"\}} (\S+)'
        return sum(int(float(each)) for each in re.findall(name, self.metrics(), re.MULTILINE))

    async def until_requests(self, number: int, *, code: str = "[0-9]+") -> None:
        """Wait until it has counted so many requests to build."""
        await until_equal(partial(self.requests, code=code), number)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log, without one that it is just writing."""
        written, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in written.splitlines()]


WEBHOOK_SECRET = "whsec_" + "d2ViaG9vayBzZWNyZXQgb2YgdGhlIHRlc3Rz"
"""Signs the callbacks of builders that send any."""


@asynccontextmanager
async def running_builder(
    root: Path, buildkit_url: str, *, wait_for: str = "/ready", **settings: str
) -> AsyncIterator[RunningBuilder]:
    """Start a builder with settings by their variables' names; end it, and hold it to a clean end.

    Args:
        root: a directory of its own.
        buildkit_url: the BuildKit it uses.
        wait_for: the probe that must answer 200 before it is handed out.
        settings: further variables, such as max_inflight="1".
    """
    listen, metrics = free_address(), free_address()
    secrets, log = root / "secrets", root / "builder.log"
    secrets.mkdir(parents=True)
    (secrets / "payload-secret").write_text(SECRET + "\n")
    (secrets / "webhook-secret").write_text(WEBHOOK_SECRET + "\n")
    environment: Mapping[str, str] = {
        "PATH": os.environ["PATH"],
        "DOCKER_CONFIG": str(root / "docker"),
        "listen": listen,
        "metrics_listen": metrics,
        "buildkit_url": buildkit_url,
        "secret_mount_path": str(secrets),
        "spool_dir": str(root),
        "drain_delay": "0",
    } | settings
    with log.open("wb") as output:
        process = await _start(environment, output)
    builder = RunningBuilder(f"http://{listen}", f"http://{metrics}", process, log, secrets)
    try:
        await until(lambda: answers(builder, wait_for))
        yield builder
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(60):
                await process.wait()
        except TimeoutError:
            process.kill()
            raise


async def _start(
    environment: Mapping[str, str], output: IO[bytes]
) -> Forked | asyncio.subprocess.Process:
    if "LD_PRELOAD" not in environment:
        return await fork("serve", environment=environment, output=output)
    # A library is loaded where a program begins, and a fork is in the midst of one.
    return await asyncio.create_subprocess_exec(
        *(str(find_tool("setpriv")), "--pdeathsig", "KILL", "--"),
        *(sys.executable, "-m", "function_builder", "serve"),
        env=environment,
        stdout=output,
        stderr=output,
    )


def answers(builder: RunningBuilder, probe: str = "/ready") -> bool:
    """Whether a probe answers 200; that the builder runs is made sure of."""
    assert builder.process.returncode is None, builder.log.read_text()
    try:
        return plain_get(builder.url + probe, timeout=20).status_code == 200
    except httpx2.TransportError:
        return False
