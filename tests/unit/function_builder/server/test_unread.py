"""Logs of ended builds share a budget of memory."""

import asyncio
import json
import tracemalloc
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from function_builder.builds.build import Build, Outcome
from function_builder.builds.failures import Failure
from function_builder.builds.log import CUT, BuildLog
from function_builder.contract.answer_signature import build_answer
from function_builder.contract.config import BuildConfig
from function_builder.contract.findings import Reason
from function_builder.contract.log import StepText
from function_builder.contract.result import BuildStatus, parse_result
from function_builder.server import answering as endpoint
from function_builder.server.unread import UnreadLogs
from tests.support import until
from tests.support.build_requests import build_request


def log_of(lines: list[str]) -> BuildLog:
    log = BuildLog()
    log.append(lines)
    log.close()
    return log


async def read(log: BuildLog) -> list[str]:
    return [line async for lines in log.follow(60) for line in lines]


@pytest.fixture
def unread():
    with ExitStack() as stack:
        unread = UnreadLogs(limit=100_000)

        def add(log: BuildLog) -> BuildLog:
            stack.enter_context(unread.until_read(log))
            unread.add(log)
            return log

        yield unread, add, stack


async def test_the_log_that_is_not_read_for_longest_is_cut(unread):
    unread, add, _ = unread
    first, second = add(log_of(["a" * 60_000])), add(log_of(["b" * 30_000]))
    reader = first.follow(60)
    await anext(reader)
    add(log_of(["c" * 30_000]))
    assert await read(second) == [CUT]
    assert await read(first) == ["a" * 60_000]
    assert unread.size < 100_000


async def test_a_log_that_is_read_in_part_says_where_it_was_cut(unread):
    _, add, _ = unread
    log = add(log_of([str(number) * 30_000 for number in range(3)]))
    reader = log.follow(60)
    before = await anext(reader)
    add(log_of(["a" * 50_000]))
    rest = [line async for lines in reader for line in lines]
    assert rest == [CUT]
    assert before[0] == "0" * 30_000


async def test_a_log_that_is_read_whole_is_not_said_to_be_cut(unread):
    _, add, _ = unread
    log = add(log_of(["a" * 90_000]))
    reader = log.follow(60)
    await anext(reader)
    add(log_of(["b" * 90_000]))
    assert [lines async for lines in reader] == []


async def test_the_only_log_is_kept_and_what_is_answered_is_forgotten(unread):
    unread, add, stack = unread
    assert await read(add(log_of(["a" * 300_000]))) == ["a" * 300_000]
    stack.close()
    assert unread.size == 0
    # As when an answer ends before its build.
    unread.add(log_of(["a"]))
    assert unread.size == 0


def ended(lines: Sequence[str]) -> Build:
    build = Build(build_request(config=BuildConfig(image="a/b:1")))
    build.start()
    build.log.append(lines)
    build.fail(Outcome.FAILED, Failure(error="no", reason=Reason.STEP, retryable=False))
    return build


class Client:
    """Reads an answer, piece by piece as it lets."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def __call__(self, message):
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            return
        self.pieces.append(message["body"])
        await self.reads.wait()


@pytest.mark.parametrize("number", [0, 3, 20_000], ids=["no log", "short", "long"])
async def test_a_whole_answer_is_the_same_in_one_piece_and_in_many(number):
    lines = [StepText(f'{each} "é\u2028\x01', "1") for each in range(number)]
    client = Client()
    key = (b"secret", "sha256=00", "")
    await endpoint._whole(ended(lines), client, build_answer(*key))
    body = b"".join(client.pieces)
    result = parse_result(body)
    assert client.status == 500
    assert list(result.log) == lines
    assert (result.status, result.error) == (BuildStatus.FAILED, "no")
    assert next(iter(json.loads(body))) == ("log" if number else "image")
    assert (b"content-length" in client.headers) is (number < 20_000)
    assert build_answer(*key).proves(body)


async def test_an_answer_that_is_not_read_is_not_in_memory_twice():
    build = ended(["\x01" * 30_000 for _ in range(500)])
    client = Client()
    client.reads.clear()
    tracemalloc.start()
    try:
        answering = asyncio.create_task(endpoint._whole(build, client, None))
        await until(lambda: client.pieces)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        answering.cancel()
    assert peak < 4 << 20
