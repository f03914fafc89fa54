"""The one cluster that all of these tests share, and what is told of a run at its end."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from function_builder.engine import Registry
from function_builder.engine.base_image import seed_base_image
from tests.cluster.cluster import REGISTRY, Cluster, make_network
from tests.cluster.images import images
from tests.cluster.openfaas import OpenFaaS, Tell

# The first process of a PID namespace is spared a SIGTERM that it does not ask for.
signal.signal(signal.SIGTERM, signal.default_int_handler)

_TABLES: Final = pytest.StashKey[list[str]]()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster with its registry, and DNS for its Services."""
    make_network()
    root = Path(os.environ["CLUSTER_ROOT"])
    async with Registry(root / "registry", listen="0.0.0.0:5000", log=root / "registry.log"):
        await seed_base_image(REGISTRY)
        async with images(root) as made:
            await made.push_of_cluster()
            await made.push_of_product()
        async with Cluster(root) as running:
            yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def openfaas(cluster: Cluster) -> OpenFaaS:
    """The namespace, with all that the chart asks for, and nothing installed."""
    namespace = OpenFaaS(cluster)
    await namespace.prepare()
    return namespace


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Tell:
    """Takes a table (a title, and rows of which the first is the head) for the end of the run."""
    tables = pytestconfig.stash.setdefault(_TABLES, [])

    def add(title: str, rows: Sequence[Sequence[object]]) -> None:
        cells = [[str(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        tables.append("\n".join([title, "", *(f"    {line}" for line in lines), ""]))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables."""
    for table in terminalreporter.config.stash.get(_TABLES, []):
        terminalreporter.write_line("")
        terminalreporter.write(table)
