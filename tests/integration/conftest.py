"""Fixtures of tests that build."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.builders import RunningBuilder, running_builder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def builder(buildkitd: str, tmp_path_factory, registry: str) -> AsyncIterator[RunningBuilder]:
    """A builder that all tests share."""
    root: Path = tmp_path_factory.mktemp("builder")
    async with running_builder(root, buildkitd) as running:
        yield running
