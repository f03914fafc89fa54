"""docs/kubernetes-in-ten-minutes.md, command by command, in the node's Kubernetes."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import yaml

from function_builder.engine.address import tcp_answers
from tests.cluster.cluster import REGISTRY, Cluster
from tests.cluster.commands import run
from tests.cluster.images import REPOSITORY
from tests.cluster.openfaas import Tell
from tests.support.images import pull
from tests.support.port_behavior import eventually

pytestmark = pytest.mark.timeout(600)

PAGE = REPOSITORY / "docs" / "kubernetes-in-ten-minutes.md"
NAMESPACE = "ten"
"""The page's, `openfaas`, has what the other tests need."""
OURS = "127.0.0.1:5002"
"""The page's port 5000 is the node's registry's here."""
MIRROR = {
    "buildkit": {"registries": {"docker.io": {"mirrors": [REGISTRY]}, REGISTRY: {"http": True}}}
}
"""No registry of the internet is reached."""


def commands(step: int) -> Iterator[str]:
    """The commands of a step of the page, each in one line, as this cluster needs them."""
    text = PAGE.read_text().split(f"\n## {step}. ")[1].split("\n## ")[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines():
        ours = re.sub(r"\bopenfaas\b", NAMESPACE, line).replace(" 5000:5000", " 5002:5000")
        yield ours.replace(" --set ", " --values mirror.yaml --set ", 1)


@asynccontextmanager
async def forwarded(command: str, port: int, **how) -> AsyncIterator[None]:
    """A command that goes on in the background."""
    process = await asyncio.create_subprocess_exec(*command.split()[:-1], **how)
    try:
        await eventually(lambda: tcp_answers(f"127.0.0.1:{port}"))
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_the_page(cluster: Cluster, tmp_path: Path, tell: Tell) -> None:
    for name in ("chart", "examples"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "mirror.yaml").write_text(yaml.safe_dump(MIRROR))
    environment = {**os.environ, **cluster.environment}
    rows: list[tuple[str, object]] = [("step", "seconds")]
    said = ""
    async with AsyncExitStack() as stack:
        # Kubernetes waits for half of a builder's grace period before it removes the namespace.
        stack.push_async_callback(cluster.kubectl, "delete", "ns", NAMESPACE, "--wait=false")
        for step in (2, 3, 4):
            begun = time.monotonic()
            for command in commands(step):
                if command.endswith("&"):
                    port = int(re.findall(r" (\d+):\d+ ", command)[0])
                    how = {"cwd": tmp_path, "env": environment}
                    await stack.enter_async_context(forwarded(command, port, **how))
                elif command.startswith("docker run"):
                    image = pull(OURS, "hello", "1")
                else:
                    said += await run(
                        "sh", "-c", f"cd {tmp_path} && {command}", environment=environment
                    )
            rows.append((str(step), round(time.monotonic() - begun, 1)))
    assert "COPY Dockerfile /" in said
    assert f"{NAMESPACE}:5000/hello:1@{image.digest}" in said
    assert "hello.sh" in str(image.files)
    tell("Kubernetes in ten minutes, without step 1", rows)
