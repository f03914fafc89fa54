"""The one cluster that all of these tests share."""

from collections.abc import AsyncIterator

import pytest_asyncio

from function_builder.engine import BuildKitConfig, BuildKitDaemon, Registry
from function_builder.engine.base_image import seed_base_image
from tests.cluster.cluster import REGISTRY, Cluster, make_network, short_root
from tests.cluster.images import push_of_cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster with its registry, and DNS for its Services."""
    make_network()
    config = BuildKitConfig(mirrors={"docker.io": [REGISTRY]}, plain_http=[REGISTRY])
    with short_root() as root:
        async with Registry(root / "registry", listen="0.0.0.0:5000", log=root / "registry.log"):
            await seed_base_image(REGISTRY)
            async with BuildKitDaemon(root / "bk", config=config, log=root / "bk.log") as daemon:
                await push_of_cluster(daemon, root)
                async with Cluster(root) as running:
                    yield running
