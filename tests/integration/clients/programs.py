"""Clients run as programs, the way their users run them."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from function_builder.engine import find_tool
from tests.support import until
from tests.support.builders import RunningBuilder
from tests.support.requests import headers, make_tar

EXAMPLES = Path(__file__).parents[3] / "examples" / "clients"
_JARS = ("/usr/share/java/gson.jar", "/usr/share/java/commons-compress.jar")
JAVA = (
    # In another locale, Java cannot read names that are not ASCII.
    *("env", "LC_ALL=C.UTF-8"),
    *("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
    *("-cp", ":".join((str(EXAMPLES / "java" / "build"), *_JARS))),
)
"""Runs a class of the example for Java, which `scripts/clients` has compiled."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it wrote to both of its outputs."""

    code: int
    output: str


async def run(
    command: tuple[str, ...],
    builder: RunningBuilder | None = None,
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a program to its end, with the builder named by the variables that faas-cli reads."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(directory or "/nonexistent")}
    if builder is not None:
        variables["OPENFAAS_REMOTE_BUILDER"] = builder.url
        variables["OPENFAAS_PAYLOAD_SECRET"] = str(builder.secrets / "payload-secret")
    process = await asyncio.create_subprocess_exec(
        str(find_tool(command[0])),
        *command[1:],
        cwd=directory,
        env=variables | dict(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(90):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Outcome(process.returncode, output.decode(errors="replace"))


@asynccontextmanager
async def occupied(builder: RunningBuilder) -> AsyncIterator[None]:
    """Keep the builder's slot taken by a build that does not end by itself, and have it back."""
    dockerfile = f"FROM busybox\nRUN echo begun {uuid.uuid4()}; sleep 100\n"
    body = make_tar({"Dockerfile": dockerfile}, {"skipPush": True})
    sent = headers(body, stream=True)
    async with (
        httpx2.AsyncClient(timeout=60, verify=False) as client,
        client.stream("POST", builder.url + "/build", content=body, headers=sent) as stream,
    ):
        lines = stream.aiter_lines()  # held on to: its end would end the connection
        async for line in lines:
            if '"l: ' in line:
                break
        yield
    # The build ends a moment after its client has gone.
    await until(lambda: builder.get("/ready").status_code == 200)


async def run_while_busy(command: tuple[str, ...], builder: RunningBuilder, **options) -> Outcome:
    """Run a client that meets a builder without a free slot, and finds one when it asks again."""
    busy = 'refusals_total{reason="busy"}'
    before = builder.metric(busy)
    async with occupied(builder):
        client = asyncio.create_task(run(command, builder, **options))
        await until(lambda: client.done() or builder.metric(busy) > before)
        assert not client.done(), f"it did not wait: {client.result()}"
    return await client
