"""What is between a builder and its BuildKit breaks: after each frame, or a session by itself."""

import asyncio

import pytest

from tests.adversarial.faults.asking import ask, is_free, is_whole
from tests.adversarial.faults.cutter import cutter
from tests.support.builders import running_builder
from tests.support.images import pull
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

FRAMES = 200
FILES = 40


def content(number: int, name: int) -> str:
    """Of one size for all builds from the hundredth on, and another one in each."""
    return f"{number} {name}\n" * 3000


def function(registry: str, number: int) -> bytes:
    """Another function each time, so that each time there is all to send."""
    files = {f"lib/{name}.js": content(number, name) for name in range(FILES)}
    dockerfile = f"FROM busybox\nCOPY . /\nRUN : {number}; seq 10\n"
    image = {"image": f"{registry}/faults/frames:n{number}"}
    return make_tar({"Dockerfile": dockerfile} | files, image)


@pytest.mark.timeout(400)
async def test_the_connection_is_cut_after_each_of_its_first_frames(
    buildkitd, registry, tmp_path, http
):
    settings = {"max_inflight": "1", "insecure": "true"}
    outcomes: dict[int, str] = {}
    async with (
        cutter(buildkitd, tmp_path / "cut") as cut,
        running_builder(tmp_path / "b", cut.address, **settings) as builder,
    ):
        # The first one has the base image to fetch besides.
        for number in (-1, 0):
            reply = await ask(http, builder, function(registry, number))
            assert reply["status"] == "success", reply
        # A build has more or fewer frames, by the speed of BuildKit's disk.
        frames = min(FRAMES, cut.build.frames * 4 // 5)
        assert frames >= FRAMES // 2, cut.build.frames
        for number in range(1, frames + 1):
            cut.cut_next(number, torn=bool(number % 2))
            reply = await ask(http, builder, function(registry, number))
            outcomes[number] = reply["status"]
            if reply["status"] == "failed":
                assert "BuildKit" in reply["error"], (number, reply)
            is_free(builder)
            if number % 10 == 0:
                await is_whole(http, builder)
                # What a broken transfer left with BuildKit is not taken for what it should hold.
                again = await ask(http, builder, function(registry, number))
                assert again["status"] == "success", (number, again)
                image = await asyncio.to_thread(pull, registry, "faults/frames", f"n{number}")
                assert image.text(f"lib/{FILES - 1}.js") == content(number, FILES - 1)
    # What a connection is for is known after some frames: a health check's may be cut before.
    lost = [number for number, outcome in outcomes.items() if outcome == "failed"]
    assert len(lost) > frames * 0.9, outcomes


@pytest.mark.parametrize("heard_by", ["builder", "both"])
async def test_a_session_that_is_lost_alone_ends_its_build(
    buildkitd, tmp_path, http, steps, heard_by
):
    async with (
        cutter(buildkitd, tmp_path / "cut") as cut,
        running_builder(tmp_path / "b", cut.address, max_inflight="1") as builder,
    ):
        body = steps.body("alone")
        async with http.stream(
            "POST", f"{builder.url}/build", content=body, headers=headers(body, stream=True)
        ) as answer:
            await steps.reached("alone")
            cut.build.reset_session(to_buildkit=heard_by == "both")
            lines = [line async for line in answer.aiter_lines()]
        assert '"status":"failed"' in lines[-1].replace(" ", "")
        assert "BuildKit" in lines[-1]
        await is_whole(http, builder)
