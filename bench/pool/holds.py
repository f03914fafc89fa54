"""What a BuildKit takes for the functions that it keeps a cache of."""

import asyncio
import statistics
import time
from functools import partial

from bench.command import Row
from bench.pool.cases import function, run_builds
from bench.pool.stage import Stage, succeeded

_CLIENTS = 8
_EDITED = 15


async def holds(stage: Stage) -> list[Row]:
    """Its disk, its memory, its start and a build of it, as functions gather in its cache.

    The functions are tiny: what is measured is what comes on top of their files.
    """
    rows: list[Row] = []
    names: list[str] = []
    async with stage.machines(1) as (machine,):
        await machine.start()
        async with stage.builders([machine.address]) as (front,):
            for number in (1, 100, 500):
                new = [f"holds/f{each}" for each in range(len(names), number)]
                names += new
                builds = [partial(stage.build, front, name, function(name)) for name in new]
                succeeded(await run_builds(builds, _CLIENTS))
                memory = machine.memory()
                await machine.stop()
                megabytes, files = await asyncio.to_thread(machine.disk)
                begin = time.perf_counter()
                await machine.start()
                started = time.perf_counter() - begin
                await stage.until_up([front], 1)
                edited = [
                    await stage.build(front, name, function(name)) for name in names[:1] * _EDITED
                ]
                succeeded(edited)
                took = statistics.median(built.seconds for built in edited)
                rows.append(
                    {
                        "functions": number,
                        "MB on disk": f"{megabytes:.1f}",
                        "files": files,
                        "MB of memory": f"{memory:.0f}",
                        "MB after a restart": f"{machine.memory():.0f}",
                        "s to start": f"{started:.2f}",
                        "s for an edited build": f"{took:.2f}",
                    }
                )
    return rows
