"""RUN steps that say when they run, and go on when they are let: no test has to guess a time."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.requests import make_tar


class Gate:
    """What steps call and wait at; it is reached over the host's network."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._waiting: dict[str, asyncio.Future[asyncio.StreamWriter]] = {}

    def body(self, name: str) -> bytes:
        """A request to build something whose step waits at the gate."""
        # No cached step would ever call.
        call = f"echo {name} {uuid.uuid4()} | nc 127.0.0.1 {self._port}"
        dockerfile = f"FROM busybox\nRUN {call}; echo through-{name}\n"
        return make_tar({"Dockerfile": dockerfile}, {"skipPush": True})

    async def reached(self, *names: str) -> None:
        """Wait until the steps of these names run."""
        # Not gather: it would cancel what has not come, and who waits for it again.
        _, missing = await asyncio.wait(map(self._caller, names), timeout=60)
        assert not missing, f"not all of {names} came to the gate"

    async def let(self, *names: str) -> None:
        """Let these steps go on."""
        await self.reached(*names)
        for name in names:
            self._caller(name).result().close()

    def _caller(self, name: str) -> asyncio.Future[asyncio.StreamWriter]:
        return self._waiting.setdefault(name, asyncio.get_running_loop().create_future())

    def let_all(self) -> None:
        """Let go of every step that waits, or has waited."""
        for caller in self._waiting.values():
            if caller.done():
                caller.result().close()

    async def called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A step has come."""
        name = (await reader.readline()).decode().split()[0]
        self._caller(name).set_result(writer)


@asynccontextmanager
async def gate() -> AsyncIterator[Gate]:
    """A gate on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = Gate(listener.getsockname()[1])
        server = await asyncio.start_server(one.called, sock=listener)
        try:
            yield one
        finally:
            server.close()
            one.let_all()
