"""Requests to NATS whose task is cancelled."""

import asyncio
from collections.abc import Callable

import pytest
from nats.errors import NoRespondersError

from function_builder.queue.connection import keeping_cancellation


def answer(future: asyncio.Future[str]) -> None:
    future.set_result("an answer")


def refuse(future: asyncio.Future[str]) -> None:
    future.set_exception(NoRespondersError())


async def ask(waited_for: asyncio.Future[str]) -> str:
    """As nats-py waits."""
    with keeping_cancellation():
        return await asyncio.wait_for(waited_for, 60)


@pytest.mark.parametrize("arrive", [answer, refuse])
async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(
    arrive: Callable[[asyncio.Future[str]], None],
) -> None:
    future: asyncio.Future[str] = asyncio.Future()
    task = asyncio.create_task(ask(future))
    await asyncio.sleep(0)
    arrive(future)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_after_a_cancellation_has_its_answer() -> None:
    future: asyncio.Future[str] = asyncio.Future()
    heard: list[str] = []

    async def ask_at_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            answer(future)
            heard.append(await ask(future))

    task = asyncio.create_task(ask_at_the_end())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["an answer"]
