"""RUN steps that say when they run, and go on when they are let: no test has to guess a time."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.requests import make_tar
from tests.support.servers import serving


@dataclass
class _Step:
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    let: asyncio.Event = field(default_factory=asyncio.Event)


class Gate:
    """What steps call and wait at; it is reached over the host's network.

    Attributes:
        visits: how often a step came.
    """

    def __init__(self) -> None:
        self.visits = 0
        self._address = ""
        self._steps: dict[str, _Step] = defaultdict(_Step)
        self._is_open = False

    def call(self, name: str) -> str:
        """A command that comes to the gate by this name, and waits; no cached step would."""
        host, port = self._address.split(":")
        return f"echo {name} {uuid.uuid4()} | nc {host} {port}"

    def body(self, name: str) -> bytes:
        """A request to build something whose step waits at the gate."""
        dockerfile = f"FROM busybox\nRUN {self.call(name)}; echo through-{name}\n"
        return make_tar({"Dockerfile": dockerfile}, {"skipPush": True})

    async def reached(self, *names: str) -> None:
        """Wait until the steps of these names have come."""
        async with asyncio.timeout(60):
            for name in names:
                await self._steps[name].arrived.wait()

    async def let(self, *names: str) -> None:
        """Let these steps go on."""
        await self.reached(*names)
        for name in names:
            self._steps[name].let.set()

    def open(self) -> None:
        """Let all steps go on, also those that are to come."""
        self._is_open = True
        for step in self._steps.values():
            step.let.set()

    def close(self) -> None:
        """Have the steps that are to come wait again."""
        self._is_open = False

    async def _serve(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        step = self._steps[(await reader.readline()).decode().split()[0]]
        self.visits += 1
        step.arrived.set()
        if not self._is_open:
            await step.let.wait()


@asynccontextmanager
async def gate() -> AsyncIterator[Gate]:
    """A gate on the loopback interface."""
    one = Gate()
    async with serving(one._serve) as one._address:
        yield one
