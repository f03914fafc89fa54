"""A log and its followers."""

import asyncio

from function_builder.builds import log as log_module
from function_builder.builds.log import MAX_LOG_CHARS, BuildLog

QUIET = 60.0


async def read(log: BuildLog) -> list[str]:
    return [line async for lines in log.follow(QUIET) for line in lines]


async def test_every_follower_reads_every_line_whenever_it_comes():
    log = BuildLog()
    early = asyncio.create_task(read(log))
    await asyncio.sleep(0)
    log.append(["a", "b"])
    late = asyncio.create_task(read(log))
    await asyncio.sleep(0)
    log.append(["c"])
    log.close()
    assert await early == await late == await read(log) == ["a", "b", "c"]


async def test_lines_that_come_together_are_given_together(monkeypatch):
    monkeypatch.setattr(log_module, "GATHER_SECONDS", QUIET)
    log = BuildLog()
    follower = log.follow(QUIET)
    first = asyncio.ensure_future(anext(follower))
    for line in "abc":
        await asyncio.sleep(0)
        log.append([line])
    log.close()
    assert await first == ["a", "b", "c"]


async def test_the_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(log_module, "GATHER_SECONDS", QUIET)
    log = BuildLog()
    reading = asyncio.create_task(read(log))
    await asyncio.sleep(0)
    log.append(["a"])
    await asyncio.sleep(0)
    log.close()
    async with asyncio.timeout(QUIET / 2):
        assert await reading == ["a"]


async def test_silence_is_told():
    log = BuildLog()
    follower = log.follow(0.01)
    assert await anext(follower) == ()
    log.append(["a"])
    assert await anext(follower) == ["a"]
    log.close()
    assert [lines async for lines in follower] == []


async def test_a_log_has_an_end():
    log = BuildLog()
    for _ in range(20):
        log.append(["x" * (1 << 20)])
    log.close()
    lines = await read(log)
    assert sum(map(len, lines)) < MAX_LOG_CHARS + (2 << 20)
    assert "ends here" in lines[-1]


async def test_a_log_of_empty_lines_has_an_end():
    log = BuildLog()
    for _ in range(20):
        log.append([""] * (1 << 17))
    assert len(log.lines) < 1 << 21
    assert "ends here" in log.lines[-1]


async def test_a_reader_that_waits_for_nothing_leaves_other_tasks_their_turns():
    """As a client whose socket takes all of a log of megabytes."""
    log = BuildLog()
    log.append(["x" * (64 << 10)] * 20)
    log.close()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    pieces = [lines async for lines in log.follow(QUIET)]
    task.cancel()
    assert turns >= len(pieces) == 20
