"""Our commands as a user runs them, and what a RUN step of the builder that they start reaches."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from function_builder.engine import find_tool
from function_builder.engine.tools import search_path
from tests.support import running, until
from tests.support.ordinary_user import OrdinaryUser
from tests.support.requests import make_tar, signature


@dataclass(frozen=True, slots=True)
class Builder:
    """A builder that answers.

    Attributes:
        address: its `host:port`.
        secret: what its requests are signed with.
        registry: one that it can push to.
    """

    address: str
    secret: str
    registry: str

    async def post(self, body: bytes) -> dict[str, Any]:
        """The answer to a request for a build."""
        async with httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as http:
            signed = {"X-Build-Signature": signature(body, self.secret)}
            answer = await http.post(f"http://{self.address}/build", content=body, headers=signed)
        reply: dict[str, Any] = answer.json()
        return reply

    async def reached(self, addresses: list[str]) -> dict[str, bool]:
        """From which of these a RUN step has an answer, all of them speaking HTTP."""
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /busybox nc -w 10 {} | /busybox grep -q ^HTTP"
        tries = "; ".join(
            f"{ask.format(address.replace(':', ' '))} && echo reached {address}"
            for address in addresses
        )
        reply = await self.post(with_busybox(f"{tries}; true"))
        assert reply["status"] == "success", reply
        said = {line.rpartition(" reached ")[2] for line in reply["log"] if line.startswith("l:")}
        return {address: address in said for address in addresses}


def with_busybox(step: str) -> bytes:
    """A request for a build with one step, from nothing but busybox."""
    words = json.dumps(["/busybox", "sh", "-c", f": {uuid.uuid4()}; {step}"])
    dockerfile = f"FROM scratch\nCOPY --chmod=755 busybox /\nRUN {words}\n"
    return make_tar(
        {"Dockerfile": dockerfile, "busybox": find_tool("busybox").read_bytes()}, {"skipPush": True}
    )


def ourselves(home: Path) -> OrdinaryUser:
    """The user that runs the tests."""
    home.mkdir()
    return OrdinaryUser(home, (), {"HOME": str(home), "PATH": search_path()})


@asynccontextmanager
async def command(
    user: OrdinaryUser,
    state: Path,
    *arguments: str,
    within: tuple[str | Path, ...] = (),
    **environment: str,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command of ours as a user, killed if it has not ended, and all of it gone at the end.

    Args:
        user: the user.
        state: its directory.
        arguments: of the command.
        within: a command that runs it.
        environment: in addition to the user's.
    """
    process = await asyncio.create_subprocess_exec(
        *within,
        *user.python("-m", "function_builder", *arguments, "--state-dir", state),
        cwd=user.home,
        env={**user.environment, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        await until(lambda: running(str(state)) == [])


async def printed(process: asyncio.subprocess.Process, word: str) -> str:
    """What a command prints, up to the line with a word in it."""
    assert process.stdout is not None
    lines = ""
    async with asyncio.timeout(120):
        while word not in lines:
            line = (await process.stdout.readline()).decode()
            assert line, lines
            lines += line
    return lines
