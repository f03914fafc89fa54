"""A builder for the clients, and functions for them to build."""

import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import VECTORS
from tests.support.builders import RunningBuilder, running_builder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def builder(buildkitd: str, tmp_path_factory) -> AsyncIterator[RunningBuilder]:
    """A builder with one slot, and with the vectors' key for build secrets."""
    root: Path = tmp_path_factory.mktemp("builder")
    key = root / "key"
    shutil.copy(VECTORS / "build-secrets.key", key)
    async with running_builder(
        root / "b", buildkitd, max_inflight="1", build_secrets_private_key_path=str(key)
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def wide_builder(buildkitd: str, tmp_path_factory) -> AsyncIterator[RunningBuilder]:
    """A builder with room for all."""
    async with running_builder(tmp_path_factory.mktemp("builder") / "b", buildkitd) as running:
        yield running


@pytest.fixture
def image(registry: str) -> str:
    """A reference that no other test pushes to."""
    return f"{registry}/clients/{uuid.uuid4().hex[:12]}:1"


@pytest.fixture
def function(tmp_path: Path) -> Path:
    """A build context with what real ones have: folders, a link, an executable, odd names."""
    root = tmp_path / "function"
    (root / "handler" / "deep").mkdir(parents=True)
    (root / "Dockerfile").write_text(
        "FROM busybox\nCOPY handler /home/app\nRUN echo built; /home/app/run >/said\n"
    )
    run = root / "handler" / "run"
    run.write_text("#!/bin/sh\ncat /home/app/deep/grüße\n")
    run.chmod(0o755)
    (root / "handler" / "deep" / "grüße").write_text("hello\n")
    (root / "handler" / ("long-" + "x" * 80)).write_text("")
    return root


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A build context whose RUN fails."""
    root = tmp_path / "failing"
    root.mkdir()
    (root / "Dockerfile").write_text("FROM busybox\nRUN echo the last words; exit 7\n")
    return root
