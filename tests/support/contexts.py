"""The contexts that BuildKit holds between builds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiobuildkit import Client

# While a build uses a context, BuildKit shows it as another record, of type `regular`
# (`cache/refs.go`). The description stays.
_IN_USE = ['inuse,description~="^local source for"']


async def contexts_in_use(client: Client) -> set[str]:
    """The IDs of the contexts that builds use."""
    return {record.id for record in await client.disk_usage(filters=_IN_USE)}


@asynccontextmanager
async def contexts_released(client: Client) -> AsyncIterator[None]:
    """Wait, after the builds of a block, until none of them uses its context.

    BuildKit releases what a build used after its answer. Until then the next build gets another
    state of the context (`source/local/source.go`). Not those of earlier builds: BuildKit before
    v0.34 never releases the context of a build that copies a file that is not there.

    Raises:
        TimeoutError: one is in use after 60 s.
    """
    before = await contexts_in_use(client)
    yield
    async with asyncio.timeout(60):
        while await contexts_in_use(client) - before:
            await asyncio.sleep(0.02)
