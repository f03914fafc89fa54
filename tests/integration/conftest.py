"""Fixtures of tests that build."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from tests.builders import RunningBuilder, running_builder
from tests.gate import Gate, gate


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def builder(buildkitd: str, tmp_path_factory, registry: str) -> AsyncIterator[RunningBuilder]:
    """A builder that all tests share."""
    root: Path = tmp_path_factory.mktemp("builder")
    async with running_builder(root, buildkitd) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the test's own, which no proxy stands before."""
    async with httpx2.AsyncClient(trust_env=False, timeout=100) as client:
        yield client


@pytest.fixture
async def steps() -> AsyncIterator[Gate]:
    """Steps of a build that tell the test when they run, and wait for its word."""
    async with gate() as one:
        yield one
