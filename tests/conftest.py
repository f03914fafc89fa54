"""Fixtures that every test may use; those of real programs start them when first asked for."""

import gc
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from function_builder.engine import (
    AddressTaken,
    BuildKitConfig,
    BuildKitDaemon,
    Registry,
    ensure_free,
    find_tool,
)
from function_builder.engine.base_image import seed_base_image
from tests.support import free_address
from tests.support.gate import Gate, gate
from tests.support.workers import (
    enter_own_network,
    import_share,
    is_selection,
    longest_first,
    number_of_workers,
)

# A shell without job control starts what it puts into the background deaf to Ctrl-C, and programs
# inherit that: those that tests start and interrupt must hear it however the tests were started.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is no property of what is tested: a busy machine makes any slow.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# A test draws the same examples in each run, so that a change fails by what it changed. New ones
# are drawn by `make search`.
settings.register_profile("same examples", settings.get_profile("any machine"), derandomize=True)
settings.register_profile("search", settings.get_profile("any machine"), max_examples=2_000)
settings.load_profile("same examples")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked as long too")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return number_of_workers(config)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        # The workers get the options as they are then.
        config.option.long |= is_selection(config)
    elif os.geteuid() == 0:
        enter_own_network()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.long:
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items[:] = longest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect tests without garbage collection: they stay until the end, and are a million objects.

    It took a third of the time, in each process, and looked at them all again during the tests.
    """
    gc.disable()
    try:
        if hasattr(session.config, "workerinput"):
            import_share(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


FreshBuildKit = Callable[[], Awaitable[BuildKitDaemon]]


@pytest.fixture(scope="session")
def engine_root() -> Iterator[Path]:
    """A directory for daemons' state, with a path short enough for sockets."""
    root = Path(tempfile.mkdtemp(prefix="fb-"))
    yield root
    # What rootless BuildKit wrote belongs to ids that only its user namespace may remove.
    inside = [] if os.geteuid() == 0 else [find_tool("rootlesskit")]
    subprocess.run([*inside, "rm", "-rf", root], check=True)
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def registry(engine_root: Path) -> AsyncIterator[str]:
    """`host:port` of a registry that holds busybox; 127.0.0.1:5000, as the vectors say, if free."""
    listen = "127.0.0.1:5000"
    try:
        ensure_free(listen)
    except AddressTaken:
        listen = free_address()
    root = engine_root / "registry"
    log = engine_root / "registry.log"
    async with Registry(root, listen=listen, log=log) as running:
        await seed_base_image(running.address)
        yield running.address


@pytest.fixture(scope="session")
def buildkit_config(registry: str) -> BuildKitConfig:
    """What tests' daemons are told: our registry stands for itself and for docker.io."""
    return BuildKitConfig(mirrors={"docker.io": [registry]}, plain_http=[registry])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def buildkitd(engine_root: Path, buildkit_config: BuildKitConfig) -> AsyncIterator[str]:
    """The address of a buildkitd that all tests share: none may kill it."""
    root = engine_root / "bk"
    log = engine_root / "buildkitd.log"
    async with BuildKitDaemon(root, config=buildkit_config, log=log) as daemon:
        yield daemon.address


@pytest_asyncio.fixture
async def fresh_buildkitd(
    engine_root: Path, buildkit_config: BuildKitConfig
) -> AsyncIterator[FreshBuildKit]:
    """Starts daemons of the test's own, each with an empty cache; the test may kill them.

    `os.killpg(daemon.pid, signal.SIGKILL)` ends one at once; it comes back after 0.2 s.
    """
    async with AsyncExitStack() as stack:

        async def start() -> BuildKitDaemon:
            root = Path(tempfile.mkdtemp(prefix="bk-", dir=engine_root))
            daemon = BuildKitDaemon(root, config=buildkit_config, log=root / "log")
            return await stack.enter_async_context(daemon)

        yield start


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the test's own, which no proxy stands before."""
    async with httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as client:
        yield client


@pytest.fixture
async def steps() -> AsyncIterator[Gate]:
    """Steps of a build that tell the test when they run, and wait for its word."""
    async with gate() as one:
        yield one
