"""BuildKit's side of a session of ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiobuildkit import Attachable, Client
from tests.unit.aiobuildkit.fake_buildkit import Call, FakeBuildKit, Wire, inner_connection


@asynccontextmanager
async def in_session(tmp_path, *attachables: Attachable, generous=True) -> AsyncIterator[Wire]:
    """The connection to a session of a solve that never ends."""
    wires: asyncio.Queue[Wire] = asyncio.Queue()

    async def session(call: Call) -> None:
        wire, carrier = inner_connection(call)
        wire.generous = generous
        wires.put_nowait(wire)
        await carrier

    async def forever(call: Call) -> None:
        await call.was_reset.wait()

    scripts = {"Session": session, "Solve": forever, "Status": forever}
    async with (
        FakeBuildKit(tmp_path, **scripts) as buildkit,
        Client(buildkit.address) as client,
        client.solve(attachables=attachables),
    ):
        yield await wires.get()


async def asked(tmp_path, attachable: Attachable, method: str, request: bytes) -> Call:
    async with in_session(tmp_path, attachable) as wire:
        return await wire.ask(method, request)
