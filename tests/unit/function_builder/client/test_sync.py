import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from function_builder.client import BuildConfig, BuildStatus, Client, ClientError
from tests.unit.function_builder.scripted_builder import (
    SECRET,
    Answer,
    ScriptedBuilder,
    busy,
    last,
    progress,
    streamed,
    whole,
)

CONFIG = BuildConfig(image="127.0.0.1:5000/hello:1")
BuilderThat = Callable[..., ScriptedBuilder]


def client_of(builder: ScriptedBuilder) -> Client:
    return Client(builder.url, payload_secret=SECRET)


def hanging(begun: threading.Semaphore) -> Answer:
    """A stream that begins and does not end."""

    async def for_ever() -> None:
        begun.release()
        await asyncio.Event().wait()

    return streamed(progress("l: 2025-06-13T20:16:16Z begun"), then=for_ever)


def test_without_asyncio(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(
        whole(status="success", image="whole"),
        streamed(progress("one"), progress("two"), last("success", image="streamed")),
        streamed(progress("one"), last("success", image="skipped")),
        whole(status="success", image="files"),
    )
    with client_of(builder) as client:
        assert client.build(hello, CONFIG).image == "whole"
        with client.stream(hello, CONFIG) as build:
            assert [line for event in build for line in event.log] == ["one", "two"]
            assert build.result().image == "streamed"
        with client.stream(hello, CONFIG) as build:
            assert build.result().image == "skipped"
        assert client.build(files={"Dockerfile": ""}, image="a/b").image == "files"


def test_threads_share_a_client(builder_that: BuilderThat, hello: Path) -> None:
    together = threading.Barrier(4, timeout=60)

    async def answer(request):
        # Each waits for all others, so none may wait for another to end.

        await asyncio.to_thread(together.wait)
        return await whole(status="success", image="i")(request)

    builder = builder_that(answer)
    with client_of(builder) as client, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: client.build(hello, CONFIG), range(4)))
    assert [result.status for result in results] == [BuildStatus.SUCCESS] * 4


def test_closing_ends_the_builds_that_run(builder_that: BuilderThat, hello: Path) -> None:
    begun = threading.Semaphore(0)
    builder = builder_that(hanging(begun))
    client = client_of(builder)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.build, hello, CONFIG)

        def follow() -> None:
            with client.stream(hello, CONFIG) as build:
                build.result()

        following = pool.submit(follow)
        assert begun.acquire(timeout=60)
        assert begun.acquire(timeout=60)
        client.close()
        for running in (waiting, following):
            with pytest.raises(RuntimeError, match=r"client (was|is) closed"):
                running.result(60)
    client.close()
    with pytest.raises(RuntimeError, match="client is closed"):
        client.build(hello, CONFIG)


def test_closing_inside_a_stream_ends_it(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(hanging(threading.Semaphore()))
    client = client_of(builder)
    with client.stream(hello, CONFIG) as build:
        next(iter(build))
        client.close()
        with pytest.raises(RuntimeError, match="client is closed"):
            build.result()


def test_a_client_that_was_never_used_is_closed() -> None:
    before = threading.active_count()
    with Client() as client:
        assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="client is closed"):
        client.build(files={"Dockerfile": ""}, skip_push=True)


def test_a_call_from_on_retry_is_refused_not_waited_for(
    builder_that: BuilderThat, hello: Path
) -> None:
    builder = builder_that(busy("1"))
    said: list[ClientError] = []

    def on_retry(refused: ClientError, _: float) -> None:
        said.append(refused)
        client.build(hello, CONFIG)

    with (
        Client(builder.url, payload_secret=SECRET, on_retry=on_retry) as client,
        pytest.raises(RuntimeError, match="on_retry"),
    ):
        client.build(hello, CONFIG)
    assert len(said) == 1


def test_a_fork_is_told(builder_that: BuilderThat, hello: Path) -> None:
    program = """
import os, sys
from function_builder.client import Client
with Client(sys.argv[1], payload_secret=sys.argv[2].encode()) as client:
    client.build(sys.argv[3], image="a/b")
    child = os.fork()
    if not child:
        try:
            client.build(sys.argv[3], image="a/b")
        except RuntimeError as error:
            client.close()
            os._exit(7 if "fork" in str(error) else 8)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), client.build(sys.argv[3], image="a/b").status)
"""
    builder = builder_that(whole(status="success"))
    done = subprocess.run(
        [sys.executable, "-c", program, builder.url, SECRET.decode(), str(hello)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "7 success\n", done.stderr


def test_an_interrupt_hangs_up(builder_that: BuilderThat, hello: Path) -> None:
    program = """
import sys
from function_builder.client import Client
client = Client(sys.argv[1], payload_secret=sys.argv[2].encode())
try:
    with client.stream(sys.argv[3], image="a/b") as build:
        for progress in build:
            print("begun", flush=True)
except KeyboardInterrupt:
    print("interrupted")
"""
    builder: ScriptedBuilder

    async def until_abandoned() -> None:

        try:
            await asyncio.Event().wait()
        finally:
            builder.abandoned.set()

    builder = builder_that(streamed(progress("one"), then=until_abandoned))
    with subprocess.Popen(
        [sys.executable, "-c", program, builder.url, SECRET.decode(), str(hello)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
        assert process.wait(60) == 0
    assert builder.abandoned.wait(60)
