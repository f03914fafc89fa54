"""Clients of the builder, run inside the cluster by the builder image's Python; they say JSON.

`client.py COMMAND ARGUMENT…`: the functions below that `COMMANDS` names.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from function_builder.client import AsyncClient, BuildConfig, BuildStatus, Refused, Unreachable
from function_builder.contract.signature import SIGNATURE_HEADER, sign

PHASE = Path("/shared/phase")
"""What is being done to the cluster; the load ends when it says so."""
DONE = Path("/shared/done")
"""The phase of each build that ended, a line each."""
OVER = "over"
CUT = ("the connection was lost", "the stream ended", "the builder fell silent")


async def build(url: str, secret: str, image: str) -> dict[str, Any]:
    """Build the Dockerfile on standard input, as one build of one client."""
    with context(sys.stdin.read()) as directory:
        async with (
            AsyncClient(url, payload_secret=secret.encode(), retry_timeout=60) as client,
            client.stream(directory, BuildConfig(image=image)) as stream,
        ):
            log = [line async for progress in stream for line in progress.log]
            result = await stream.result()
    return {
        "status": result.status,
        "error": result.error,
        "image": result.image,
        "digest": result.digest,
        "log": log,
    }


async def load(
    url: str, secret: str, images: str, workers: str, attempts: str
) -> list[dict[str, Any]]:
    """Build functions that nobody built before, some at a time, until `PHASE` says `OVER`.

    Each is tried until it succeeds, `attempts` times at most.
    """
    done: list[dict[str, Any]] = []

    async def work(worker: int) -> None:
        while (phase := read(PHASE)) != OVER:
            image = f"{images}:{len(done)}-{worker}"
            begun = time.monotonic()
            failures: list[str] = []
            while (failure := await attempt(url, secret, image)) is not None:
                failures.append(failure)
                if len(failures) == int(attempts):
                    break
                await asyncio.sleep(0.5)
            seconds = round(time.monotonic() - begun, 1)
            done.append({"phase": phase, "image": image, "failures": failures, "seconds": seconds})
            add(DONE, phase)

    await asyncio.gather(*(work(worker) for worker in range(int(workers))))
    return done


async def attempt(url: str, secret: str, image: str) -> str | None:
    """Build once; why it failed, in few words, or None."""
    with context(f"FROM busybox\nRUN echo {image} >/name && sleep 2\n") as directory:
        # Without patience: whoever is told to wait counts as failed.
        async with AsyncClient(url, payload_secret=secret.encode(), retry_timeout=0) as client:
            try:
                async with client.stream(directory, BuildConfig(image=image)) as stream:
                    result = await stream.result()
            except Refused as error:
                return f"refused with {error.status}"
            except Unreachable as error:
                return f"not begun: {error}"
    if result.status is BuildStatus.SUCCESS:
        return None
    return f"cut: {result.error}" if result.error.startswith(CUT) else f"failed: {result.error}"


@contextmanager
def context(dockerfile: str) -> Iterator[str]:
    """A directory with a Dockerfile."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "Dockerfile").write_text(dockerfile)
        yield directory


def read(path: Path) -> str:
    """What a file says."""
    return path.read_text()


def add(path: Path, line: str) -> None:
    """Add a line to a file."""
    with path.open("a") as file:
        file.write(line + "\n")


async def submit(url: str, secret: str, name: str, number: str) -> list[str]:
    """Queue builds that take some seconds, and return their ids.

    A submission that is cut off, or refused for a while, is sent again under its own key.
    """
    ids: list[str] = []
    async with AsyncClient(url, payload_secret=secret.encode(), retry_timeout=120) as client:
        for each in range(int(number)):
            # Its own text: each build is one of its own.
            dockerfile = f"FROM busybox\nRUN echo {name}-{each} >/name && sleep 3\n"
            with context(dockerfile) as directory:
                handle = await client.submit(
                    directory, BuildConfig(skip_push=True), idempotency_key=f"{name}-{each}"
                )
            ids.append(handle.id)
    return ids


async def builds(url: str, secret: str) -> list[dict[str, Any]]:
    """Each build that the queue knows: its id, its status, its attempts."""
    async with AsyncClient(url, payload_secret=secret.encode(), retry_timeout=120) as client:
        return [
            {"id": each.id, "status": each.state.value, "attempt": each.attempt}
            async for each in client.builds()
        ]


async def log(url: str, secret: str, build: str) -> list[str]:
    """The whole log of a build."""
    async with AsyncClient(url, payload_secret=secret.encode(), retry_timeout=120) as client:
        return [line async for part in client.handle(build).log() for line in part.log]


async def statuses(secret: str, *urls: str) -> list[int]:
    """Ask with a signed body that is no tar: 400 says that the signature is right, 401 not."""
    body = b"no tar"
    headers = {SIGNATURE_HEADER: sign(secret.encode(), body)}
    async with httpx2.AsyncClient(timeout=10) as http:
        answers = [await http.post(f"{url}/build", content=body, headers=headers) for url in urls]
    return [answer.status_code for answer in answers]


async def bearers(url: str, *sent: str) -> list[tuple[int, bool]]:
    """Send a body that is not a tar, with tenants and bearer tokens in turn.

    Returns each status, and whether the token is that of another tenant.
    """
    found = []
    async with httpx2.AsyncClient(timeout=10) as http:
        for tenant, token in zip(sent[::2], sent[1::2], strict=True):
            headers = {"X-Build-Tenant": tenant, "Authorization": f"Bearer {token}"}
            answer = await http.post(f"{url}/build", content=b"no tar", headers=headers)
            found.append((answer.status_code, "not the tenant of the bearer" in answer.text))
    return found


async def usage(url: str, secret: str) -> dict[str, int]:
    """How many builds of each tenant succeeded this month."""
    async with AsyncClient(url, payload_secret=secret.encode(), retry_timeout=60) as client:
        document = await client.usage()
    return {row["tenant"]: row["builds"].get("success", 0) for row in document["usage"]}


async def get(*urls: str) -> list[str]:
    """What is there."""
    async with httpx2.AsyncClient(timeout=10) as http:
        answers = [await http.get(url) for url in urls]
    return [answer.raise_for_status().text for answer in answers]


COMMANDS: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    command.__name__: command
    for command in (bearers, build, builds, load, log, statuses, submit, usage, get)
}

if __name__ == "__main__":
    json.dump(asyncio.run(COMMANDS[sys.argv[1]](*sys.argv[2:])), sys.stdout)
