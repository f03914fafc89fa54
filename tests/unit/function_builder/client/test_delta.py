"""Whether a builder is asked before it gets a request with a manifest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from function_builder.client import AsyncClient
from function_builder.client.manifest import Listing
from function_builder.contract.manifest import MANIFEST_NAME, SMALL_BYTES, Row
from tests.unit.function_builder.scripted_builder import SECRET, ScriptedBuilder, whole


async def test_a_builder_is_asked_once_and_again_when_another_one_has_answered(
    builder_that: Callable[..., ScriptedBuilder],
    hello: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (hello / "large").write_bytes(bytes(SMALL_BYTES))
    builder = builder_that(whole(status="success", image="r/i:1"))

    async def build() -> list[bool]:
        """Whether each request of a build had a manifest."""
        builder.bodies.clear()
        async with AsyncClient(builder.url, payload_secret=SECRET) as client:
            await client.build(hello, image="r/i:1")
        return [MANIFEST_NAME.encode() in body for body in builder.bodies]

    assert await build() == [False]
    assert builder.questions == 1
    builder.manifests = True
    for _ in range(2):
        assert await build() == [True]
    assert builder.questions == 2
    builder.manifests, accepting = False, builder.answers
    builder.answers = [whole(400, status="failed", error="no context/"), *accepting]
    assert await build() == [True, False]
    assert await build() == [False]
    assert builder.questions == 3


def test_rows_that_an_answer_names_many_times_are_counted_once():
    listing = Listing([Row("context/f", 0, 0, 0)] * 100_000, [], set())
    assert listing.named([(0, 1 << 60)] * 100_000) == set(range(100_000))
    assert listing.named([(5, 2), (-3, 4), (6, 1), (99_999, 9), (7, 0)]) == {0, 5, 6, 99_999}
