"""Bodies on their way in."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from function_builder.contract.errors import Refusal
from function_builder.contract.signature import Signature, sign
from function_builder.server import receiving
from function_builder.server.receiving import Intake
from function_builder.server.spool import MEMORY_BYTES, Spool, SpoolSpace


def channel(chunks: list[bytes], *, end: bool = True):
    """An ASGI channel that gives chunks; without an end, the client goes away after them."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if end:
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    else:
        messages.append({"type": "http.disconnect"})
    left = iter(messages)

    async def receive():
        return next(left)

    return receive


def intake(receive, **changes) -> Intake:
    limits = {"signature": None, "max_bytes": 1 << 30, "timeout": 60}
    return Intake(receive, **(limits | changes))


SIZES = st.one_of(st.integers(0, 100), st.sampled_from([MEMORY_BYTES - 1, MEMORY_BYTES, 700_000]))


@given(st.lists(SIZES, max_size=5))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_body_reads_back_whatever_its_pieces(tmp_path, sizes):
    chunks = [os.urandom(size) for size in sizes]
    body = b"".join(chunks)
    signature = Signature([b"key"])
    spool = Spool(SpoolSpace(tmp_path, 0))
    asyncio.run(intake(channel(chunks), signature=signature).into(spool))
    assert spool.size == len(body)
    assert spool.read(0, len(body) + 10) == body
    assert spool.read(len(body) // 2, 7) == body[len(body) // 2 :][:7]
    assert spool.read(len(body), 1) == b""
    assert signature.matches(sign(b"key", body))
    assert list(tmp_path.iterdir()) == []
    spool.close()


async def test_a_large_body_leaves_memory(tmp_path):
    spool = Spool(SpoolSpace(tmp_path, 0))
    await intake(channel([bytes(65536)] * 64)).into(spool)
    assert spool.size == 4 << 20
    assert open_files_in(tmp_path) == 1
    spool.close()
    assert open_files_in(tmp_path) == 0


def open_files_in(directory: Path) -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(entry.readlink())
        except FileNotFoundError:
            continue
    return sum(str(link).startswith(f"{directory}/") for link in links)


async def test_bodies_take_no_more_than_they_may_together(tmp_path):
    space = SpoolSpace(tmp_path, 5 << 20)
    large, small = [bytes(1 << 20)] * 3, [b"small"]
    first, second, third = Spool(space), Spool(space), Spool(space)
    await intake(channel(large)).into(first)
    with pytest.raises(Refusal, match="full") as caught:
        await intake(channel(large)).into(second)
    assert caught.value.status == 507
    second.close()
    # What stays in memory needs no room there.
    await intake(channel(small)).into(Spool(space))
    await intake(channel(large[1:])).into(third)
    third.close()
    first.close()
    first.close()
    assert space.reserved == 0


async def test_too_much_is_refused_as_soon_as_it_is_too_much(tmp_path):
    taking = intake(channel([b"x" * 60] * 1000), max_bytes=100)
    with pytest.raises(Refusal) as caught:
        await taking.into(Spool(SpoolSpace(tmp_path, 0)))
    assert caught.value.status == 413
    assert not taking.complete


async def test_a_client_that_goes_away(tmp_path):
    with pytest.raises(ClientDisconnect):
        await intake(channel([b"x"], end=False)).into(Spool(SpoolSpace(tmp_path, 0)))


async def test_a_pause_that_is_too_long(tmp_path):
    async def silence():
        await asyncio.Event().wait()

    with pytest.raises(Refusal) as caught:
        await intake(silence, timeout=0.01).into(Spool(SpoolSpace(tmp_path, 0)))
    assert caught.value.status == 408


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_body_that_is_given_up(tmp_path, waiting):
    async def silence():
        await asyncio.Event().wait()

    taking = intake(silence)
    task = asyncio.create_task(taking.into(Spool(SpoolSpace(tmp_path, 0))))
    if waiting:
        await asyncio.sleep(0)
    taking.abort(Refusal(429, "too many"))
    with pytest.raises(Refusal, match="too many") as caught:
        await task
    assert caught.value.status == 429


async def test_a_body_that_is_given_up_while_it_keeps_coming(tmp_path):
    async def flood():
        return {"type": "http.request", "body": b"x", "more_body": True}

    taking = intake(flood)
    taking.abort(Refusal(429, "too many"))
    with pytest.raises(Refusal, match="too many"):
        await taking.into(Spool(SpoolSpace(tmp_path, 0)))


async def test_a_trickled_body_has_an_end(tmp_path, monkeypatch):
    """By a clock of the test's own: a busy machine would make a pause of its own."""
    seconds = 0

    async def trickle():
        nonlocal seconds
        seconds += 1
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x", "more_body": True}

    monkeypatch.setattr(receiving, "time", SimpleNamespace(monotonic=lambda: seconds))
    async with asyncio.timeout(60):
        with pytest.raises(Refusal, match="slower than 1024 bytes a second") as caught:
            await intake(trickle, timeout=60).into(Spool(SpoolSpace(tmp_path, 0)))
    assert 120 <= seconds <= 122
    assert caught.value.status == 408
