"""Each tenant's builds stay in its pool, also when the tenants change."""

import asyncio
import math

from function_builder.buildkits import pools as module
from function_builder.buildkits.addresses import Addresses
from function_builder.buildkits.pool import Pool
from function_builder.buildkits.pools import Pools
from tests.support import until
from tests.unit.function_builder.buildkits.test_pool import BuildKit, address


async def test_the_pools_follow_the_tenants(monkeypatch):
    monkeypatch.setattr(module, "_PERIOD", 0.01)
    workers = {address(1): "shared", address(2): "own"}

    def pool(url: str) -> Pool:
        return Pool(Addresses.parse(url), lambda endpoint: BuildKit(endpoint, workers))  # type: ignore[arg-type, return-value]

    urls: dict[str, str] = {}
    pools = Pools(pool(address(1)), pool, lambda: urls)
    watch = asyncio.create_task(pools.watch())
    await until(lambda: pools.answering == 1)
    assert pools.of("acme") is pools.shared
    urls["acme"] = address(2)
    own = pools.of("acme")
    assert own is pools.of("acme") is not pools.shared
    assert pools.of("zeta") is pools.shared
    await until(lambda: pools.answering == 2)
    assert (pools.daemons, pools.unreachable) == (2, 0)
    urls["zeta"] = address(3)
    await until(lambda: pools.daemons == 3)
    assert (pools.answering, pools.unreachable) == (2, 1)
    assert math.isnan(pools.disk_bytes)
    urls.clear()
    await until(lambda: pools.daemons == 1)
    assert pools.of("acme") is pools.shared
    watch.cancel()
    await asyncio.wait([watch])
