"""Builds that outlive their connection, against a builder that loses connections on demand."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from function_builder.client import (
    AsyncClient,
    BuildHandle,
    BuildResult,
    BuildState,
    BuildStatus,
    Client,
    ClientError,
    Refused,
    Unreachable,
    answers,
)
from tests.support import free_address, until
from tests.unit.function_builder.client.fake_builds import SECRET, FakeBuilds, serving_builds
from tests.unit.function_builder.scripted_builder import whole


@pytest.fixture
def builder() -> Iterator[FakeBuilds]:
    with serving_builds() as fake:
        yield fake


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost connections are made again at once."""
    monkeypatch.setattr(answers, "_FIRST_BACK_OFF", 0.001)


def client_of(builder: FakeBuilds, **options) -> AsyncClient:
    return AsyncClient(builder.url, payload_secret=SECRET, **options)


async def lines_of(build: BuildHandle, after: int = 0) -> list[str]:
    return [line async for progress in build.log(after=after) for line in progress.log]


async def test_a_build_is_submitted_followed_and_awaited(builder: FakeBuilds, hello: Path) -> None:
    async with client_of(builder) as client:
        build = await client.submit(hello, image="r/a:1")
        assert build.info is not None
        assert build.info.state is BuildState.QUEUED
        fake = builder.builds[build.id]
        fake.lines += ["one", "two"]
        following = asyncio.create_task(lines_of(build))
        assert (await build.status()).state is BuildState.QUEUED
        fake.end("success")
        assert await following == ["one", "two"]
        result = await build.wait()
    assert (result.status, result.digest, result.log) == (BuildStatus.SUCCESS, "sha256:1", ())
    # The log had the result: no further request was needed.
    assert builder.requests[-1].endswith("/log") or builder.requests[-1].endswith(build.id)


async def test_a_lost_answer_makes_no_second_build(builder: FakeBuilds, hello: Path) -> None:
    builder.lost_answers = 2
    said: list[tuple[ClientError, float]] = []
    async with client_of(builder, on_retry=lambda *told: said.append(told)) as client:
        build = await client.submit(hello, image="r/a:1")
        assert list(builder.builds) == [build.id]
        again = await client.submit(hello, image="r/a:1")
    assert again.id != build.id
    assert len(set(builder.keys)) == 2
    assert builder.keys[0] == builder.keys[1] == builder.keys[2]
    assert all(isinstance(error, Unreachable) for error, _ in said)


async def test_a_key_of_the_callers_is_one_build(builder: FakeBuilds, hello: Path) -> None:
    async with client_of(builder) as client:
        first, second = [
            await client.submit(hello, image="r/a:1", idempotency_key='a "key"') for _ in range(2)
        ]
        with pytest.raises(ValueError, match="printable"):
            await client.submit(hello, image="r/a:1", idempotency_key="ä")
    assert first.id == second.id
    assert builder.keys == [r'"a \"key\""'] * 2


async def test_callbacks_are_asked_for(builder: FakeBuilds, hello: Path) -> None:
    async with client_of(builder) as client:
        await client.submit(
            hello,
            image="r/a:1",
            callback_url="https://example.com/built",
            callback_events=["build.started", "build.finished"],
        )
    sent = builder.headers[0]
    assert sent["x-callback-url"] == "https://example.com/built"
    assert sent["x-callback-events"] == "build.started, build.finished"


@pytest.mark.parametrize("cuts", [[0], [1, 1, 1], [2, 0, 0, 1]])
async def test_a_lost_connection_loses_and_repeats_no_line(
    builder: FakeBuilds, cuts: list[int]
) -> None:
    lines = [f"line {number}" for number in range(5)]
    fake = builder.add("running", *lines)
    fake.end("success")
    builder.log_cuts += cuts
    builder.refusals += [503]
    async with client_of(builder) as client:
        build = client.handle(fake.id)
        await build.status()
        assert await lines_of(build) == lines
        assert (await build.wait()).status is BuildStatus.SUCCESS
    assert not builder.log_cuts


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    lines=st.lists(st.text(max_size=5), max_size=12),
    cuts=st.lists(st.integers(0, 5), max_size=5),
    after=st.integers(0, 12),
)
async def test_any_cuts(builder: FakeBuilds, lines: list[str], cuts: list[int], after: int) -> None:
    fake = builder.add("running", *lines)
    fake.end("failed", "no")
    builder.log_cuts[:] = cuts
    async with client_of(builder) as client:
        build = client.handle(fake.id)
        await build.status()
        assert await lines_of(build, after) == lines[after:]
        assert (await build.wait()).error == "no"


async def test_waiting_reads_no_log(builder: FakeBuilds) -> None:
    fake = builder.add("running", "one")
    async with client_of(builder) as client:
        waiting = asyncio.create_task(client.handle(fake.id).wait())
        await until(lambda: bool(builder.requests))
        fake.end("failed", "no")
        result = await waiting
    assert (result.status, result.error, result.log) == (BuildStatus.FAILED, "no", ())


async def test_a_builder_that_stays_away_is_given_up(builder: FakeBuilds) -> None:
    fake = builder.add()
    builder.refusals += [502] * 1000
    async with client_of(builder, retry_timeout=0.1) as client:
        build = client.handle(fake.id)
        await build.status()
        with pytest.raises(Refused, match="502"):
            await build.wait()
    assert 3 < len(builder.requests) < 12


async def test_an_address_without_a_builder_fails_at_once(hello: Path) -> None:
    async with AsyncClient(f"http://{free_address()}", payload_secret=SECRET) as client:
        with pytest.raises(Unreachable, match="refused"):
            await client.handle("0" * 24).wait()
        with pytest.raises(Unreachable, match="refused"):
            await client.submit(hello, image="r/a:1")


async def test_builds_are_listed_over_pages(builder: FakeBuilds) -> None:
    added = [builder.add("success" if number % 2 else "failed").id for number in range(7)]
    async with client_of(builder) as client:
        found = [info.id async for info in client.builds(page=2)]
        good = [info.id async for info in client.builds(status="success", page=2)]
        both = [info.id async for info in client.builds(status=["success", BuildState.FAILED])]
        with pytest.raises(ValueError, match="no-such"):
            client.builds(status="no-such")
    assert found == both == added[::-1]
    assert good == added[1::2][::-1]


async def test_a_build_is_cancelled_and_built_again(builder: FakeBuilds) -> None:
    fake = builder.add()
    async with client_of(builder) as client:
        build = client.handle(fake.id)
        assert (await build.cancel()).state is BuildState.CANCELLED
        fake.status = "failed"
        with pytest.raises(Refused, match="already ended") as caught:
            await build.cancel()
        again = await build.retry()
        assert again.info is not None
        assert again.info.state is BuildState.QUEUED
        assert again.id != build.id
        result = await build.wait()
    assert caught.value.status == 409
    assert result.status is BuildStatus.FAILED


async def test_a_token_opens_its_build_without_the_secret(builder: FakeBuilds, hello: Path) -> None:
    async with client_of(builder) as client:
        build = await client.submit(hello, image="r/a:1")
    async with AsyncClient(builder.url) as stranger:
        info = await stranger.handle(build.id, token=build.token).status()
        assert info.id == build.id
        with pytest.raises(Refused, match="not signed"):
            await stranger.handle(build.id).status()
        with pytest.raises(Refused, match="not signed"):
            await stranger.handle(build.id, token="fbt_0").status()


async def test_refusals_are_the_builders_words(builder: FakeBuilds) -> None:
    async with client_of(builder) as client:
        with pytest.raises(
            Refused, match=r"^the builder refused \(404\): there is no such"
        ) as error:
            await client.handle("0" * 24).status()
        with pytest.raises(Refused, match="no such build"):
            await client.handle("0" * 24).wait()
        with pytest.raises(Refused, match="404"):
            await client.handle("é/../?a").status()
    assert error.value.from_builder


async def test_an_answer_that_the_secret_did_not_sign_is_not_believed(
    builder: FakeBuilds, hello: Path
) -> None:
    builder.signs = False
    fake = builder.add()
    fake.end("success")
    async with client_of(builder) as client:
        for asked in (client.handle(fake.id).status(), client.submit(hello, image="r/a:1")):
            with pytest.raises(Refused, match="did not sign"):
                await asked
        assert (await client.handle(fake.id).wait()).status is BuildStatus.FAILED
    async with client_of(builder, require_signed_answers=False) as client:
        assert (await client.handle(fake.id).status()).state is BuildState.SUCCESS


async def test_a_builder_without_a_queue_says_that_it_built_at_once(builder_that, hello) -> None:
    plain = builder_that(whole(status="success", image="i"))
    async with AsyncClient(plain.url, payload_secret=SECRET) as client:
        with pytest.raises(Refused, match="without queueing"):
            await client.submit(hello, image="i")
    assert len(plain.bodies) == 1


async def test_the_proof_is_of_the_path_that_the_builder_sees(builder: FakeBuilds) -> None:
    """A proxy that offers the builder under a prefix strips it."""
    fake = builder.add()
    async with AsyncClient(f"{builder.url}/prefix/build", payload_secret=SECRET) as client:
        with pytest.raises(Refused):  # no proxy strips it here
            await client.handle(fake.id).status()
        target = client._transport.target("/builds", {"status": "failed"})
    assert target == "/prefix/builds?status=failed"


def test_the_same_without_asyncio(builder: FakeBuilds, hello: Path) -> None:
    with Client(builder.url, payload_secret=SECRET) as client:
        build = client.submit(hello, image="r/a:1")
        fake = builder.builds[build.id]
        fake.lines.append("one")
        log = build.log()
        assert next(log).log == ("one",)
        ended = threading.Timer(0.01, fake.end, ["success"])
        ended.start()
        assert list(log) == []
        assert build.wait().status is BuildStatus.SUCCESS
        assert [info.id for info in client.builds()] == [build.id]
        assert client.handle(build.id).status().state is BuildState.SUCCESS
        assert build.retry().id != build.id
        left = client.handle(build.retry().id)
        assert left.cancel().state is BuildState.CANCELLED
        ended.join()


def test_leaving_a_log_early_ends_its_connection(builder: FakeBuilds) -> None:
    fake = builder.add("running", "one", "two")
    with Client(builder.url, payload_secret=SECRET) as client:
        for progress in client.handle(fake.id).log():
            assert isinstance(progress, BuildResult)
            break
        began = time.monotonic()
    assert time.monotonic() - began < 60
