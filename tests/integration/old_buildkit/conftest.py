"""In this folder BuildKit is v0.23.2, the oldest that users still run."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from function_builder.engine import BuildKitConfig, BuildKitDaemon, find_tool
from tests.conftest import FreshBuildKit
from tests.support.builders import RunningBuilder, running_builder

OLD = "buildkitd-0.23.2"


@contextmanager
def old_program() -> Iterator[None]:
    """Daemons that are begun meanwhile run the old program, and are started again with it."""
    folder = find_tool(OLD).resolve().parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        assert find_tool("buildkitd").resolve() == find_tool(OLD).resolve()
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def buildkitd(engine_root: Path, buildkit_config: BuildKitConfig) -> AsyncIterator[str]:
    root, log = engine_root / "bk-old", engine_root / "bk-old.log"
    async with AsyncExitStack() as stack:
        with old_program():
            daemon = BuildKitDaemon(root, config=buildkit_config, log=log)
            await stack.enter_async_context(daemon)
        yield daemon.address


@pytest.fixture
def fresh_buildkitd(fresh_buildkitd: FreshBuildKit) -> FreshBuildKit:
    async def start() -> BuildKitDaemon:
        with old_program():
            return await fresh_buildkitd()

    return start


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def builder(buildkitd: str, tmp_path_factory, registry: str) -> AsyncIterator[RunningBuilder]:
    async with running_builder(tmp_path_factory.mktemp("old"), buildkitd) as running:
        yield running
